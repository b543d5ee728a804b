#include "samebits/diagnose/evidence.h"

#include <algorithm>
#include <cmath>

#include "samebits/numerics/bounds.h"

namespace samebits {
namespace {

constexpr size_t kSample = 400;

int BinOf(double steps) {
  const double size = std::fabs(steps);
  if (size < 0.5) return 0;
  const int bin = std::min(kResidualBins, static_cast<int>(std::floor(std::log2(size))) + 2);
  return steps < 0 ? -bin : bin;
}

}  // namespace

Residuals ResidualsOf(const Replay& replay, const ReplaySource& source,
                      const TensorView& candidate) {
  Residuals residuals;
  const RowRange rows{0, source.tokens()};
  const Expectation e = Evaluate(replay, source, candidate.dtype, rows);
  const std::vector<double> values = GatherRows(candidate, rows, IsPerHead(replay));
  if (e.y.size() != values.size()) return residuals;
  const size_t stride = std::max<size_t>(1, values.size() / kSample) | 1;  // meets every column
  for (size_t i = 0; i < values.size(); ++i) {
    if (!e.ignore.empty() && e.ignore[i] != 0) continue;
    const double expected = ApplyTail(e.tail, e.y[i], static_cast<int64_t>(i) % e.columns);
    const double difference = values[i] - expected;
    if (std::isfinite(difference)) {
      const double step = 2 * HalfUlp(expected, candidate.dtype);
      const int bin = BinOf(difference / step) + kResidualBins;
      ++residuals.histogram[static_cast<size_t>(bin)];
    } else if (!(std::isnan(values[i]) && std::isnan(expected))) {
      ++residuals.not_finite;
    }
    if (i % stride == 0 && std::isfinite(expected) && std::isfinite(values[i])) {
      residuals.expected.push_back(expected);
      residuals.candidate.push_back(values[i]);
    }
  }
  return residuals;
}

WorstElement WorstOf(const Replay& replay, const ReplaySource& source,
                     const TensorView& candidate) {
  WorstElement worst;
  double most = -1;
  const RowRange rows{0, source.tokens()};
  const Expectation e = Evaluate(replay, source, candidate.dtype, rows);
  const std::vector<double> values = GatherRows(candidate, rows, IsPerHead(replay));
  if (e.y.size() != values.size()) return worst;
  for (size_t i = 0; i < values.size(); ++i) {
    if (!e.ignore.empty() && e.ignore[i] != 0) continue;
    const int64_t column = static_cast<int64_t>(i) % e.columns;
    const double bound = e.bound.empty() ? 0 : e.bound[i];
    const double expected = ApplyTail(e.tail, e.y[i], column);
    double distance = std::fabs(values[i] - expected);
    if (std::isnan(distance)) distance = std::isnan(expected) ? 0 : HUGE_VAL;
    if (distance <= most) continue;
    most = distance;
    const double a = ApplyTail(e.tail, e.y[i] - bound, column);
    const double b = ApplyTail(e.tail, e.y[i] + bound, column);
    worst = {static_cast<int64_t>(i), expected, std::min(a, b), std::max(a, b), values[i]};
  }
  return worst;
}

}  // namespace samebits
