#include "samebits/diagnose/statistics.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "samebits/tensor/tensor.h"

namespace samebits {
namespace {

double Correlation(const std::vector<double>& a, const std::vector<double>& b) {
  double ab = 0, aa = 0, bb = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    ab += a[i] * b[i];
    aa += a[i] * a[i];
    bb += b[i] * b[i];
  }
  return aa > 0 && bb > 0 ? ab / std::sqrt(aa * bb) : 0;
}

// The standard deviation of random weights that give `values` from rows of `x`, if such weights can
// have given them: as large in every row as the row of x is, and normally distributed.
std::optional<double> RandomWeightSize(const std::vector<double>& values,
                                       const std::vector<double>& x, int64_t rows) {
  const size_t outs = values.size() / static_cast<size_t>(rows);
  const size_t size = x.size() / static_cast<size_t>(rows);
  std::vector<double> sizes;
  double second = 0, fourth = 0;
  for (size_t r = 0; r < static_cast<size_t>(rows); ++r) {
    double norm = 0, squares = 0;
    for (size_t k = 0; k < size; ++k) norm += x[r * size + k] * x[r * size + k];
    if (norm == 0) return std::nullopt;
    for (size_t n = 0; n < outs; ++n) {
      const double v = values[r * outs + n] * values[r * outs + n] / norm;
      squares += v;
      second += v;
      fourth += v * v;
    }
    sizes.push_back(std::sqrt(squares / static_cast<double>(outs)));
  }
  const auto all = static_cast<double>(values.size());
  const double kurtosis = fourth / all / (second / all * second / all);
  const auto [low, high] = std::minmax_element(sizes.begin(), sizes.end());
  // Three for a normal distribution; rows of few outputs vary by chance.
  const double spread = 1 + 8 / std::sqrt(2.0 * static_cast<double>(outs));
  if (*high > *low * spread * spread || kurtosis < 1.8 || kurtosis > 6) return std::nullopt;
  return std::sqrt(second / all);
}

}  // namespace

std::optional<Likeness> DescribeUnexplained(const Replay& replay, const ReplaySource& source,
                                            const TensorView& candidate, bool low_precision_seen) {
  // Few outputs tell little; what other linears have shown needs few. Random weights show in fewer
  // outputs than a narrow accumulator does: one head of 16 is enough.
  constexpr size_t kForRandom = 16, kForAccumulator = 32;
  const int64_t least = low_precision_seen ? 4 : kForRandom;
  constexpr int64_t kRows = 4;
  if (replay.node.kind != OpKind::kLinear || candidate.shape.back() < least ||
      source.tokens() < kRows) {
    return std::nullopt;
  }
  Replay with_bias = replay;  // in y, wherever the port rounds
  with_bias.bias_place = BiasPlace::kBeforeRounding;
  Replay bare = with_bias;
  bare.bias_times = 0;
  const RowRange rows{0, std::min<int64_t>(source.tokens(), 64)};
  const Expectation with = Evaluate(with_bias, source, candidate.dtype, rows);
  const Expectation without = Evaluate(bare, source, candidate.dtype, rows);
  const std::vector<double> values = GatherRows(candidate, rows, false);
  const std::vector<double> x = GatherRows(*source.tensor(replay.node.inputs[0]), rows, false);
  double squares = 0;
  for (const double y : without.y) squares += y * y;
  const double limit = 8 * std::sqrt(squares / static_cast<double>(without.y.size()));
  // Where the bias is much larger than the products, its rounding hides them.
  const auto outs = static_cast<size_t>(candidate.shape.back());
  std::vector<double> product, error, expected, sums;
  size_t kept = 0;
  for (size_t n = 0; n < outs; ++n) {
    kept += std::fabs(with.y[n] - without.y[n]) > limit ? 0 : 1;
  }
  for (size_t i = 0, n = 0; i < values.size(); ++i, n = n + 1 == outs ? 0 : n + 1) {
    if (!std::isfinite(values[i])) return std::nullopt;
    const double bias = with.y[n] - without.y[n];
    if (std::fabs(bias) > limit) continue;
    product.push_back(values[i] - bias);
    error.push_back(values[i] - with.y[i]);
    expected.push_back(with.y[i]);
    sums.push_back(without.y[i]);
  }
  if (kept < static_cast<size_t>(least)) return std::nullopt;
  // Rows of one text are alike, so outputs count once: chance gives 1 / sqrt(outputs).
  const double unrelated = std::clamp(4 / std::sqrt(static_cast<double>(outs)), 0.1, 0.6);
  constexpr double kSame = 0.98;
  const double likeness = Correlation(product, sums);
  if (std::fabs(likeness) < unrelated && kept >= kForRandom) {
    if (const auto size = RandomWeightSize(product, x, rows.size())) {
      return Likeness{
          "weight-random",
          // Layers differ in the second digit; as one text they are told once.
          fmt::format("has a weight that is unrelated to the checkpoint's: as if of random values "
                      "with standard deviation {:.1g}",
                      *size)};
    }
    return std::nullopt;
  }
  // Errors of a narrow accumulator are no multiple of the result, and differ from token to token.
  const double proportional = std::fabs(Correlation(error, expected));
  double constant = 0, total = 0;
  for (size_t n = 0; n < kept; ++n) {
    double mean = 0;
    for (size_t i = n; i < error.size(); i += kept) {
      mean += error[i];
      total += error[i] * error[i];
    }
    mean /= static_cast<double>(rows.size());
    constant += mean * mean * static_cast<double>(rows.size());
  }
  const bool per_token = constant < total * (0.6 + 1.0 / static_cast<double>(rows.size()));
  constexpr double kAlike = 0.9;
  if (low_precision_seen && likeness > kAlike) {
    return Likeness{"accumulator-low-precision",
                    "computes the right product with errors that no fp32 accumulator makes"};
  }
  if (kept >= kForAccumulator && likeness > kSame && proportional < 0.8 && per_token) {
    return Likeness{"accumulator-low-precision",
                    "computes the right product with errors that no fp32 accumulator makes"};
  }
  return std::nullopt;
}

}  // namespace samebits
