// The next token as transformers' generate chooses it on PyTorch's CPU generator: after
// torch.manual_seed(seed) the same tokens, from the same logits. Processors, softmax and draw in
// the reference's order and rounding: docs/numerics/sampling.md. Left out: beam search, the
// processors that SamplingOptions has no field for.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "samebits/engine/sampler.h"
#include "samebits/numerics/torch_functions.h"
#include "samebits/numerics/torch_random.h"
#include "samebits/tensor/tensor.h"

namespace samebits {

// One generation: the state of the random numbers goes from each token to the next. For a batch,
// one sampler and one call for each row, in order, as torch.multinomial goes through its rows.
class TorchSampler {
 public:
  // temperature 0: do_sample=False, no other option counts but the repetition penalty. top_k 0: no
  // top-k (where neither the call nor generation_config.json says one, transformers takes 50).
  // softmax: of a profile. Throws Error (kUsage) for what transformers rejects.
  TorchSampler(const SamplingOptions& options, const SoftmaxFunction& softmax);

  // logits: [1, V] or [V] as the model gave them, bf16, f16 or fp32. `context`: prompt and output
  // so far without padding, read by the repetition penalty only; ids outside of the vocabulary do
  // not count. Throws Error (kBadInput) where torch.multinomial does: a NaN or +infinity among the
  // processed logits, or nothing but -infinity. Greedily, a NaN is the maximum.
  int64_t Next(const TensorView& logits, std::span<const int64_t> context);

  // The processed logits of the last token, as generate's `output_scores` gives them: [V].
  std::span<const float> scores() const { return scores_; }

 private:
  int64_t Draw();

  SamplingOptions options_;
  SoftmaxFunction softmax_;
  TorchGenerator generator_;
  std::vector<float> scores_;    // [V]
  std::vector<float> probs_;     // [V]
  std::vector<double> uniform_;  // [V]
};

}  // namespace samebits
