#include "samebits/engine/sampler.h"

#include <algorithm>
#include <cmath>

#include "samebits/base/error.h"
#include "samebits/numerics/math.h"

namespace samebits {
namespace {

uint64_t SplitMix64(uint64_t x) {
  x += 0x9e3779b97f4a7c15U;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9U;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebU;
  return x ^ (x >> 31);
}

// Uniform in [0, 1) with 53 bits.
double Uniform(uint64_t seed, int64_t step) {
  const uint64_t bits = SplitMix64(SplitMix64(seed) + static_cast<uint64_t>(step));
  return static_cast<double>(bits >> 11) * 0x1p-53;
}

}  // namespace

int64_t SampleToken(const TensorView& logits, const SamplingOptions& options, int64_t step) {
  const std::vector<double> values = ToDoubles(logits);
  std::vector<int64_t> order;
  for (size_t i = 0; i < values.size(); ++i) {
    if (!std::isnan(values[i])) order.push_back(static_cast<int64_t>(i));
  }
  if (order.empty()) Fail(ErrorCode::kBadInput, "all logits are NaN: no token can be chosen");
  const auto better = [&](int64_t a, int64_t b) {
    return values[a] != values[b] ? values[a] > values[b] : a < b;
  };
  if (options.temperature <= 0) return *std::min_element(order.begin(), order.end(), better);
  std::sort(order.begin(), order.end(), better);
  if (options.top_k > 0 && options.top_k < static_cast<int64_t>(order.size())) {
    order.resize(static_cast<size_t>(options.top_k));
  }
  std::vector<double> weights;
  double total = 0;
  for (int64_t id : order) {
    const auto scaled = static_cast<float>((values[id] - values[order[0]]) / options.temperature);
    weights.push_back(Exp(scaled));
    total += weights.back();
  }
  double kept = 0;
  size_t count = 0;
  while (count < weights.size() && (count == 0 || kept < options.top_p * total)) {
    kept += weights[count++];
  }
  const double target = Uniform(options.seed, step) * kept;
  double sum = 0;
  for (size_t i = 0; i < count; ++i) {
    sum += weights[i];
    if (target < sum) return order[i];
  }
  return order[count - 1];
}

}  // namespace samebits
