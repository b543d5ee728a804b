#include "samebits/diagnose/judge.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "samebits/numerics/bounds.h"

namespace samebits {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Written so that a NaN candidate is outside; a NaN expectation allows NaN alone.
bool Inside(const Interval& interval, double candidate) {
  if (std::isnan(interval.middle)) return std::isnan(candidate);
  return candidate >= interval.low - kTiny && candidate <= interval.high + kTiny;
}

void JudgeElement(const Expectation& e, size_t i, double candidate, DType stored, Judgement& j) {
  const int64_t column = static_cast<int64_t>(i) % e.columns;
  const Interval interval = IntervalOf(e, i);
  ++j.elements;
  const bool inside = Inside(interval, candidate);
  const double width = interval.high - interval.low;
  if (width > 0 && std::isfinite(width)) {
    j.max_bound = std::max(j.max_bound, width / 2);
    const double size = std::max(std::fabs(interval.low), std::fabs(interval.high));
    j.width_ulp += width / (2 * HalfUlp(size, stored));
  } else {
    ++j.single;
  }
  if (!inside) {
    ++j.outside;
    ++j.outside_likely;
  } else if (width > 0 && e.likely_share < 1 &&
             !Inside(IntervalOf(e, i, e.likely_share), candidate)) {
    ++j.outside_likely;
  }
  if (candidate == interval.middle || (inside && std::isnan(candidate))) return;
  ++j.not_equal;
  double distance = std::fabs(candidate - interval.middle);
  double ratio = kInfinity;
  if (std::isfinite(distance)) {
    j.max_ulp = std::max(j.max_ulp, distance / (2 * HalfUlp(interval.middle, stored)));
    if (e.low.empty()) {
      const Distance d =
          PropagateDistance(e.tail, e.y[i], e.bound.empty() ? 0 : e.bound[i], column);
      ratio = std::fabs(candidate - d.value) / (d.limit + kTiny);
    } else {
      const double room = std::max(interval.high - interval.middle, interval.middle - interval.low);
      ratio = distance / (room + HalfUlp(interval.middle, stored));
    }
  } else {
    distance = kInfinity;
    j.max_ulp = kInfinity;
  }
  j.max_abs = std::max(j.max_abs, distance);
  if (ratio > j.max_ratio || j.worst < 0) {
    j.max_ratio = std::max(j.max_ratio, ratio);
    j.worst = static_cast<int64_t>(i);
  }
}

// Rows at a time, so that fp64 copies stay small.
RowRange NextRows(const TensorView& candidate, bool per_head, int64_t begin, int64_t end) {
  constexpr int64_t kElements = 1 << 22;
  const int64_t tokens = candidate.shape[per_head ? 1 : 0];
  const int64_t width = std::max<int64_t>(1, candidate.elements() / std::max<int64_t>(1, tokens));
  const int64_t rows = std::max<int64_t>(8, kElements / width);
  return {begin, std::min(end, begin + rows)};
}

}  // namespace

void Judgement::Merge(const Judgement& other) {
  elements += other.elements;
  outside += other.outside;
  outside_likely += other.outside_likely;
  single += other.single;
  max_bound = std::max(max_bound, other.max_bound);
  width_ulp += other.width_ulp;
  not_equal += other.not_equal;
  max_abs = std::max(max_abs, other.max_abs);
  max_ulp = std::max(max_ulp, other.max_ulp);
  if (other.worst >= 0 && (worst < 0 || other.max_ratio > max_ratio)) worst = other.worst;
  max_ratio = std::max(max_ratio, other.max_ratio);
}

Judgement Judge(const Replay& replay, const ReplaySource& source, const TensorView& candidate,
                RowRange rows) {
  const bool per_head = IsPerHead(replay);
  if (rows.size() == 0) rows = {0, source.tokens()};
  Judgement total;
  for (int64_t begin = rows.begin; begin < rows.end;) {
    const RowRange part = NextRows(candidate, per_head, begin, rows.end);
    begin = part.end;
    const Expectation e = Evaluate(replay, source, candidate.dtype, part);
    const std::vector<double> values = GatherRows(candidate, part, per_head);
    if (e.y.size() != values.size()) {  // another shape than this replay gives
      const auto all = static_cast<int64_t>(values.size());
      Judgement shape;
      shape.elements = shape.outside = shape.outside_likely = shape.not_equal = all;
      shape.max_abs = shape.max_ulp = shape.max_ratio = kInfinity;
      shape.worst = 0;
      total.Merge(shape);
      continue;
    }
    constexpr size_t kPiece = 1 << 14;
    const auto pieces = static_cast<int64_t>((values.size() + kPiece - 1) / kPiece);
    std::vector<Judgement> judged(static_cast<size_t>(pieces));
    source.pool->ParallelFor(pieces, [&](int64_t piece) {
      Judgement& some = judged[static_cast<size_t>(piece)];
      const size_t end = std::min(values.size(), (piece + 1) * kPiece);
      for (size_t i = piece * kPiece; i < end; ++i) {
        if (!e.ignore.empty() && e.ignore[i] != 0) continue;
        JudgeElement(e, i, values[i], candidate.dtype, some);
      }
    });
    for (const Judgement& some : judged) total.Merge(some);  // in one order: it adds
  }
  return total;
}

Flips CompareReplays(const Replay& base, const Replay& edited, const ReplaySource& source,
                     const TensorView& candidate) {
  Flips flips;
  const bool per_head = IsPerHead(base);
  for (int64_t begin = 0; begin < source.tokens();) {
    const RowRange part = NextRows(candidate, per_head, begin, source.tokens());
    begin = part.end;
    const Expectation a = Evaluate(base, source, candidate.dtype, part);
    const Expectation b = Evaluate(edited, source, candidate.dtype, part);
    const std::vector<double> values = GatherRows(candidate, part, per_head);
    for (size_t i = 0; i < values.size(); ++i) {
      if (!a.ignore.empty() && a.ignore[i] != 0) continue;
      const int64_t column = static_cast<int64_t>(i) % a.columns;
      const double from = ApplyTail(a.tail, a.y[i], column);
      const double to = ApplyTail(b.tail, b.y[i], column);
      if (values[i] == to && values[i] != from) ++flips.plus;
      if (values[i] == from && values[i] != to) ++flips.minus;
      const Distance d = PropagateDistance(a.tail, a.y[i], a.bound[i], column);
      const Distance shifted = PropagateDistance(b.tail, b.y[i], b.bound[i], column);
      const double limit = d.limit + kTiny;
      const double q = (values[i] - from) / limit, e = (shifted.value - d.value) / limit;
      if (!std::isfinite(q) || !std::isfinite(e)) continue;
      flips.qe += q * e;
      flips.ee += e * e;
      flips.qq += q * q;
      ++flips.elements;
    }
  }
  return flips;
}

}  // namespace samebits
