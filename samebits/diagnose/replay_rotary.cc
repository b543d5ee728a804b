#include <algorithm>
#include <cmath>

#include "samebits/diagnose/replay_context.h"
#include "samebits/numerics/bounds.h"
#include "samebits/numerics/exact.h"

namespace samebits {
namespace {

// theta^(-2i / dimensions) where another denominator stands than head_dim.
exact::Frequency FrequencyOf(double theta, int64_t pair, double dimensions) {
  const double exponent = 2.0 * static_cast<double>(pair) / dimensions;
  return {std::pow(theta, -exponent), kUnitRoundoff * (4 + std::fabs(exponent * std::log(theta)))};
}

// Cosine or sine where the frequency, the position or the angle is rounded on the way: outcomes of
// one element.
struct LowPrecisionAngle {
  double low, middle, high;
};

LowPrecisionAngle AnglesOf(const Replay& replay, double position, const exact::Frequency& f) {
  const auto rn = [&](double v) { return RoundToDType(v, replay.rotary_dtype); };
  const double p = replay.rotary_rounding == RotaryRounding::kPosition ? rn(position) : position;
  const auto angle = [&](double relative) {
    double frequency = f.value * (1 + relative);
    if (replay.rotary_rounding == RotaryRounding::kFrequency) frequency = rn(frequency);
    const double product = p * frequency;
    return replay.rotary_rounding == RotaryRounding::kAngle ? rn(product) : product;
  };
  const double error = f.relative + 2 * kUnitRoundoff;
  return {angle(-error), angle(0), angle(error)};
}

}  // namespace

Expectation EvaluateRotary(const ReplayContext& c) {
  const Replay& replay = c.replay;
  const int64_t d = replay.rotary_dim > 0 ? replay.rotary_dim : c.attributes().head_dim;
  const RopeParameters& rope = c.attributes().rope;
  std::vector<exact::Frequency> frequencies = exact::InverseFrequencies(rope, d, c.source.length());
  if (replay.frequency_dim > 0) {
    for (int64_t i = 0; i < d / 2; ++i) {
      frequencies[static_cast<size_t>(i)] = FrequencyOf(rope.theta, i, replay.frequency_dim);
    }
  }
  const double scaling = exact::RotaryScaling(rope);
  const bool low_precision = replay.rotary_rounding != RotaryRounding::kNone;
  const bool cosines = replay.output == 0;
  Expectation e;
  e.columns = d;
  e.tail = {c.Last()};
  for (int64_t t = c.rows.begin; t < c.rows.end; ++t) {
    const int64_t offset = t >= replay.offset_from ? replay.position_offset : 0;
    const int64_t position = c.source.positions[t] + offset;
    for (int64_t column = 0; column < d; ++column) {
      const int64_t pair = replay.rotary_interleaved ? column / 2 : column % (d / 2);
      const exact::Frequency& f = frequencies[static_cast<size_t>(pair)];
      double cosine = 0, sine = 0, bound = 0;
      exact::Rotary(position, f, scaling, &cosine, &sine, &bound);
      const double y = cosines ? cosine : replay.sin_sign * sine;
      if (!low_precision) {
        e.y.push_back(y);
        e.bound.push_back(bound);
        continue;
      }
      const LowPrecisionAngle angles = AnglesOf(replay, static_cast<double>(position), f);
      const auto value = [&](double angle) {
        return scaling * (cosines ? std::cos(angle) : replay.sin_sign * std::sin(angle));
      };
      const double ends[2] = {value(angles.low), value(angles.high)};
      const double slack = 6 * kUnitRoundoff * scaling;
      const double middle = ApplyTail(e.tail, value(angles.middle), column);
      e.y.push_back(middle);
      e.low.push_back(
          std::min(middle, ApplyTail(e.tail, std::min(ends[0], ends[1]) - slack, column)));
      e.high.push_back(
          std::max(middle, ApplyTail(e.tail, std::max(ends[0], ends[1]) + slack, column)));
    }
  }
  if (low_precision) e.tail.clear();
  return e;
}

Expectation EvaluateRope(const ReplayContext& c) {
  const Replay& replay = c.replay;
  std::vector<double> x = c.InputRows(0);
  const std::vector<double> cosine = c.InputRows(1), sine = c.InputRows(2);
  const int64_t heads = c.attributes().heads, d = c.attributes().head_dim;
  if (replay.heads_minor) x = ReadHeadsMinor(x, heads, d);
  const bool deterministic = !c.fp32() && !replay.rope_fp32;
  // A port whose tables are narrower than a head rotates only so much of it.
  const int64_t cos_width = c.Input(1).shape.back(), sin_width = c.Input(2).shape.back();
  const int64_t rotated =
      std::min({replay.rotary_dim > 0 ? replay.rotary_dim : d, cos_width, sin_width});
  Expectation e;
  e.columns = d;
  e.y.resize(x.size());
  if (!deterministic) e.bound.resize(x.size());
  for (int64_t row = 0; row < c.rows.size() * heads; ++row) {
    const int64_t t = row / heads;
    for (int64_t i = 0; i < d; ++i) {
      int64_t to = row * d + i;
      if (i >= rotated || replay.rope_skipped) {
        e.y[to] = x[row * d + i];
        continue;
      }
      const int64_t half = rotated / 2;
      const int64_t partner = replay.rope_interleaved ? i ^ 1 : (i + half) % rotated;
      const bool first = replay.rope_interleaved ? i % 2 == 0 : i < half;
      const double other = x[row * d + partner] * (first ? -1 : 1) * replay.sin_sign;
      const int64_t column = replay.rope_angle_by_pair ? i / 2 : i;
      if (replay.rope_output_halves) to = row * d + i / 2 + (i % 2) * half;
      const double a = x[row * d + i] * cosine[t * cos_width + column];
      const double b = other * sine[t * sin_width + column];
      if (deterministic) {  // round: each product; B = 0, the sum of the two is exact in fp64
        e.y[to] = c.RoundMiddle(a) + c.RoundMiddle(b);
      } else {
        e.y[to] = a + b;
        e.bound[to] = 1.01 * kUnitRoundoff * (std::fabs(a) + std::fabs(b));
      }
    }
  }
  e.tail = {c.Last()};
  if (!replay.norm_after_rope) return e;
  // The rotated heads, as the port holds them, are normalised.
  std::vector<double> w = c.WeightVector(replay.node.weights.at(0));
  for (int64_t row = 0; row < c.rows.size() * heads; ++row) {
    double relative = 0, error = 0, squares = 0;
    std::vector<double> head(static_cast<size_t>(d));
    for (int64_t i = 0; i < d; ++i) {
      head[i] = ApplyTail(e.tail, e.y[row * d + i], i);
      if (!deterministic) error = std::max(error, e.bound[row * d + i]);
      squares += head[i] * head[i];
    }
    exact::RmsNormRow(head.data(), d, c.attributes().eps, &e.y[row * d], &relative);
    if (e.bound.empty()) e.bound.resize(e.y.size());
    const double root = std::sqrt(squares / static_cast<double>(d)) + 1e-30;
    for (int64_t i = 0; i < d; ++i) {
      double& y = e.y[row * d + i];
      e.bound[row * d + i] = relative * std::fabs(y) + 2 * error / root;
      if (c.fp32()) {
        y *= w[i];
        e.bound[row * d + i] =
            std::fabs(w[i]) * e.bound[row * d + i] + 2 * kUnitRoundoff * std::fabs(y);
      }
    }
  }
  if (!c.fp32()) e.tail = {c.Middle(), MultiplyStep(std::move(w)), c.Last()};
  return e;
}

}  // namespace samebits
