// The functions of torch_math.h. Every line is one IEEE operation; a fused one is std::fma.
#include "samebits/numerics/torch_math.h"

#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <utility>

namespace samebits::torch_math {
namespace {

float FromBits(uint32_t bits) { return std::bit_cast<float>(bits); }

// 2^n for a normal result.
float PowerOfTwo(int32_t n) { return FromBits(static_cast<uint32_t>(n + 127) << 23); }

// u 2^q in two multiplications by normal powers.
float ScaleTwice(float u, int32_t q) {
  const int32_t half = q >> 1;
  return u * PowerOfTwo(half) * PowerOfTwo(q - half);
}

constexpr float kLog2E = 1.442695040888963407F;
constexpr float kLn2High = 0.693145751953125F, kLn2Low = 1.428606765330187045e-06F;

// A sum of two floats, the second small: Sleef's double-float arithmetic, which is not normalised
// and is therefore part of the bits.
struct Pair {
  float h, l;
};

Pair AddFloats(float x, float y) {
  const float s = x + y, v = s - x;
  return {s, (x - (s - v)) + (y - v)};
}
Pair AddFloat(Pair x, float y) {
  const float s = x.h + y, v = s - x.h;
  return {s, ((x.h - (s - v)) + (y - v)) + x.l};
}
// For |x| >= |y|.
Pair AddOrdered(Pair x, Pair y) {
  const float s = x.h + y.h;
  return {s, (((x.h - s) + y.h) + x.l) + y.l};
}
Pair Add(Pair x, Pair y) {
  const float s = x.h + y.h, v = s - x.h;
  return {s, ((x.h - (s - v)) + (y.h - v)) + (x.l + y.l)};
}
Pair MultiplyFloat(Pair x, float y) {
  const float s = x.h * y;
  return {s, std::fma(x.l, y, std::fma(x.h, y, -s))};
}
Pair Multiply(Pair x, Pair y) {
  const float s = x.h * y.h;
  return {s, std::fma(x.h, y.l, std::fma(x.l, y.h, std::fma(x.h, y.h, -s)))};
}
Pair Square(Pair x) {
  const float s = x.h * x.h;
  return {s, std::fma(x.h + x.h, x.l, std::fma(x.h, x.h, -s))};
}
Pair Normalise(Pair x) {
  const float s = x.h + x.l;
  return {s, (x.h - s) + x.l};
}
Pair Divide(Pair n, Pair d) {
  const float t = 1.0F / d.h, s = n.h * t, u = std::fma(t, n.h, -s);
  const float v = std::fma(-d.l, t, std::fma(-d.h, t, 1.0F));
  return {s, std::fma(s, v, std::fma(n.l, t, u))};
}

// x 2^-e with the significand in [0.75, 1.5), and e.
std::pair<float, float> SplitExponent(float x) {
  const auto exponent = [](float v) {
    return static_cast<int32_t>(std::bit_cast<uint32_t>(v) >> 23) - 127;
  };
  const int32_t e = exponent(x * (1.0F / 0.75F));
  const uint32_t significand = std::bit_cast<uint32_t>(x) & 0x7fffffU;
  const uint32_t biased = static_cast<uint32_t>(exponent(x) - e + 127);
  return {FromBits((biased << 23) | significand), static_cast<float>(e)};
}

// The natural logarithm as a pair.
Pair Logarithm(float d) {
  const auto [m, e] = SplitExponent(d);
  const Pair x = Divide(AddFloats(-1.0F, m), AddFloats(1.0F, m)), x2 = Square(x);
  float t = 0.240320354700088500976562F;
  t = std::fma(t, x2.h, 0.285112679004669189453125F);
  t = std::fma(t, x2.h, 0.400007992982864379882812F);
  Pair s = MultiplyFloat({0.69314718246459960938F, -1.904654323148236017e-09F}, e);
  s = AddOrdered(s, {2 * x.h, 2 * x.l});
  const Pair third = {0.66666662693023681640625F, 3.69183861259614332084311e-09F};
  return AddOrdered(s, Multiply(Multiply(x2, x), Add(MultiplyFloat(x2, t), third)));
}

// fp64 as a pair for cosine and sine. Normalised: h is the rounded sum.
struct DoublePair {
  double h, l;
};
DoublePair TwoSum(double a, double b) {
  const double s = a + b, v = s - a;
  return {s, (a - (s - v)) + (b - v)};
}
DoublePair TwoProduct(double a, double b) {
  const double p = a * b;
  return {p, std::fma(a, b, -p)};
}
DoublePair Plus(DoublePair a, DoublePair b) {
  const DoublePair s = TwoSum(a.h, b.h);
  return TwoSum(s.h, s.l + (a.l + b.l));
}
DoublePair Times(DoublePair a, DoublePair b) {
  const DoublePair p = TwoProduct(a.h, b.h);
  return TwoSum(p.h, p.l + (a.h * b.l + a.l * b.h));
}
DoublePair Over(DoublePair a, double n) {
  const double q = a.h / n;
  return TwoSum(q, (std::fma(-q, n, a.h) + a.l) / n);
}

// first - first z / (a (a+1)) + ...: the series of cosine (1, 1) and sine (r, 2) in z = r^2. |r| is
// at most pi / 4, so the last of 14 terms is below 2^-100.
DoublePair Series(DoublePair first, DoublePair z, int start) {
  DoublePair term = first, sum = first;
  for (int i = 0; i < 14; ++i) {
    const int a = start + 2 * i;
    term = Over(Times(term, z), -static_cast<double>(a * (a + 1)));
    sum = Plus(sum, term);
  }
  return sum;
}

// A pair to fp32 in one rounding: h is rounded to odd first where l says that it is not exact.
float Round(DoublePair x) {
  double value = x.h;
  if (x.l != 0) {
    auto bits = std::bit_cast<uint64_t>(value);
    if ((x.l > 0) != (value > 0)) --bits;  // towards zero: x lies between here and the next value
    value = std::bit_cast<double>(bits | 1U);
  }
  return static_cast<float>(value);
}

// cos (quarter 0) or sin (quarter 3) of the angle: cos(angle + quarter pi / 2).
float CosOfQuarter(float angle, int quarter) {
  const double x = angle;
  // pi / 2 to 146 bits.
  constexpr double kPieces[4] = {0x1.921fb544p+0, 0x1.0b4611a4p-34, 0x1.13198a2cp-65,
                                 0x1.01b839a252049p-96};
  const double n = std::nearbyint(x * 0x1.45f306dc9c883p-1);
  DoublePair r = {x, 0};
  for (const double piece : kPieces) r = Plus(r, TwoProduct(-n, piece));
  const DoublePair z = Times(r, r);
  const int64_t k = (static_cast<int64_t>(n) + quarter) & 3;
  const DoublePair value = (k & 1) == 0 ? Series({1, 0}, z, 1) : Series(r, z, 2);
  const float rounded = Round(value);
  return k == 1 || k == 2 ? -rounded : rounded;
}

struct NamedExp {
  Exp function;
  std::string_view name;
};
constexpr std::array<NamedExp, 5> kNames = {{{Exp::kSleefU10, "sleef_expf_u10"},
                                             {Exp::kU20, "exp_u20"},
                                             {Exp::kFexpU20, "fexp_u20"},
                                             {Exp::kGlibc, "glibc_expf"},
                                             {Exp::kGlibcDouble, "glibc_exp_rounded"}}};

// 2^(i / 32), correctly rounded to fp64.
constexpr std::array<double, 32> kRoots = {0x1p+0,
                                           0x1.059b0d3158574p+0,
                                           0x1.0b5586cf9890fp+0,
                                           0x1.11301d0125b51p+0,
                                           0x1.172b83c7d517bp+0,
                                           0x1.1d4873168b9aap+0,
                                           0x1.2387a6e756238p+0,
                                           0x1.29e9df51fdee1p+0,
                                           0x1.306fe0a31b715p+0,
                                           0x1.371a7373aa9cbp+0,
                                           0x1.3dea64c123422p+0,
                                           0x1.44e086061892dp+0,
                                           0x1.4bfdad5362a27p+0,
                                           0x1.5342b569d4f82p+0,
                                           0x1.5ab07dd485429p+0,
                                           0x1.6247eb03a5585p+0,
                                           0x1.6a09e667f3bcdp+0,
                                           0x1.71f75e8ec5f74p+0,
                                           0x1.7a11473eb0187p+0,
                                           0x1.82589994cce13p+0,
                                           0x1.8ace5422aa0dbp+0,
                                           0x1.93737b0cdc5e5p+0,
                                           0x1.9c49182a3f09p+0,
                                           0x1.a5503b23e255dp+0,
                                           0x1.ae89f995ad3adp+0,
                                           0x1.b7f76f2fb5e47p+0,
                                           0x1.c199bdd85529cp+0,
                                           0x1.cb720dcef9069p+0,
                                           0x1.d5818dcfba487p+0,
                                           0x1.dfc97337b9b5fp+0,
                                           0x1.ea4afa2a490dap+0,
                                           0x1.f50765b6e454p+0};

}  // namespace

float ExpSleefU10(float x) {
  if (x < -104.0F) return 0.0F;
  if (x > 100.0F) return std::numeric_limits<float>::infinity();
  const float q = std::nearbyint(x * kLog2E);
  float s = std::fma(q, -kLn2High, x);
  s = std::fma(q, -kLn2Low, s);
  float u = 0.000198527617612853646278381F;
  u = std::fma(u, s, 0.00139304355252534151077271F);
  u = std::fma(u, s, 0.00833336077630519866943359F);
  u = std::fma(u, s, 0.0416664853692054748535156F);
  u = std::fma(u, s, 0.166666671633720397949219F);
  u = std::fma(u, s, 0.5F);
  u = 1.0F + std::fma(s * s, u, s);
  return ScaleTwice(u, static_cast<int32_t>(q));
}

float ExpU20(float x) {
  const float low = FromBits(0xc2aeac50), high = FromBits(0x42b17218);
  const bool less = x < low;
  float v = x < high ? x : high;
  v = v > low ? v : low;
  const float fx = std::floor(std::fma(v, FromBits(0x3fb8aa3b), 0.5F));
  const float r = std::fma(-fx, FromBits(0x3f317218), v);
  float p = std::fma(r, 0.00828929059F, 0.0418978221F);
  p = std::fma(r, p, 0.166676521F);
  p = std::fma(r, p, 0.499991506F);
  p = std::fma(r, p, 0.999999701F);
  p = std::fma(r, p, 1.0F);
  const float scale = less ? 0.0F : PowerOfTwo(static_cast<int32_t>(fx) - 1);
  return p * scale * 2.0F;
}

float FexpU20(float x) {
  if (x < FromBits(0xc2aeac50)) return 0.0F;
  if (x > FromBits(0x42b17218)) return std::numeric_limits<float>::infinity();
  const float s = x * FromBits(0x3fb8aa3b);
  const float f = s - std::floor(s);
  float c = std::fma(f, -0.079204240219773236F, -0.22433836478672356F);
  c = std::fma(f, c, 0.30354260500649682F);
  c = std::fma(f, c, 0.00010703434948458272F);
  const float bits = std::fma(8388608.0F, s - c, 1065353216.0F);
  return FromBits(static_cast<uint32_t>(static_cast<int32_t>(bits)));
}

float ExpGlibc(float x) {
  if (x > 0x1.62e42ep6F) return std::numeric_limits<float>::infinity();
  if (x < -0x1.9fe368p6F) return 0.0F;
  // e^x = 2^(k / 32) 2^r: a table, and a cubic of r, all in fp64.
  constexpr double kShift = 0x1.8p52;
  const double v = x;
  const double shifted = std::fma(0x1.71547652b82fep+5, v, kShift);
  const auto k = std::bit_cast<int64_t>(shifted) - std::bit_cast<int64_t>(kShift);
  const double r = std::fma(0x1.71547652b82fep+5, v, -(shifted - kShift));
  const int64_t power = (k - (k & 31)) / 32;
  const double root = kRoots[static_cast<size_t>(k & 31)];
  const double s = root * std::bit_cast<double>((power + 1023) << 52);
  const double a = std::fma(0x1.c6af84b912394p-20, r, 0x1.ebfce50fac4f3p-13);
  const double b = std::fma(0x1.62e42ff0c52d6p-6, r, 1.0);
  return static_cast<float>(std::fma(a, r * r, b) * s);
}

float ExpGlibcDouble(float x) {
  if (x > 0x1.62e42ep6F) return std::numeric_limits<float>::infinity();
  if (x < -0x1.9fe368p6F) return 0.0F;
  // glibc's exp is within 0.52 ulp of fp64; so is this, and no fp32 argument lies so near to the
  // middle of two fp32 values that it would matter (all were compared).
  constexpr double kShift = 0x1.8p52;
  const double v = x;
  const double shifted = std::fma(v, 0x1.71547652b82fep+5, kShift);
  const auto k = std::bit_cast<int64_t>(shifted) - std::bit_cast<int64_t>(kShift);
  const double n = shifted - kShift;
  double r = std::fma(n, -0x1.62e42fefa39efp-6, v);  // ln(2) / 32
  r = std::fma(n, -0x1.abc9e3b39803fp-61, r);
  double p = 1.0 / 5040;
  for (const double c : {1.0 / 720, 1.0 / 120, 1.0 / 24, 1.0 / 6, 0.5}) p = std::fma(p, r, c);
  const double tail = std::fma(r * r, p, r);
  const int64_t power = (k - (k & 31)) / 32;
  const double root = kRoots[static_cast<size_t>(k & 31)];
  const double value = std::fma(root, tail, root);
  return static_cast<float>(value * std::bit_cast<double>((power + 1023) << 52));
}

float PowSleefU10(float x, float y) {
  const Pair d = MultiplyFloat(Logarithm(x), y);
  const float q = std::nearbyint((d.h + d.l) * kLog2E);
  Pair s = AddFloat(d, q * -kLn2High);
  s = AddFloat(s, q * -kLn2Low);
  s = Normalise(s);
  float u = 0.00136324646882712841033936F;
  u = std::fma(u, s.h, 0.00836596917361021041870117F);
  u = std::fma(u, s.h, 0.0416710823774337768554688F);
  u = std::fma(u, s.h, 0.166665524244308471679688F);
  u = std::fma(u, s.h, 0.499999850988388061523438F);
  const Pair t = AddOrdered(s, MultiplyFloat(Square(s), u));
  const float h = 1.0F + t.h, l = ((1.0F - h) + t.h) + t.l;
  return ScaleTwice(h + l, static_cast<int32_t>(q));
}

float CosRounded(float angle) { return CosOfQuarter(angle, 0); }
float SinRounded(float angle) { return CosOfQuarter(angle, 3); }

std::string_view ExpName(Exp function) {
  for (const NamedExp& named : kNames) {
    if (named.function == function) return named.name;
  }
  return {};
}

std::optional<Exp> ExpFromName(std::string_view name) {
  for (const NamedExp& named : kNames) {
    if (named.name == name) return named.function;
  }
  return std::nullopt;
}

float Evaluate(Exp function, float x) {
  switch (function) {
    case Exp::kSleefU10:
      return ExpSleefU10(x);
    case Exp::kU20:
      return ExpU20(x);
    case Exp::kFexpU20:
      return FexpU20(x);
    case Exp::kGlibc:
      return ExpGlibc(x);
    case Exp::kGlibcDouble:
      return ExpGlibcDouble(x);
  }
  return 0;
}

}  // namespace samebits::torch_math
