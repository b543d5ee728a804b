// Ways of running a prompt and what came out: every tensor of every token, and the tokens that were
// chosen. Used by the invariance tests.
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
  int64_t chunk = 1 << 20;      // tokens of the prompt at once
  int64_t exchange_rows = 128;  // RuntimeOptions
};

struct Outcome {
  std::map<std::string, Tensor, std::less<>> tensors;  // of all tokens; empty when not recorded
  // Behind the prompt and behind each chosen token.
  std::vector<std::vector<std::byte>> logits, sampled_logits;
  std::vector<int64_t> greedy, sampled;
};

// What is run: the model and the dtype.
struct Subject {
  const Graph& graph;
  const Checkpoint& checkpoint;
  DType dtype;
  Communicator* ranks = nullptr;
  ParallelPlan parallel = {};
  std::shared_ptr<const ReplayPlan> replay = nullptr;
};

// Reads the prompt in chunks, then chooses and reads `steps` tokens greedily. Recorded: keeps the
// tensors. Not recorded: does it again with sampling (temperature 0.9, top-k 50, top-p 0.95).
Outcome RunWay(const Subject& subject, const Way& way, const std::vector<int64_t>& prompt,
               int64_t steps, bool record);

// The same for several prompts at once, greedily: in every call each text has other numbers of
// tokens, and some are still being read while others are decoded. Texts with an even number are
// recorded if `record`.
std::vector<Outcome> RunBatch(const Subject& subject, const Way& way,
                              const std::vector<std::vector<int64_t>>& prompts, int64_t steps,
                              bool record);

// Reads `other`, chooses two tokens, keeps the first `kept` ones (which the prompt must begin with)
// and goes on with the prompt from there, recorded: rows of tensors before `kept` are 0.
Outcome RunBehindPrefix(const Subject& subject, const Way& way, const std::vector<int64_t>& other,
                        int64_t kept, const std::vector<int64_t>& prompt, int64_t steps);

// Values of tensor `name`, of the tokens from `first` on, that mean something: places of scores
// that the causal mask hides are left out. Calls fn(offset, count) for each stretch.
void ForVisible(const std::string& name, const Tensor& tensor, int64_t first,
                const std::function<void(int64_t offset, int64_t count)>& fn);

}  // namespace samebits
