// Perplexity of a model on a text, and how far its logits are from recorded ones. Log softmax in
// fp64 of the logits as the model's dtype has them.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>

#include "samebits/engine/runtime.h"
#include "samebits/tensor/tensor.h"
#include "samebits/trace/trace.h"

namespace samebits {

struct PerplexityOptions {
  int64_t window = 0;   // tokens that the model sees at once: 2 or more
  int64_t stride = 0;   // tokens from the beginning of a window to that of the next: 1 to window
  int64_t chunk = 128;  // tokens whose logits are in memory at once; of a replay: the window
};

// Kullback-Leibler divergence of ours from the recorded distribution, in nats: the sum over the
// vocabulary of p (log p - log q), p recorded. A token without a softmax (NaN, +infinity) on either
// side has an infinite divergence and agrees in nothing, even when both sides have the same bits.
struct LogitAgreement {
  int64_t tokens = 0;
  double kl_mean = 0, kl_median = 0, kl_p999 = 0, kl_max = 0;
  int64_t kl_max_token = -1;  // the first with the largest, when it is not 0
  int64_t same_top = 0;       // tokens with the same likeliest id; of equal logits the lower one
};

struct PerplexityResult {
  int64_t tokens = 0, windows = 0;
  int64_t scored = 0;           // tokens that had another one before them in their window
  double mean_nll = 0;          // nats a scored token; infinite when one has no softmax
  double perplexity = 1;        // e to that
  int64_t without_softmax = 0;  // scored tokens whose logits have NaN, +infinity, or only -infinity
  std::optional<LogitAgreement> against;
};

// The smallest of the values that at least the share q of them does not exceed (nearest rank).
// `sorted`: ascending, not empty. q: above 0, at most 1.
double Quantile(std::span<const double> sorted, double q);

// The tensor lm_head of a trace, [T, V] with a row for each of these ids. Throws Error(kBadInput):
// none, another shape, other ids (with the first place that differs), a batch.
const TensorView& RecordedLogits(const Trace& trace, std::span<const int64_t> ids,
                                 int64_t vocab_size);

// Windows begin at 0, stride, 2 stride, ..., up to the one that reaches the end; each token is
// scored once, in the first window that has it behind another token. `recorded`: null or [T, V];
// needs one window for all. `progress`: tokens scored so far, may be empty. Throws Error(kUsage):
// fewer than 2 ids; and as Runtime::Forward does.
PerplexityResult MeasurePerplexity(Runtime& runtime, std::span<const int64_t> ids,
                                   const PerplexityOptions& options, const TensorView* recorded,
                                   const std::function<void(int64_t done)>& progress = {});

}  // namespace samebits
