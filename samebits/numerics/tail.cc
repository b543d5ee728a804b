#include "samebits/numerics/tail.h"

#include <bit>
#include <cmath>

#include "samebits/numerics/bounds.h"
#include "samebits/tensor/convert.h"

namespace samebits {

TailStep RoundStep(DType dtype, bool truncate) {
  // Truncation to fp32 of an fp32 result does nothing.
  const bool cut = truncate && dtype != DType::kF32;
  return {cut ? TailStep::Kind::kTruncate : TailStep::Kind::kRound, dtype, {}};
}

TailStep MultiplyStep(std::vector<double> columns) {
  return {TailStep::Kind::kMultiply, DType::kF32, std::move(columns)};
}

TailStep AddStep(std::vector<double> columns) {
  return {TailStep::Kind::kAdd, DType::kF32, std::move(columns)};
}

double TruncateToDType(double value, DType dtype) {
  const double single = RoundToDType(value, DType::kF32);  // what is cut is an fp32 number
  if (!std::isfinite(single) || dtype == DType::kF32) return single;
  const double rounded = RoundToDType(single, dtype);
  if (std::fabs(rounded) <= std::fabs(single)) return rounded;
  if (std::isinf(rounded)) {
    return std::copysign(dtype == DType::kF16 ? 65504.0 : 0x1.fep127, single);
  }
  // One step towards zero: the next number of the type below |rounded|.
  const double magnitude = std::fabs(rounded);
  const double below = magnitude - HalfUlp(magnitude, dtype);  // half a step down, then truncate
  const double step = HalfUlp(below, dtype) * 2;
  return std::copysign(std::floor(std::fabs(single) / step) * step, single);
}

double ApplyTail(const Tail& tail, double value, int64_t column) {
  double v = value;
  for (const TailStep& step : tail) {
    switch (step.kind) {
      case TailStep::Kind::kRound:
        v = RoundToDType(v, step.dtype);
        break;
      case TailStep::Kind::kTruncate:
        v = TruncateToDType(v, step.dtype);
        break;
      case TailStep::Kind::kMultiply:
        v = RoundToDType(v * step.Column(column), DType::kF32);
        break;
      case TailStep::Kind::kAdd:
        v = RoundToDType(v + step.Column(column), DType::kF32);
        break;
    }
  }
  return v;
}

Distance PropagateDistance(const Tail& tail, double value, double error, int64_t column) {
  Distance d{value, error};
  for (const TailStep& step : tail) {
    switch (step.kind) {
      case TailStep::Kind::kRound:
        d.limit += HalfUlp(std::fabs(d.value) + d.limit, step.dtype);
        break;
      case TailStep::Kind::kTruncate:
        d.limit += 2 * HalfUlp(std::fabs(d.value) + d.limit, step.dtype);
        break;
      case TailStep::Kind::kMultiply: {
        const double factor = std::fabs(step.Column(column));
        d.value *= step.Column(column);
        d.limit = d.limit * factor;
        d.limit += kUnitRoundoff * (std::fabs(d.value) + d.limit);
        break;
      }
      case TailStep::Kind::kAdd:
        d.value += step.Column(column);
        d.limit += kUnitRoundoff * (std::fabs(d.value) + d.limit);
        break;
    }
  }
  return d;
}

}  // namespace samebits
