// What a runtime asks for each operation: all rows of a call at once, since in `replay` the order
// of additions depends on how many there are. Two implement it: canonical_arithmetic.h, whose
// bits depend on no such thing, and replay_arithmetic.h. Additions, products and rotary embeddings
// are the same in both: each a few IEEE operations with the roundings of the model's dtype.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "samebits/engine/recorder.h"
#include "samebits/graph/graph.h"
#include "samebits/kernels/kernels.h"
#include "samebits/kernels/thread_pool.h"
#include "samebits/numerics/ops.h"

namespace samebits {

// New tokens of one sequence in an attention node.
struct AttentionPart {
  AttentionArgs args;  // with the cache that already holds the new keys; no scores, no probs
  int64_t before;      // tokens of the sequence before these
  int64_t padding;     // the sequence's first so many tokens are hidden from all others
  Recorder* recorder;  // gets scores and probs if it wants them; or null
};

// Positions and lengths of the rows of a call.
struct RotaryRows {
  std::span<const int64_t> positions;
  // The length of text that each row's rotary embedding is made for (numerics/rope.h).
  std::span<const int64_t> text_lengths;
};

// The KV head, among those that the node has here, that query head `head` reads.
int64_t KvHead(const Node& attention, int64_t head);

class Arithmetic {
 public:
  // Throws Error when the CPU lacks the isa.
  Arithmetic(Isa isa, int threads) : kernels_(SelectKernels(isa)), pool_(threads) {}
  virtual ~Arithmetic() = default;
  Arithmetic(const Arithmetic&) = delete;
  Arithmetic& operator=(const Arithmetic&) = delete;

  virtual void Linear(const Node& node, const LinearArgs& args) = 0;
  // Layers that read the same rows: one node behind the other.
  virtual void LinearLayers(std::span<const Node> nodes, std::span<const LinearArgs> layers);
  virtual void RmsNorm(const Node& node, const RmsNormArgs& args) = 0;
  // cos and sin: [rows, head_dim] dtype
  virtual void Rotary(const Node& node, DType dtype, const RotaryRows& rows, void* cosine,
                      void* sine) = 0;
  // The parts of one call; in replay all of one length: a padded batch.
  virtual void Attention(const Node& node, std::span<const AttentionPart> parts) = 0;
  virtual void Silu(const Node& node, DType dtype, const void* x, void* y, int64_t rows,
                    int64_t width) = 0;
  // Silu of x, to `activated`, times b, to y; any of them may share memory, elements alike.
  virtual void SiluMultiply(const Node& silu, DType dtype, const void* x, const void* b,
                            void* activated, void* y, int64_t rows, int64_t width);

  ThreadPool& pool() { return pool_; }

  void Rope(const RopeArgs& args);
  void Add(DType dtype, const void* a, const void* b, void* y, int64_t rows, int64_t width);
  void Multiply(DType dtype, const void* a, const void* b, void* y, int64_t rows, int64_t width);

 protected:
  // Shares rows out when there is work enough for it; row_work in elements.
  void ForRows(int64_t count, int64_t row_work, const std::function<void(int64_t, int64_t)>& fn);

  const Kernels& kernels_;
  ThreadPool pool_;
};

}  // namespace samebits
