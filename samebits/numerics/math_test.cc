// Exp, Power and CosSin against the C library in a wider type. bench/math_error.cc does the first
// for every float32; here a sample, dense enough to see a wrong coefficient.
#include "samebits/numerics/math.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <limits>
#include <random>

namespace samebits {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

// Distance of Exp(x) from e^x, in steps of fp32 at e^x.
double ExpError(float x) {
  const double exact = std::exp(static_cast<double>(x));  // within 1 step of fp64
  const int exponent = std::max(std::ilogb(exact), -126);
  return std::fabs(static_cast<double>(Exp(x)) - exact) / std::ldexp(1.0, exponent - 23);
}

TEST(Exp, IsWithinOneUlp) {
  double worst = 0;
  float worst_x = 0;
  int64_t count = 0;
  const auto check = [&](float low, float high) {  // of one sign, |low| < |high|
    for (uint32_t bits = std::bit_cast<uint32_t>(low); bits < std::bit_cast<uint32_t>(high);
         bits += 61) {
      const auto x = std::bit_cast<float>(bits);
      const double error = ExpError(x);
      if (!(error <= worst)) {
        worst = error;
        worst_x = x;
      }
      ++count;
    }
  };
  check(0x1p-30F, 88.72283F);
  check(-0x1p-30F, -104.0F);
  EXPECT_LE(worst, 1.0) << "at " << worst_x;
  fmt::print("Exp: {} values, at most {:.4f} ulp at {}\n", count, worst, worst_x);
}

TEST(Exp, AtItsEnds) {
  EXPECT_EQ(Exp(0.0F), 1.0F);
  EXPECT_EQ(Exp(-0.0F), 1.0F);
  EXPECT_EQ(Exp(0x1p-149F), 1.0F);
  EXPECT_EQ(Exp(-0x1p-40F), 1.0F);
  EXPECT_EQ(Exp(kInf), kInf);
  EXPECT_EQ(Exp(std::numeric_limits<float>::max()), kInf);
  EXPECT_EQ(Exp(89.0F), kInf);
  EXPECT_EQ(Exp(std::bit_cast<float>(0x42b17218U)), kInf);  // the first one beyond: 88.72284
  EXPECT_LT(Exp(std::bit_cast<float>(0x42b17217U)), kInf);
  EXPECT_EQ(Exp(-kInf), 0.0F);
  EXPECT_EQ(Exp(std::numeric_limits<float>::lowest()), 0.0F);
  EXPECT_EQ(Exp(-104.0F), 0.0F);
  EXPECT_EQ(Exp(-103.0F), 0x1p-149F);  // gradual: e^-103 = 1.4 * 2^-149
  EXPECT_TRUE(std::isnan(Exp(std::numeric_limits<float>::quiet_NaN())));
  EXPECT_TRUE(std::isnan(Exp(-std::numeric_limits<float>::quiet_NaN())));
}

// Softmax relies on it: the largest weight is 1, and no other is larger.
TEST(Exp, IsAtMostOneBelowZero) {
  for (uint32_t bits = 0x80000000U; bits <= 0xff800000U; bits += 97) {
    ASSERT_LE(Exp(std::bit_cast<float>(bits)), 1.0F) << bits;
  }
}

TEST(Power, IsFarBeyondFp32) {
  std::mt19937 random(1);
  std::uniform_real_distribution<double> exponents(0, 1), logs(std::log(2.0), std::log(1e8));
  double worst = 0;
  for (int i = 0; i < 200000; ++i) {
    const double base = std::exp(logs(random)), exponent = exponents(random);
    const long double exact =
        std::pow(static_cast<long double>(base), static_cast<long double>(exponent));
    const auto error = static_cast<double>(std::fabs(Power(base, exponent) / exact - 1));
    worst = std::max(worst, error);
    ASSERT_FALSE(std::isnan(error));
  }
  EXPECT_LE(worst, 0x1p-45);
  EXPECT_EQ(Power(1e6, 0), 1.0);
  fmt::print("Power: relative error at most 2^{:.1f}\n", std::log2(worst));
}

TEST(CosSin, IsFarBeyondFp32) {
  std::mt19937 random(2);
  double worst = 0, worst_relative = 0;
  for (int i = 0; i < 500000; ++i) {
    // float32 angles of all sizes up to 2^20, and those next to multiples of pi/2
    float angle = std::ldexp(std::uniform_real_distribution<float>(0.5F, 1)(random),
                             std::uniform_int_distribution<int>(-20, 20)(random));
    if (i % 2 == 0) {
      const auto n = std::uniform_int_distribution<int>(1, 600000)(random);
      angle = static_cast<float>(n * 1.57079632679489661923);
    }
    double cosine = 0, sine = 0;
    CosSin(angle, &cosine, &sine);
    const long double exact_cosine = std::cos(static_cast<long double>(angle));
    const long double exact_sine = std::sin(static_cast<long double>(angle));
    for (const auto& [value, exact] :
         {std::pair(cosine, exact_cosine), std::pair(sine, exact_sine)}) {
      const auto error = static_cast<double>(std::fabs(value - exact));
      ASSERT_FALSE(std::isnan(error));
      worst = std::max(worst, error);
      worst_relative = std::max(worst_relative, error / static_cast<double>(std::fabs(exact)));
    }
  }
  EXPECT_LE(worst, 0x1p-50);
  EXPECT_LE(worst_relative, 0x1p-45);  // so that fp32 is right next to zeros, too
  double cosine = 0, sine = 1;
  CosSin(0, &cosine, &sine);
  EXPECT_EQ(cosine, 1.0);
  EXPECT_EQ(sine, 0.0);
  fmt::print("CosSin: error at most 2^{:.1f}, relative 2^{:.1f}\n", std::log2(worst),
             std::log2(worst_relative));
}

// Against the C library in long double: at most 2 steps of fp64, over many magnitudes and near 1.
TEST(NaturalLog, IsWithinTwoUlp) {
  std::mt19937_64 random(7);
  std::uniform_real_distribution<double> exponent(-1000, 1000), near(-0.01, 0.01);
  double worst = 0;
  for (int i = 0; i < 200000; ++i) {
    const double x = i % 2 == 0 ? std::exp2(exponent(random)) : 1 + near(random);
    const long double exact = std::log(static_cast<long double>(x));
    if (exact == 0) {
      EXPECT_EQ(NaturalLog(x), 0);
      continue;
    }
    const double step = std::ldexp(1.0, std::ilogb(static_cast<double>(exact)) - 52);
    worst = std::max(worst, std::fabs(static_cast<double>(NaturalLog(x) - exact)) / step);
  }
  EXPECT_LE(worst, 2) << "steps of fp64";
  EXPECT_EQ(NaturalLog(1), 0);
}

}  // namespace
}  // namespace samebits
