#include "samebits/engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "samebits/base/error.h"
#include "samebits/numerics/math.h"

namespace samebits {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

uint64_t SplitMix64(uint64_t x) {
  x += 0x9e3779b97f4a7c15U;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9U;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebU;
  return x ^ (x >> 31);
}

// Uniform in [0, 1) with 53 bits.
double Uniform(uint64_t seed, int64_t step) {
  return static_cast<double>(DerivedSeed(seed, static_cast<uint64_t>(step)) >> 11) * 0x1p-53;
}

void Penalize(std::vector<double>& values, double penalty, std::span<const int64_t> context) {
  std::vector<int64_t> ids(context.begin(), context.end());
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  const auto factor = static_cast<float>(penalty);
  for (int64_t id : ids) {
    if (id < 0 || id >= static_cast<int64_t>(values.size())) continue;
    const auto value = static_cast<float>(values[id]);
    // round: fp32, as transformers' logits processors have it
    values[id] = value < 0 ? value * factor : value / factor;
  }
}

// Ids from the likeliest on, of equal ones the first first; as many as somebody asks for.
class Ranking {
 public:
  explicit Ranking(const std::vector<double>& values) : values_(values) {
    heap_.reserve(values.size());
    for (size_t i = 0; i < values.size(); ++i) {
      if (!std::isnan(values[i])) heap_.push_back(static_cast<int64_t>(i));
    }
    std::make_heap(heap_.begin(), heap_.end(), worse_);
  }

  bool Empty() const { return heap_.empty(); }
  int64_t Pop() {
    std::pop_heap(heap_.begin(), heap_.end(), worse_);
    const int64_t id = heap_.back();
    heap_.pop_back();
    return id;
  }

 private:
  struct Worse {
    const std::vector<double>& values;
    bool operator()(int64_t a, int64_t b) const {
      return values[a] != values[b] ? values[a] < values[b] : a > b;
    }
  };

  const std::vector<double>& values_;
  Worse worse_{values_};
  std::vector<int64_t> heap_;
};

int64_t Greedy(const std::vector<double>& values) {
  int64_t best = -1;
  for (size_t i = 0; i < values.size(); ++i) {
    if (std::isnan(values[i])) continue;
    if (best < 0 || values[i] > values[best]) best = static_cast<int64_t>(i);
  }
  if (best < 0) Fail(ErrorCode::kBadInput, "all logits are NaN: no token can be chosen");
  return best;
}

}  // namespace

uint64_t DerivedSeed(uint64_t seed, uint64_t index) { return SplitMix64(SplitMix64(seed) + index); }

int64_t SampleToken(const TensorView& logits, const SamplingOptions& options, int64_t step,
                    std::span<const int64_t> context) {
  std::vector<double> values = ToDoubles(logits);
  if (options.repetition_penalty != 1) Penalize(values, options.repetition_penalty, context);
  const int64_t best = Greedy(values);
  // An infinite logit leaves no probabilities to speak of.
  if (options.temperature <= 0 || std::isinf(values[best])) return best;
  const auto weight = [&](int64_t id) -> double {
    // round: fp32, the argument of Exp
    return Exp(static_cast<float>((values[id] - values[best]) / options.temperature));
  };

  Ranking ranking(values);
  std::vector<int64_t> kept;
  std::vector<double> weights;
  double total = 0;
  while (!ranking.Empty() &&
         (options.top_k <= 0 || static_cast<int64_t>(kept.size()) < options.top_k)) {
    kept.push_back(ranking.Pop());
    weights.push_back(weight(kept.back()));
    total += weights.back();
    // Nothing further down can be drawn: all that follows together is below the last bit.
    if (weights.back() * static_cast<double>(values.size()) < total * 0x1p-60) break;
  }
  double reached = 0;
  size_t count = 0;
  while (count < weights.size() && (count == 0 || reached < options.top_p * total)) {
    if (count > 0 && weights[count] < options.min_p * weights[0]) break;
    reached += weights[count++];
  }
  const double target = Uniform(options.seed, step) * reached;
  double sum = 0;
  for (size_t i = 0; i < count; ++i) {
    sum += weights[i];
    if (target < sum) return kept[i];
  }
  return kept[count - 1];
}

LogProbs TokenLogProbs(const TensorView& logits, int64_t chosen, int64_t top) {
  std::vector<double> values = ToDoubles(logits);
  for (double& value : values) {
    if (std::isnan(value)) value = -kInfinity;
  }
  const double largest = *std::max_element(values.begin(), values.end());
  double total = 0;
  for (double value : values) {
    total += Exp(static_cast<float>(value - largest));  // NaN where both are infinite
  }
  const double log_total = std::isfinite(largest) ? NaturalLog(total) : 0;
  const auto log_prob = [&](int64_t id) {
    if (std::isfinite(largest)) return values[id] - largest - log_total;
    return values[id] == largest ? 0.0 : -kInfinity;
  };
  LogProbs result;
  result.chosen = log_prob(chosen);
  Ranking ranking(values);
  while (static_cast<int64_t>(result.top.size()) < top && !ranking.Empty()) {
    const int64_t id = ranking.Pop();
    result.top.push_back({id, log_prob(id)});
  }
  return result;
}

}  // namespace samebits
