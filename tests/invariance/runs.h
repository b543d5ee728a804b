// One way of running a prompt and what came out: every tensor of every token, and the tokens that
// were chosen. Used by the invariance tests.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "samebits/engine/runtime.h"
#include "samebits/tensor/tensor.h"

namespace samebits {

// Keeps every tensor of a run of `tokens` tokens, as a trace does.
class MemoryRecorder : public Recorder {
 public:
  MemoryRecorder(const Graph& graph, DType dtype, int64_t tokens);
  void Record(std::string_view name, const TensorView& rows, int64_t first_token) override;
  std::map<std::string, Tensor, std::less<>> Take() && { return std::move(tensors_); }

 private:
  int64_t tokens_;
  std::map<std::string, Tensor, std::less<>> tensors_;
};

struct Way {
  Isa isa = Isa::kPortable;
  int threads = 1;
  int64_t chunk = 1 << 20;  // tokens of the prompt at once
};

struct Outcome {
  std::map<std::string, Tensor, std::less<>> tensors;  // of all tokens; empty when not recorded
  // Behind the prompt and behind each chosen token.
  std::vector<std::vector<std::byte>> logits, sampled_logits;
  std::vector<int64_t> greedy, sampled;
};

// Reads the prompt in chunks, then chooses and reads `steps` tokens greedily. Recorded: keeps the
// tensors. Not recorded: does it again with sampling (temperature 0.9, top-k 50, top-p 0.95).
Outcome RunWay(const Graph& graph, const Checkpoint& checkpoint, DType dtype, const Way& way,
               const std::vector<int64_t>& prompt, int64_t steps, bool record);

// Values of tensor `name` that mean something: places of scores that the mask hides are left out.
// Calls fn(offset, count) for each stretch.
void ForVisible(const std::string& name, const Tensor& tensor,
                const std::function<void(int64_t offset, int64_t count)>& fn);

}  // namespace samebits
