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

void CheckIds(std::span<const int64_t> ids, const ModelConfig& config, int64_t already) {
  if (ids.empty()) Fail(ErrorCode::kUsage, "no token ids: at least one is needed");
  for (int64_t id : ids) {
    if (id < 0 || id >= config.vocab_size) {
      Fail(ErrorCode::kUsage, "token id {}: expected 0 to {} (vocab_size - 1)", id,
           config.vocab_size - 1);
    }
  }
  const int64_t tokens = already + static_cast<int64_t>(ids.size());
  if (tokens > config.context_length) {
    Fail(ErrorCode::kUsage, "{} tokens: the model's context ends at {} (max_position_embeddings{})",
         tokens, config.context_length,
         config.context_length == config.max_position_embeddings ? "" : " and rope's scaling");
  }
}

}  // namespace samebits
