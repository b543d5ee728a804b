#include "samebits/tensor/convert.h"

#include <algorithm>

#include "samebits/base/error.h"

namespace samebits {
namespace {

// Rounds to nearest even at `bits` significand bits with the exponent range of the type, in fp64.
// Exact integer work on the bits of the double: one rounding, whatever the magnitude.
double RoundBits(double value, int bits, int min_exponent, double max_finite) {
  if (std::isnan(value) || std::isinf(value) || value == 0.0) return value;
  int exponent = 0;
  std::frexp(value, &exponent);  // value = m * 2^exponent, 0.5 <= m < 1
  const int lowest = min_exponent - (bits - 1);
  const int quantum = std::max(exponent - bits, lowest);
  const double scaled = std::ldexp(value, -quantum);  // exact: |scaled| < 2^bits or a small value
  const double rounded = std::nearbyint(scaled);      // round: to nearest even (default mode)
  const double result = std::ldexp(rounded, quantum);
  if (std::fabs(result) > max_finite) return std::copysign(HUGE_VAL, value);
  return std::copysign(result, value);
}

}  // namespace

float F16ToFloat(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000U) << 16;
  const uint32_t exponent = (bits >> 10) & 0x1fU;
  const uint32_t mantissa = bits & 0x3ffU;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000U | (mantissa << 13));
  if (exponent == 0) {
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24F;
    return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(magnitude));
  }
  return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
}

uint16_t FloatToF16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000U);
  const uint32_t magnitude = bits & 0x7fffffffU;
  if (magnitude > 0x7f800000U) {  // NaN
    return static_cast<uint16_t>(sign | 0x7e00U | ((magnitude >> 13) & 0x3ffU));
  }
  if (magnitude >= 0x477ff000U) return static_cast<uint16_t>(sign | 0x7c00U);  // rounds to inf
  if (magnitude < 0x38800000U) {  // below 2^-14: the quantum is 2^-24
    const float scaled = std::bit_cast<float>(magnitude) * 0x1p24F;
    return static_cast<uint16_t>(sign | static_cast<uint16_t>(std::nearbyint(scaled)));
  }
  const uint32_t rounded = magnitude + 0xfffU + ((magnitude >> 13) & 1U);
  return static_cast<uint16_t>(sign | ((rounded - 0x38000000U) >> 13));
}

uint16_t DoubleToBF16(double value) {
  const auto rounded = static_cast<float>(RoundToDType(value, DType::kBF16));  // exact
  return FloatToBF16(rounded);
}

uint16_t DoubleToF16(double value) {
  const auto rounded = static_cast<float>(RoundToDType(value, DType::kF16));  // exact
  return FloatToF16(rounded);
}

double RoundToDType(double value, DType dtype) {
  switch (dtype) {
    case DType::kF64:
      return value;
    case DType::kF32:
      return static_cast<double>(static_cast<float>(value));
    case DType::kBF16: {
      // round: the 45 low bits go; exact ties to even. Values with a bf16 denormal take the slow
      // way.
      const uint64_t bits = std::bit_cast<uint64_t>(value);
      const uint64_t exponent = (bits >> 52) & 0x7ffU;
      if (exponent >= 1023 - 126 && exponent < 1023 + 127) {
        const uint64_t lsb = (bits >> 45) & 1U;
        return std::bit_cast<double>((bits + ((uint64_t{1} << 44) - 1) + lsb) &
                                     ~((uint64_t{1} << 45) - 1));
      }
      return RoundBits(value, 8, -126, 0x1.fep127);
    }
    case DType::kF16:
      return RoundBits(value, 11, -14, 65504.0);
    default:
      CheckFailed(__FILE__, __LINE__, "dtype", "no rounding for this dtype");
  }
}

int SignificandBits(DType dtype) {
  switch (dtype) {
    case DType::kF64:
      return 53;
    case DType::kF32:
      return 24;
    case DType::kF16:
      return 11;
    case DType::kBF16:
      return 8;
    default:
      CheckFailed(__FILE__, __LINE__, "dtype", "not a floating-point dtype");
  }
}

double SmallestNormal(DType dtype) {
  switch (dtype) {
    case DType::kF64:
      return 0x1p-1022;
    case DType::kF32:
    case DType::kBF16:
      return 0x1p-126;
    case DType::kF16:
      return 0x1p-14;
    default:
      CheckFailed(__FILE__, __LINE__, "dtype", "not a floating-point dtype");
  }
}

}  // namespace samebits
