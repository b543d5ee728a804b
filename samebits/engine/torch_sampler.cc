#include "samebits/engine/torch_sampler.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "samebits/base/error.h"
#include "samebits/numerics/torch_ops.h"
#include "samebits/numerics/torch_sort.h"
#include "samebits/tensor/convert.h"

namespace samebits {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

void Widen(const TensorView& logits, std::vector<float>& scores) {
  const int64_t n = logits.elements();
  scores.resize(n);
  if (logits.dtype == DType::kF32) {
    std::copy_n(logits.as<float>(), n, scores.begin());
  } else if (logits.dtype == DType::kBF16) {
    std::transform(logits.as<uint16_t>(), logits.as<uint16_t>() + n, scores.begin(), BF16ToFloat);
  } else if (logits.dtype == DType::kF16) {
    std::transform(logits.as<uint16_t>(), logits.as<uint16_t>() + n, scores.begin(), F16ToFloat);
  } else {
    Fail(ErrorCode::kUnsupported, "logits of dtype {}: no tokens can be sampled from them",
         DTypeName(logits.dtype));
  }
}

void Penalize(std::vector<float>& scores, double penalty, std::span<const int64_t> context) {
  const auto factor = static_cast<float>(penalty);
  std::vector<bool> seen(scores.size());
  for (const int64_t id : context) {
    if (id < 0 || id >= static_cast<int64_t>(scores.size()) || seen[id]) continue;
    seen[id] = true;
    // round: fp32
    scores[id] = scores[id] < 0 ? scores[id] * factor : scores[id] / factor;
  }
}

// Those below the k-th largest value go; all that equal it stay.
void TopK(std::vector<float>& scores, int64_t k) {
  if (k >= static_cast<int64_t>(scores.size())) return;
  std::vector<float> largest(k);
  std::partial_sort_copy(scores.begin(), scores.end(), largest.begin(), largest.end(),
                         std::greater<>());
  for (float& score : scores) {
    if (score < largest.back()) score = -kInfinity;
  }
}

// How many of the softmax's ascending probabilities go: those whose running sum is at most
// 1 - top_p, and never the last one.
size_t CountBelow(std::span<const float> ascending, double top_p) {
  const auto limit = static_cast<float>(1.0 - top_p);
  double sum = 0;
  size_t count = 0;
  for (; count + 1 < ascending.size(); ++count) {
    sum += ascending[count];
    if (static_cast<float>(sum) > limit) break;  // round: each prefix to fp32, the sum stays fp64
  }
  return count;
}

// The first `count` in torch.sort's order go.
void RemoveFirst(std::vector<float>& scores, size_t count) {
  std::vector<IndexedValue> pairs(scores.size());
  for (size_t i = 0; i < scores.size(); ++i) pairs[i] = {scores[i], static_cast<int32_t>(i)};
  TorchSort(pairs);
  for (size_t i = 0; i < count; ++i) scores[pairs[i].index] = -kInfinity;
}

void TopP(std::vector<float>& scores, double top_p, const SoftmaxFunction& softmax) {
  // Values alone give the probabilities and how many of them go. Which of equal values go is a
  // question only where the cut is between two of them.
  std::vector<float> sorted(scores.size(), -kInfinity);
  auto begin = sorted.end();
  for (const float score : scores) {
    if (score > -kInfinity) *--begin = score;
  }
  std::sort(begin, sorted.end());
  std::vector<float> probs(sorted.size());
  torch_ops::SoftmaxRow(softmax, sorted.data(), probs.data(), std::ssize(sorted));
  const size_t count = CountBelow(probs, top_p);
  if (count == 0) return;
  if (sorted[count - 1] == sorted[count]) return RemoveFirst(scores, count);
  for (float& score : scores) {
    if (score < sorted[count]) score = -kInfinity;
  }
}

void MinP(std::vector<float>& scores, double min_p, const SoftmaxFunction& softmax,
          std::vector<float>& probs) {
  torch_ops::SoftmaxRow(softmax, scores.data(), probs.data(), std::ssize(scores));
  // round: fp32, the product. The likeliest stays, since min_p is at most 1.
  const float limit = static_cast<float>(min_p) * *std::max_element(probs.begin(), probs.end());
  for (size_t i = 0; i < scores.size(); ++i) {
    if (probs[i] < limit) scores[i] = -kInfinity;
  }
}

// Of equal ones the first; the first NaN before all.
int64_t ArgMax(const std::vector<float>& scores) {
  size_t best = 0;
  for (size_t i = 0; i < scores.size(); ++i) {
    if (std::isnan(scores[i])) return static_cast<int64_t>(i);
    if (scores[i] > scores[best]) best = i;
  }
  return static_cast<int64_t>(best);
}

void CheckOptions(const SamplingOptions& o) {
  const auto check = [](bool holds, const char* name, double value, const char* expected) {
    if (!holds) Fail(ErrorCode::kUsage, "{} is {}, expected {}", name, value, expected);
  };
  check(o.temperature >= 0, "temperature", o.temperature, "a number above 0, or 0 for greedy");
  check(o.top_k >= 0, "top_k", static_cast<double>(o.top_k), "at least 1, or 0 for all");
  check(o.top_p >= 0 && o.top_p <= 1, "top_p", o.top_p, "a number from 0 to 1");
  check(o.min_p >= 0 && o.min_p <= 1, "min_p", o.min_p, "a number from 0 to 1");
  check(o.repetition_penalty > 0, "repetition_penalty", o.repetition_penalty, "a number above 0");
}

}  // namespace

TorchSampler::TorchSampler(const SamplingOptions& options, const SoftmaxFunction& softmax)
    : options_(options), softmax_(softmax), generator_(options.seed) {
  CheckOptions(options);
}

int64_t TorchSampler::Next(const TensorView& logits, std::span<const int64_t> context) {
  Widen(logits, scores_);
  SAMEBITS_CHECK(!scores_.empty(), "no logits");
  if (options_.repetition_penalty != 1) Penalize(scores_, options_.repetition_penalty, context);
  if (options_.temperature == 0) return ArgMax(scores_);
  if (options_.temperature != 1) {
    const auto temperature = static_cast<float>(options_.temperature);
    for (float& score : scores_) score /= temperature;  // round: fp32, a true quotient
  }
  // No filter removes what makes the probabilities NaN; none would have an order to sort by.
  const float top = scores_[ArgMax(scores_)];
  if (!std::isfinite(top)) {
    Fail(ErrorCode::kBadInput, "the largest logit is {}: no probabilities to draw a token from",
         top);
  }
  if (options_.top_k > 0) TopK(scores_, options_.top_k);
  if (options_.top_p < 1) TopP(scores_, options_.top_p, softmax_);
  probs_.resize(scores_.size());
  if (options_.min_p > 0) MinP(scores_, options_.min_p, softmax_, probs_);
  return Draw();
}

int64_t TorchSampler::Draw() {
  torch_ops::SoftmaxRow(softmax_, scores_.data(), probs_.data(), std::ssize(scores_));
  uniform_.resize(probs_.size());
  for (double& u : uniform_) u = generator_.Uniform();
  return TorchMultinomial(probs_, uniform_);
}

}  // namespace samebits
