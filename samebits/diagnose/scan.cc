#include "samebits/diagnose/scan.h"

#include <algorithm>
#include <cmath>
#include <set>

namespace samebits {
namespace {

// Rounded to so many significant decimal digits.
double Significant(double value, int digits) {
  if (!(value > 0) || !std::isfinite(value)) return value;
  const double unit = std::pow(10.0, std::floor(std::log10(value)) - digits + 1);
  return std::round(value / unit) * unit;
}

double Median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

template <typename Values>
std::vector<double> Without(const Values& values, double configured) {
  std::vector<double> result;
  for (double v : values) {
    const bool known = std::find(result.begin(), result.end(), v) != result.end();
    if (!known && std::fabs(v - configured) > 1e-9 * std::fabs(configured)) result.push_back(v);
  }
  return result;
}

// The decimal number with the fewest digits in [low, high].
double Roundest(double low, double high, double value) {
  for (int digits = 1; digits <= 9; ++digits) {
    const double rounded = Significant(value, digits);
    if (rounded >= low && rounded <= high) return rounded;
  }
  return value;
}

// From y = x w / sqrt(mean(x^2) + eps), by the rows where eps counts most; 0 where it can not be
// told.
double EstimatedEps(const Replay& base, const ReplaySource& source) {
  const TensorView* input = source.tensor(base.node.inputs[0]);
  const TensorView* output = source.tensor(base.node.outputs[0]);
  if (input == nullptr || output == nullptr) return 0;
  const std::vector<double> x = ToDoubles(*input), y = ToDoubles(*output);
  const std::vector<double> w = ToDoubles(source.checkpoint->Get(base.node.weights[0]));
  const size_t size = w.size();
  if (size == 0 || x.size() != y.size() || x.size() % size != 0) return 0;
  std::vector<std::pair<double, double>> rows;  // mean square, eps
  std::vector<double> factors;
  for (size_t begin = 0; begin < x.size(); begin += size) {
    double squares = 0;
    factors.clear();
    for (size_t i = 0; i < size; ++i) {
      const double value = x[begin + i];
      squares += value * value;
      const double product = value * (w[i] + base.weight_offset);
      if (product != 0 && std::isfinite(product)) factors.push_back(y[begin + i] / product);
    }
    const double mean = squares / static_cast<double>(size);
    if (factors.empty() || !std::isfinite(mean)) continue;
    const double factor = Median(factors);
    if (factor > 0 && std::isfinite(factor)) rows.emplace_back(mean, 1 / (factor * factor) - mean);
  }
  if (rows.empty()) return 0;
  std::sort(rows.begin(), rows.end());
  std::vector<double> smallest;
  for (size_t i = 0; i < std::min<size_t>(rows.size(), 9); ++i) smallest.push_back(rows[i].second);
  return Median(smallest);
}

}  // namespace

std::vector<double> EpsCandidates(const Replay& base, const ReplaySource& source) {
  // The usual ones first: of values that do equally well the first is taken.
  std::vector<double> values = {1e-5, 1e-6, 1e-8, 1e-12, 1e-7, 1e-3, 0};
  for (int exponent = -10; exponent <= -2; ++exponent) {
    for (double digit : {1.0, 3.0}) values.push_back(digit * std::pow(10.0, exponent));
  }
  if (const double eps = EstimatedEps(base, source); eps > 0) {
    for (int digits = 1; digits <= 4; ++digits) values.push_back(Significant(eps, digits));
  }
  return Without(values, base.node.attributes.eps);
}

double RefineScalar(double start, double spread, const std::function<Judgement(double)>& judge) {
  if (!(start > 0) || !std::isfinite(start)) return start;
  double best = start, width = std::log(spread);
  Judgement best_judgement = judge(start);
  constexpr int kPoints = 24;
  while (width > 1e-7) {
    const double center = std::log(best);
    for (int i = -kPoints; i <= kPoints; ++i) {
      const double value = std::exp(center + width * i / kPoints);
      const Judgement judgement = judge(value);
      if (judgement.BetterThan(best_judgement)) {
        best = value;
        best_judgement = judgement;
      }
    }
    width /= 8;
  }
  const ValueRange range = FittingRange(best, judge);
  const double round = Roundest(range.low, range.high, best);
  return best_judgement.BetterThan(judge(round)) ? best : round;
}

ValueRange FittingRange(double value, const std::function<Judgement(double)>& judge) {
  if (!(value > 0)) {  // up from zero
    double high = 0;
    for (double v = 1e-14; v < 1 && judge(v).outside <= judge(value).outside; v *= 2) high = v;
    return {value, high};
  }
  const int64_t allowed = judge(value).outside;
  ValueRange range{value, value};
  for (const bool up : {false, true}) {
    double good = value, bad = 0;
    for (double step = 1e-8; step < 1e3 && bad == 0; step *= 4) {
      const double next = up ? value * (1 + step) : value / (1 + step);
      if (judge(next).outside <= allowed) {
        good = next;
      } else {
        bad = next;
      }
    }
    for (int i = 0; i < 8 && bad != 0; ++i) {
      const double middle = std::sqrt(good * bad);
      (judge(middle).outside <= allowed ? good : bad) = middle;
    }
    (up ? range.high : range.low) = good;
  }
  return range;
}

std::vector<double> ThetaCandidates(const Replay& base, const ReplaySource& source) {
  std::set<double> values = {1e3, 1e4,   2e4, 5e4,   1e5, 1.5e5, 2.5e5, 5e5,
                             1e6, 1.5e6, 5e6, 7.5e6, 8e6, 1e7,   5e7};
  const TensorView* cosine = source.tensor(base.node.outputs[0]);
  const TensorView* sine = source.tensor(base.node.outputs[1]);
  const int64_t d = base.node.attributes.head_dim;
  // The angles of a scaled embedding say nothing plain about theta.
  const bool plain = base.node.attributes.rope.kind == RopeKind::kDefault && cosine != nullptr &&
                     cosine->shape.back() == d && sine != nullptr && sine->shape.back() == d;
  if (cosine == nullptr || sine == nullptr || !plain)
    return Without(values, base.node.attributes.rope.theta);
  const std::vector<double> c = ToDoubles(*cosine), s = ToDoubles(*sine);
  std::vector<double> estimates;
  for (int64_t i = 1; i < d / 2; ++i) {
    for (int64_t t = 1; t < source.tokens(); ++t) {
      // One turn at most up to here, if the angle of the step before is small.
      const double angle = std::atan2(s[t * d + i], c[t * d + i]);
      const auto position = static_cast<double>(source.positions[t]);
      if (angle <= 0.05 || angle > 2.5 || position <= 0) continue;
      const double before = std::atan2(s[(t - 1) * d + i], c[(t - 1) * d + i]);
      if (before < 0 || before > angle) break;  // past the first turn
      estimates.push_back(std::log(position / angle) * static_cast<double>(d) /
                          (2.0 * static_cast<double>(i)));
    }
  }
  if (!estimates.empty()) {
    const double theta = std::exp(Median(estimates));
    for (int digits = 1; digits <= 4; ++digits) values.insert(Significant(theta, digits));
  }
  return Without(values, base.node.attributes.rope.theta);
}

int64_t WindowInTrace(const Replay& base, const ReplaySource& source) {
  const TensorView* probs = source.tensor(base.node.outputs[1]);
  if (probs == nullptr) return 0;
  const int64_t keys = source.tokens();
  const std::vector<double> last = GatherRows(*probs, {keys - 1, keys}, true);  // [H, S]
  for (int64_t j = 0; j < keys; ++j) {
    for (size_t at = static_cast<size_t>(j); at < last.size(); at += static_cast<size_t>(keys)) {
      if (last[at] != 0) return j == 0 ? 0 : keys - j;
    }
  }
  return 0;
}

bool PlausibleScale(double value, double configured) {
  constexpr double kNear = 1e-3;
  return std::fabs(value / configured - 1) > kNear;
}

std::vector<double> ScaleCandidates(const Replay& base, const ReplaySource& source) {
  const Attributes& a = base.node.attributes;
  const auto d = static_cast<double>(a.head_dim);
  const auto hidden = static_cast<double>(source.graph->config.hidden_size);
  std::set<double> values = {1.0,
                             1 / d,
                             1 / std::sqrt(hidden),
                             std::sqrt(d),
                             1 / std::sqrt(2 * d),
                             std::pow(d, -0.25),
                             1 / hidden};
  // The ratio of the recorded scores to q . k.
  Replay plain = base;
  plain.node.attributes.scale = 1;
  plain.scale_place = ScalePlace::kBeforeRounding;
  const TensorView* scores = source.tensor(base.node.outputs[0]);
  const RowRange rows = {std::max<int64_t>(0, source.tokens() - 4), source.tokens()};
  const Expectation e = Evaluate(plain, source, DType::kF32, rows);
  const std::vector<double> recorded = GatherRows(*scores, rows, true);
  double both = 0, squares = 0;
  for (size_t i = 0; i < recorded.size(); ++i) {
    if (e.ignore[i] != 0 || !std::isfinite(recorded[i])) continue;
    both += recorded[i] * e.y[i];
    squares += e.y[i] * e.y[i];
  }
  const double ratio = squares > 0 ? both / squares : 0;
  if (ratio > 0 && std::isfinite(ratio)) {
    values.insert(ratio);
    for (int digits = 1; digits <= 3; ++digits) values.insert(Significant(ratio, digits));
    values.insert(1 / std::round(1 / ratio));
    values.insert(1 / std::sqrt(std::round(1 / (ratio * ratio))));
  }
  std::erase_if(values, [](double v) { return !std::isfinite(v) || v <= 0; });
  std::vector<double> result;
  for (double v : Without(values, static_cast<double>(a.scale))) {
    // the fp32 constant is what counts
    if (PlausibleScale(v, static_cast<double>(a.scale))) result.push_back(static_cast<float>(v));
  }
  return result;
}

}  // namespace samebits
