// Runs a graph: node after node over a chunk of tokens, with a KV cache. It knows operations, no
// architectures. How a prompt is cut into chunks, and how many threads there are, changes no bit.
#pragma once

#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "samebits/checkpoint/checkpoint.h"
#include "samebits/graph/graph.h"
#include "samebits/kernels/kernels.h"
#include "samebits/kernels/thread_pool.h"
#include "samebits/tensor/tensor.h"

namespace samebits {

// Gets every tensor of a chunk as it is computed.
class Recorder {
 public:
  virtual ~Recorder() = default;
  // `rows` holds the tokens from `first_token` on. Tensors [T, ...]: their rows. Tensors [H, T, S]:
  // [H, rows, keys] with keys = all tokens up to the end of the chunk.
  virtual void Record(std::string_view name, const TensorView& rows, int64_t first_token) = 0;
};

struct RuntimeOptions {
  DType dtype = DType::kF32;  // weights are rounded or widened to it where they are used
  Isa isa = Isa::kPortable;
  int threads = 1;
};

// Throws Error(kUsage): no ids, ids outside the vocabulary, more than the context holds.
void CheckIds(std::span<const int64_t> ids, const ModelConfig& config, int64_t already = 0);

class Runtime {
 public:
  // `checkpoint` and `graph` must outlive the runtime. Throws Error when the CPU lacks the isa.
  Runtime(const Graph& graph, const Checkpoint& checkpoint, const RuntimeOptions& options);
  ~Runtime();
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;

  // Appends tokens to the sequence. Returns the logits of the last one, [1, V] in the dtype, valid
  // until the next call. Throws as CheckIds does.
  // With a recorder all rows of the logits are computed and recorded.
  const TensorView& Forward(std::span<const int64_t> ids, Recorder* recorder = nullptr);

  int64_t length() const;  // tokens so far

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace samebits
