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

// The second tier: a sum of n roundings that are independent and have mean zero errs by more than
// kLikely sqrt(n) u times the magnitudes with a probability below 2 exp(-kLikely^2 / 2) = 3e-8
// (Higham and Mary, A new approach to probabilistic rounding error analysis, SISC 41, 2019). No
// proof: an implementation may have errors that depend on each other. The share of gamma(n).
inline constexpr double kLikely = 6;
inline double LikelyShare(double n) { return n > kLikely * kLikely ? kLikely / std::sqrt(n) : 1; }

// Half a step of `dtype` at |value|, never below half a step at the smallest normal number.
inline double HalfUlp(double value, DType dtype) {
  double magnitude = std::fabs(value);
  const double smallest = SmallestNormal(dtype);
  if (!(magnitude > smallest)) magnitude = smallest;
  return std::ldexp(1.0, std::ilogb(magnitude) - SignificandBits(dtype));
}

}  // namespace samebits
