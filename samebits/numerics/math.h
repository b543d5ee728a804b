// The elementary functions of the canonical arithmetic: polynomials of ours in IEEE operations, so
// that the bits are the same on every machine. docs/numerics/math.md has the measured errors.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace samebits {

// Constants of Exp, shared with the vector kernels (same operations in the same order).
struct ExpConstants {
  static constexpr float kLow = -105.0F, kHigh = 90.0F;  // clamped: 0 and infinity beyond
  static constexpr float kLog2E = 0x1.715476p+0F;
  static constexpr float kMagic = 0x1.8p23F;       // adding it rounds to an integer
  static constexpr float kLn2High = 0x1.62e4p-1F;  // 16 bits: n * kLn2High is exact
  static constexpr float kLn2Low = 0x1.7f7d1cp-20F;
  // (exp(r) - 1 - r) / r^2 on |r| <= ln(2)/2, highest power first; fitted at Chebyshev nodes.
  static constexpr float kP[6] = {0x1.a1256cp-13F, 0x1.6d43bp-10F, 0x1.1110ep-7F,
                                  0x1.5554e8p-5F,  0x1.555556p-3F, 0x1p-1F};
};

// e^x in fp32. x = n ln 2 + r; the polynomial by Horner with fused steps; times 2^n in two exact
// powers. NaN gives NaN; results below 2^-126 are denormal (or 0 where denormals are flushed).
inline float Exp(float x) {
  using C = ExpConstants;
  float c = x < C::kLow ? C::kLow : x;
  c = c > C::kHigh ? C::kHigh : c;
  const float shifted = std::fma(c, C::kLog2E, C::kMagic);
  const float n = shifted - C::kMagic;
  float r = std::fma(n, -C::kLn2High, c);
  r = std::fma(n, -C::kLn2Low, r);
  float p = C::kP[0];
  for (int i = 1; i < 6; ++i) p = std::fma(p, r, C::kP[i]);
  const float e = std::fma(r * r, p, r) + 1.0F;
  const int32_t k = std::bit_cast<int32_t>(shifted) - std::bit_cast<int32_t>(C::kMagic);
  const int32_t half = k >> 1;
  const float a = std::bit_cast<float>((half + 127) << 23);
  const float b = std::bit_cast<float>((k - half + 127) << 23);
  return e * a * b;
}

// base^exponent for base > 0, in fp64, relative error below 2^-45 for results from 2^-60 to 2^60.
double Power(double base, double exponent);

// The natural logarithm for x > 0 that is not denormal, in fp64, within 1 ulp.
double NaturalLog(double x);

// cos and sin of an angle from 0 to 2^31 in fp64: quadrant by three-part reduction, then
// polynomials; absolute error below 2^-40 up to 2^24.
void CosSin(double angle, double* cosine, double* sine);

}  // namespace samebits
