// Conversions between bf16, f16, fp32 and fp64: widening is exact, narrowing rounds once to
// nearest, ties to even. No flush of denormals, NaN stays NaN (quiet, upper payload kept).
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "samebits/tensor/dtype.h"

namespace samebits {

inline float BF16ToFloat(uint16_t bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}

inline uint16_t FloatToBF16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffU) > 0x7f800000U) return static_cast<uint16_t>((bits >> 16) | 0x40);
  return static_cast<uint16_t>((bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16);
}

float F16ToFloat(uint16_t bits);
uint16_t FloatToF16(float value);

// fp64 to bf16 / f16 / fp32 in one rounding (going through fp32 would round twice).
uint16_t DoubleToBF16(double value);
uint16_t DoubleToF16(double value);

// The value that `value` becomes when it is stored as `dtype` (kF32, kBF16, kF16; kF64 keeps it).
double RoundToDType(double value, DType dtype);

// Significand bits, the hidden one included: kF64 53, kF32 24, kF16 11, kBF16 8.
int SignificandBits(DType dtype);

// Smallest positive normal number: 2^-1022 for kF64, 2^-126 for kF32 and kBF16, 2^-14 for kF16.
double SmallestNormal(DType dtype);

}  // namespace samebits
