#include <algorithm>
#include <cmath>

#include "samebits/diagnose/low_precision.h"
#include "samebits/diagnose/replay_context.h"
#include "samebits/numerics/bounds.h"

namespace samebits {
namespace {

std::vector<double> NormWeights(const ReplayContext& c) {
  const std::string& name = c.node().weights.at(0);
  std::vector<double> w = c.WeightVector(name);
  if (c.replay.weight_left_out) std::fill(w.begin(), w.end(), 1.0);
  const double offset = c.replay.weight_offset;
  if (offset == 0) return w;
  if (c.replay.offset_place == OffsetPlace::kStored) {
    const TensorView& view = c.source.checkpoint->Get(name);
    w = ToDoubles(view);
    for (double& v : w) v = RoundToDType(RoundToDType(v + offset, view.dtype), c.model);
    return w;
  }
  const bool narrow = c.replay.offset_place == OffsetPlace::kModel;
  for (double& v : w) v = RoundToDType(v + offset, narrow ? c.model : DType::kF32);
  return w;
}

Expectation LowPrecisionNorm(const ReplayContext& c, const std::vector<double>& x,
                             const std::vector<double>& w) {
  const auto size = static_cast<int64_t>(w.size());
  Expectation e;
  e.columns = size;
  e.y.resize(x.size());
  e.low.resize(x.size());
  e.high.resize(x.size());
  std::vector<Outcomes> row(static_cast<size_t>(size));
  const Tail tail = {MultiplyStep(w), c.Last()};
  for (int64_t r = 0; r < static_cast<int64_t>(x.size()) / size; ++r) {
    RmsNormLowPrecision(c.replay.norm_precision, &x[r * size], size, c.attributes().eps, c.model,
                        row.data());
    for (int64_t k = 0; k < size; ++k) {
      const double a = ApplyTail(tail, row[k].low, k);
      const double b = ApplyTail(tail, row[k].high, k);
      e.y[r * size + k] = ApplyTail(tail, row[k].middle, k);
      e.low[r * size + k] = std::min(a, b);
      e.high[r * size + k] = std::max(a, b);
    }
  }
  return e;
}

}  // namespace

Expectation EvaluateRmsNorm(const ReplayContext& c) {
  std::vector<double> x = c.InputRows(0);
  if (c.replay.heads_minor) {
    x = ReadHeadsMinor(x, c.attributes().heads, c.attributes().head_dim);
  }
  if (c.replay.norm_skipped) {
    Expectation skipped;
    skipped.columns = c.attributes().in_features;
    skipped.y = x;
    skipped.bound.resize(x.size());
    skipped.tail = {c.Last()};
    if (!c.replay.weight_left_out) skipped.tail = {MultiplyStep(NormWeights(c)), c.Last()};
    return skipped;
  }
  std::vector<double> w = NormWeights(c);
  if (c.replay.norm_precision.low) return LowPrecisionNorm(c, x, w);
  const auto size = static_cast<int64_t>(w.size());
  // of a token, of one of its heads, or of all its heads together
  const int64_t span = c.replay.norm_whole_row ? size * c.attributes().heads : size;
  Expectation e;
  e.columns = size;
  e.y.resize(x.size());
  e.bound.resize(x.size());
  const bool weight_inside = c.fp32() || c.replay.norm_weight_fp32;
  for (int64_t r = 0; r < static_cast<int64_t>(x.size()) / span; ++r) {
    double* y = &e.y[r * span];
    double* bound = &e.bound[r * span];
    if (c.replay.mean_subtracted) {
      exact::LayerNormRow(&x[r * span], span, c.attributes().eps, y, bound);
    } else {
      double relative = 0;
      exact::RmsNormRow(&x[r * span], span, c.attributes().eps, y, &relative);
      for (int64_t k = 0; k < span; ++k) bound[k] = relative * std::fabs(y[k]);
    }
    for (int64_t k = 0; weight_inside && k < span; ++k) {
      y[k] *= w[k % size];
      bound[k] = std::fabs(w[k % size]) * bound[k] + 2 * kUnitRoundoff * std::fabs(y[k]);
    }
  }
  const double half = static_cast<double>(span + 2) / 2;  // of gamma(K + 2) / 2 + 6 u
  e.likely_share = (half * LikelyShare(2 * half) + 6) / (half + 6);
  if (weight_inside) {
    e.tail = {c.Last()};
  } else {
    e.tail = {c.Middle(), MultiplyStep(std::move(w)), c.Last()};
  }
  return e;
}

}  // namespace samebits
