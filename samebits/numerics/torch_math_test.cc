// The functions that PyTorch's kernels call. That they are PyTorch's and glibc's is shown beside
// these by tests/live/test_torch_ops.py (docs/numerics/torch-ops.md has the counts); here single
// values that were recorded, and what needs no reference.
#include "samebits/numerics/torch_math.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>

#include "samebits/tensor/bits_testing.h"

namespace samebits::torch_math {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

TEST(TorchMath, ExpNearTheExponential) {
  struct Case {
    Exp function;
    double relative;  // bound of the relative error: 1 ulp, 20 ulp, 11 bits, 1 ulp, half an ulp
  };
  for (const auto& [function, relative] :
       {Case{Exp::kSleefU10, 0x1p-23}, Case{Exp::kU20, 20 * 0x1p-23}, Case{Exp::kFexpU20, 0x1p-11},
        Case{Exp::kGlibc, 0x1p-23}, Case{Exp::kGlibcDouble, 0x1p-24}}) {
    for (int i = 0; i < 50000; ++i) {
      const float x = -86.9F + 0.00175F * static_cast<float>(i);
      const double exact = std::exp(static_cast<double>(x));
      ASSERT_LE(std::fabs(Evaluate(function, x) - exact), relative * exact)
          << ExpName(function) << " " << x;
    }
    EXPECT_EQ(Evaluate(function, -kInf), 0.0F) << ExpName(function);
    EXPECT_EQ(Evaluate(function, -110.0F), 0.0F) << ExpName(function);
  }
}

TEST(TorchMath, ExpOfZero) {
  for (const Exp function : {Exp::kSleefU10, Exp::kU20, Exp::kGlibc, Exp::kGlibcDouble}) {
    EXPECT_EQ(Evaluate(function, 0.0F), 1.0F) << ExpName(function);
    EXPECT_EQ(Evaluate(function, -0.0F), 1.0F) << ExpName(function);
  }
  EXPECT_LT(FexpU20(0.0F), 1.0F);  // 12 bits: not even here
}

TEST(TorchMath, ExpU20IsZeroBeforeTheSmallestNormal) {
  // Its power of two is built one below: 2^-127 is no normal number.
  EXPECT_GT(ExpU20(-86.9F), 0.0F);
  EXPECT_EQ(ExpU20(-87.1F), 0.0F);
}

TEST(TorchMath, NamesAreInverse) {
  for (const Exp function :
       {Exp::kSleefU10, Exp::kU20, Exp::kFexpU20, Exp::kGlibc, Exp::kGlibcDouble}) {
    EXPECT_EQ(ExpFromName(ExpName(function)), function);
  }
  EXPECT_EQ(ExpFromName("exp"), std::nullopt);
}

TEST(TorchMath, PowNearThePower) {
  for (const float base : {10000.0F, 500000.0F, 1000000.0F}) {
    for (int i = 0; i < 86; ++i) {
      const float y = 0.0117F * static_cast<float>(i);
      const double exact = std::pow(static_cast<double>(base), static_cast<double>(y));
      EXPECT_LE(std::fabs(PowSleefU10(base, y) - exact), 0x1p-23 * exact) << base << " " << y;
    }
    EXPECT_EQ(PowSleefU10(base, 0.0F), 1.0F);
  }
}

// long double has 64 bits: its cosine rounds rightly unless it lies within 2^-40 of a midpoint.
TEST(TorchMath, CosAndSinAreCorrectlyRounded) {
  if (std::numeric_limits<long double>::digits < 64) GTEST_SKIP() << "long double is not wider";
  const auto check = [](float x) {
    const auto cos = static_cast<float>(std::cos(static_cast<long double>(x)));
    const auto sin = static_cast<float>(std::sin(static_cast<long double>(x)));
    EXPECT_BITS_EQ({cos, sin}, {CosRounded(x), SinRounded(x)}) << x;
  };
  for (int i = 0; i < 20000; ++i) check(static_cast<float>(i) * 0.7317F);
  for (int i = 0; i < 260; ++i) check(1e-30F * std::pow(1.38F, static_cast<float>(i)));
  check(0.0F);
  check(16777215.0F);
}

}  // namespace
}  // namespace samebits::torch_math
