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

// The distances of all elements; the largest one's element in `worst`, unless that is null.
Residuals ResidualsOf(const Replay& replay, const ReplaySource& source, const TensorView& candidate,
                      WorstElement* worst) {
  Residuals residuals;
  const RowRange rows{0, source.tokens()};
  const Expectation e = Evaluate(replay, source, candidate.dtype, rows);
  const std::vector<double> values = GatherRows(candidate, rows, IsPerHead(replay));
  if (e.y.size() != values.size()) return residuals;
  const size_t stride = std::max<size_t>(1, values.size() / kSample) | 1;  // meets every column
  double most = -1;
  for (size_t i = 0; i < values.size(); ++i) {
    if (!e.ignore.empty() && e.ignore[i] != 0) continue;
    const Interval interval = IntervalOf(e, i);
    const double expected = interval.middle, difference = values[i] - expected;
    const bool same_nan = std::isnan(values[i]) && std::isnan(expected);
    if (std::isfinite(difference)) {
      const double step = 2 * HalfUlp(expected, candidate.dtype);
      const int bin = BinOf(difference / step) + kResidualBins;
      ++residuals.histogram[static_cast<size_t>(bin)];
    } else if (!same_nan) {
      ++residuals.not_finite;
    }
    if (i % stride == 0 && std::isfinite(expected) && std::isfinite(values[i])) {
      residuals.expected.push_back(expected);
      residuals.candidate.push_back(values[i]);
    }
    double distance = std::fabs(difference);
    if (std::isnan(distance)) distance = std::isnan(expected) ? 0 : HUGE_VAL;
    if (worst == nullptr || distance <= most) continue;
    most = distance;
    *worst = {static_cast<int64_t>(i), expected, interval.low, interval.high, values[i]};
  }
  return residuals;
}

}  // namespace

Evidence EvidenceOf(const Replay& graph, const Replay* cause, const ReplaySource& source,
                    const TensorView& candidate) {
  Evidence evidence;
  evidence.node = graph.node.outputs[static_cast<size_t>(graph.output)];
  evidence.with_graph = ResidualsOf(graph, source, candidate, &evidence.worst);
  if (cause != nullptr) evidence.with_cause = ResidualsOf(*cause, source, candidate, nullptr);
  return evidence;
}

}  // namespace samebits
