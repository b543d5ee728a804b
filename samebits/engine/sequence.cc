#include "samebits/engine/sequence.h"

#include <algorithm>

#include "samebits/base/error.h"
#include "samebits/numerics/rope.h"

namespace samebits {

Sequence::Sequence(const Graph& graph, DType dtype) : graph_(&graph), dtype_(dtype) {
  for (const Node& node : graph.nodes) {
    if (node.kind != OpKind::kAttention) continue;
    caches_.emplace_back(dtype, node.attributes.kv_heads, node.attributes.head_dim);
  }
}

void Sequence::Truncate(int64_t length) {
  SAMEBITS_CHECK(length >= 0 && length <= length_, "a length up to the present one");
  length_ = length;
  if (length == 0) planned_ = 0;
  // Also what a Forward left that failed half-way.
  for (KvCache& cache : caches_) cache.Truncate(std::min(length, cache.length()));
}

void Sequence::Plan(int64_t prompt_length) {
  const int64_t longest = std::max({prompt_length, planned_, length_});
  for (const Node& node : graph_->nodes) {
    if (node.kind != OpKind::kRotary || length_ == 0) continue;
    if (RopeDependsOnLength(node.attributes.rope, longest)) Truncate(0);
  }
  planned_ = prompt_length;
}

}  // namespace samebits
