#include "samebits/numerics/math.h"

namespace samebits {
namespace {

template <int n>
double Polynomial(const double (&coefficients)[n], double x) {
  double p = coefficients[0];
  for (int i = 1; i < n; ++i) p = std::fma(p, x, coefficients[i]);
  return p;
}

// All fitted at Chebyshev nodes, highest power first.
// (log((1+s)/(1-s)) - 2s) / s^3 in s^2
constexpr double kLog[] = {0x1.0c2c748b6f13cp-3, 0x1.0fbaab3c72fc6p-3, 0x1.3b1c5ae500a38p-3,
                           0x1.745cf85360411p-3, 0x1.c71c720302bd8p-3, 0x1.2492492475dbcp-2,
                           0x1.9999999999a3ep-2, 0x1.5555555555555p-1};
// (exp(r) - 1 - r) / r^2
constexpr double kExp[] = {0x1.1f7340dbc337ep-29,
                           0x1.af4e554377204p-26,
                           0x1.27e4db46cddd1p-22,
                           0x1.71de01fdbf9cap-19,
                           0x1.a01a01a6e1e2ap-16,
                           0x1.a01a01abf85abp-13,
                           0x1.6c16c16c162c3p-10,
                           0x1.11111111100bep-7,
                           0x1.5555555555556p-5,
                           0x1.5555555555557p-3,
                           0x1p-1};
// (sin(r) - r) / r^3 and (cos(r) - 1 + r^2/2) / r^4, both in r^2
constexpr double kSin[] = {-0x1.ab161757f0c63p-41, 0x1.61217c1864fa1p-33,  -0x1.ae64540f0ba18p-26,
                           0x1.71de3a545e700p-19,  -0x1.a01a01a019926p-13, 0x1.111111111111p-7,
                           -0x1.5555555555555p-3};
constexpr double kCos[] = {0x1.ab76cf6e9b365p-45,  -0x1.9394b76d1f265p-37, 0x1.1eed8de9ef73ep-29,
                           -0x1.27e4fb7711e1dp-22, 0x1.a01a01a019d02p-16,  -0x1.6c16c16c16c16p-10,
                           0x1.5555555555555p-5};

constexpr double kLn2High = 0x1.62e42fefa2p-1, kLn2Low = 0x1.9ef35793c7673p-41;
constexpr double kLog2E = 0x1.71547652b82fep+0;
constexpr double kMagic = 0x1.8p52;  // adding it rounds to an integer

// Natural logarithm as high + low.
void Log(double x, double* high, double* low) {
  int64_t bits = std::bit_cast<int64_t>(x);
  int64_t exponent = ((bits >> 52) & 0x7ff) - 1023;
  bits = (bits & 0xfffffffffffff) | (int64_t{1023} << 52);
  double m = std::bit_cast<double>(bits);  // [1, 2)
  if (m > 0x1.6a09e667f3bcdp0) {
    m *= 0.5;
    ++exponent;
  }
  const double s = (m - 1) / (m + 1);
  // What the division lost, so that 2 s is known to twice the bits.
  const double s_low = (std::fma(-s, m + 1, m - 1)) / (m + 1);
  const double s2 = s * s;
  const double tail = std::fma(s * s2, Polynomial(kLog, s2), 2 * s_low);
  const auto e = static_cast<double>(exponent);
  const double base = e * kLn2High;  // exact: 40 bits and 11
  const double sum = base + 2 * s;
  *high = sum;
  *low = ((base - sum) + 2 * s) + std::fma(e, kLn2Low, tail);
}

}  // namespace

double NaturalLog(double x) {
  double high = 0, low = 0;
  Log(x, &high, &low);
  return high + low;
}

double Power(double base, double exponent) {
  double high = 0, low = 0;
  Log(base, &high, &low);
  const double product = high * exponent;
  const double product_low = std::fma(high, exponent, -product) + low * exponent;
  const double n = (product * kLog2E + kMagic) - kMagic;
  double r = std::fma(n, -kLn2High, product);
  r = std::fma(n, -kLn2Low, r) + product_low;
  const double e = std::fma(r * r, Polynomial(kExp, r), r) + 1.0;
  const auto k = static_cast<int64_t>(n);
  const int64_t half = k >> 1;
  return e * std::bit_cast<double>((half + 1023) << 52) *
         std::bit_cast<double>((k - half + 1023) << 52);
}

void CosSin(double angle, double* cosine, double* sine) {
  constexpr double kTwoOverPi = 0x1.45f306dc9c883p-1;
  // pi/2 in three parts of 33, 33 and 53 bits: n times the first two is exact for n < 2^20.
  constexpr double kP1 = 0x1.921fb544p+0, kP2 = 0x1.0b4611a6p-34, kP3 = 0x1.3198a2e037073p-69;
  const double n = (angle * kTwoOverPi + kMagic) - kMagic;
  double r = std::fma(n, -kP1, angle);
  r = std::fma(n, -kP2, r);
  r = std::fma(n, -kP3, r);
  const double r2 = r * r;
  const double s = std::fma(r * r2, Polynomial(kSin, r2), r);
  const double c = std::fma(r2 * r2, Polynomial(kCos, r2), std::fma(r2, -0.5, 1.0));
  const int64_t quadrant = static_cast<int64_t>(n) & 3;
  const double swapped_s = (quadrant & 1) != 0 ? c : s;
  const double swapped_c = (quadrant & 1) != 0 ? s : c;
  *sine = (quadrant & 2) != 0 ? -swapped_s : swapped_s;
  *cosine = quadrant == 1 || quadrant == 2 ? -swapped_c : swapped_c;
}

}  // namespace samebits
