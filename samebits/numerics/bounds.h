// Constants and small functions of the error analysis (docs/numerics/bounds.md derives them).
#pragma once

#include <cmath>
#include <cstdint>

#include "samebits/tensor/convert.h"

namespace samebits {

// Unit roundoff of fp32 accumulation: the judge assumes IEEE single precision, to nearest.
inline constexpr double kUnitRoundoff = 0x1p-24;

// Denormals of fp32 may be flushed by anybody: this much is always allowed.
inline constexpr double kTiny = 0x1p-126;

// gamma(n) = n u / (1 - n u): relative error of n fp32 roundings in any order (Higham, Accuracy and
// Stability of Numerical Algorithms, 2nd ed., section 3.1).
inline double Gamma(double n) { return n * kUnitRoundoff / (1.0 - n * kUnitRoundoff); }

// Half a step of `dtype` at |value|, never below half a step at the smallest normal number.
inline double HalfUlp(double value, DType dtype) {
  double magnitude = std::fabs(value);
  const double smallest = SmallestNormal(dtype);
  if (!(magnitude > smallest)) magnitude = smallest;
  return std::ldexp(1.0, std::ilogb(magnitude) - SignificandBits(dtype));
}

}  // namespace samebits
