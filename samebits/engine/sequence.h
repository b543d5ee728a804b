// One text that a runtime reads and continues: how many tokens it holds, and the keys and values of
// every attention node for them. It knows nothing of how they are computed.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "samebits/engine/kv_cache.h"
#include "samebits/graph/graph.h"
#include "samebits/tensor/dtype.h"

namespace samebits {

// Made by Runtime::NewSequence(), for that runtime or another of the same graph and dtype.
class Sequence {
 public:
  int64_t length() const { return length_; }  // tokens so far

  // Forgets the tokens behind the first `length` ones (0: all), so that another continuation can be
  // read. The bits of the others stay what they are.
  void Truncate(int64_t length);

  // Says, before the first Forward of a prompt, how long the prompt will be in all, with what is
  // there already. Rotary embeddings that depend on a text's length need it; without it, the
  // end of the first Forward counts. May forget tokens that another length gives other bits.
  void Plan(int64_t prompt_length);

  // The first so many tokens fill a batch up on the left, and no other token sees them. For
  // replay alone: canonical batches are ragged.
  void SetPadding(int64_t padding) { padding_ = padding; }

 private:
  friend class Runtime;
  Sequence(const Graph& graph, DType dtype);

  const Graph* graph_;
  DType dtype_;
  std::vector<KvCache> caches_;  // of the attention nodes, in the graph's order
  int64_t length_ = 0, planned_ = 0, padding_ = 0;
};

// Throws Error(kUsage): no ids, ids outside the vocabulary, more than the context holds.
void CheckIds(std::span<const int64_t> ids, const ModelConfig& config, int64_t already = 0);

}  // namespace samebits
