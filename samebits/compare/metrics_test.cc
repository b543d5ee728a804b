// The comparison itself: what it must see in every corner of floating point, and what it counts.
#include "samebits/compare/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <random>

#include "samebits/tensor/bits_testing.h"

namespace samebits {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr float kInfF = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

template <typename T>
TensorView View(DType dtype, const std::vector<T>& values, Shape shape = {-1}) {
  if (shape == Shape{-1}) shape = {static_cast<int64_t>(values.size())};
  return {dtype, shape, reinterpret_cast<const std::byte*>(values.data())};
}

Metrics Compare(const std::vector<float>& a, const std::vector<float>& b,
                const std::function<bool(int64_t)>& ignore = {}) {
  return CompareTensors(View(DType::kF32, a), View(DType::kF32, b), ignore);
}

Metrics CompareBits(DType dtype, uint16_t a, uint16_t b) {
  const std::vector<uint16_t> x = {a}, y = {b};
  return CompareTensors(View(dtype, x), View(dtype, y));
}

// An infinite or missing number on one side: nothing about it may look small.
void ExpectInfinite(const Metrics& m) {
  EXPECT_FALSE(m.same());
  EXPECT_EQ(m.max_abs, kInf);
  EXPECT_EQ(m.max_rel, kInf);
  EXPECT_EQ(m.max_ulp, kInf);
  EXPECT_EQ(m.rms, kInf);
}

TEST(Metrics, Equal) {
  const Metrics m = Compare({1, -2, 0.1F}, {1, -2, 0.1F});
  EXPECT_TRUE(m.same());
  EXPECT_EQ(m.elements, 3);
  EXPECT_EQ(m.differing, 0);
  EXPECT_EQ(m.max_abs, 0);
  EXPECT_EQ(m.max_rel, 0);
  EXPECT_EQ(m.max_ulp, 0);
  EXPECT_EQ(m.rms, 0);
  EXPECT_EQ(m.cosine, 1);
  EXPECT_EQ(m.first, -1);
}

TEST(Metrics, Differences) {
  const Metrics m = Compare({1, 2, 4, 8}, {1, 2.5, 3, 8});
  EXPECT_FALSE(m.same());
  EXPECT_EQ(m.elements, 4);
  EXPECT_EQ(m.differing, 2);
  EXPECT_EQ(m.nan_mismatch, 0);
  EXPECT_EQ(m.max_abs, 1);
  EXPECT_EQ(m.max_rel, 0.25);
  EXPECT_EQ(m.first, 1);
}

TEST(Metrics, NanOnOneSide) {
  for (const float other : {0.0F, 1.0F, -1.0F, kInfF, -kInfF, 0x1p-149F}) {
    for (const auto& [a, b] : {std::pair{kNan, other}, std::pair{other, kNan}}) {
      const Metrics m = Compare({1, a, 1}, {1, b, 1});
      ExpectInfinite(m);
      EXPECT_EQ(m.differing, 1);
      EXPECT_EQ(m.nan_mismatch, 1);
      EXPECT_EQ(m.first, 1);
      EXPECT_FALSE(m.cosine > 0.999);  // not a number, or at least no agreement
    }
  }
}

TEST(Metrics, NanOnBothSidesIsTheSameValue) {
  const auto payload = std::bit_cast<float>(0xffc12345U);
  const Metrics m = Compare({kNan, 1}, {payload, 1});
  EXPECT_TRUE(m.same());
  EXPECT_EQ(m.elements, 2);
  EXPECT_EQ(m.nan_mismatch, 0);
  EXPECT_EQ(m.max_abs, 0);
  for (const auto& [dtype, a, b] :
       {std::tuple{DType::kBF16, 0x7fc0, 0xff81}, std::tuple{DType::kF16, 0x7e00, 0xfc01}}) {
    EXPECT_TRUE(CompareBits(dtype, static_cast<uint16_t>(a), static_cast<uint16_t>(b)).same());
  }
}

TEST(Metrics, ANanDoesNotHideOtherDifferences) {
  const Metrics m = Compare({kNan, 1, 2}, {kNan, 1, 3});
  EXPECT_EQ(m.differing, 1);
  EXPECT_EQ(m.max_abs, 1);
  EXPECT_EQ(m.first, 2);
}

TEST(Metrics, Infinities) {
  EXPECT_TRUE(Compare({kInfF, -kInfF}, {kInfF, -kInfF}).same());
  for (const auto& [a, b] :
       {std::pair{kInfF, -kInfF}, std::pair{-kInfF, kInfF}, std::pair{kInfF, 1.0F},
        std::pair{1.0F, kInfF}, std::pair{-kInfF, 0.0F}, std::pair{0.0F, -kInfF},
        std::pair{kInfF, std::numeric_limits<float>::max()}}) {
    const Metrics m = Compare({a}, {b});
    ExpectInfinite(m);
    EXPECT_EQ(m.differing, 1);
    EXPECT_EQ(m.nan_mismatch, 0);
    ExpectInfinite(Compare({a, 1, 2}, {b, 1, 2.5}));  // a smaller difference after it
    ExpectInfinite(Compare({2, 1, a}, {2.5, 1, b}));
  }
}

TEST(Metrics, ZerosDifferInBitsAlone) {
  for (const auto& [a, b] : {std::pair{0.0F, -0.0F}, std::pair{-0.0F, 0.0F}}) {
    const Metrics m = Compare({a}, {b});
    EXPECT_FALSE(m.same());
    EXPECT_EQ(m.differing, 1);
    EXPECT_EQ(m.first, 0);
    EXPECT_EQ(m.max_abs, 0);
    EXPECT_EQ(m.max_rel, 0);
    EXPECT_EQ(m.max_ulp, 0);
    EXPECT_EQ(m.cosine, 1);
  }
  EXPECT_TRUE(Compare({-0.0F}, {-0.0F}).same());
}

TEST(Metrics, RelativeToTheFirst) {
  EXPECT_EQ(Compare({0}, {1}).max_rel, kInf);
  EXPECT_EQ(Compare({1}, {0}).max_rel, 1);
  EXPECT_EQ(Compare({-4}, {-3}).max_rel, 0.25);
}

TEST(Metrics, Subnormals) {
  constexpr float kSmallest = 0x1p-149F;
  EXPECT_EQ(Compare({kSmallest}, {0}).max_ulp, 1);
  EXPECT_EQ(Compare({kSmallest}, {-kSmallest}).max_ulp, 2);
  EXPECT_EQ(Compare({kSmallest}, {3 * kSmallest}).max_ulp, 2);
  EXPECT_EQ(Compare({kSmallest}, {0}).max_abs, 0x1p-149);
  EXPECT_EQ(Compare({0x1p-126F}, {0x1p-126F - kSmallest}).max_ulp, 1);  // the edge to normal ones
  for (const DType dtype : {DType::kBF16, DType::kF16}) {
    EXPECT_EQ(CompareBits(dtype, 0x0001, 0x8001).max_ulp, 2);
    EXPECT_EQ(CompareBits(dtype, 0x0000, 0x0001).max_ulp, 1);
  }
}

TEST(Metrics, BothNegative) {
  const Metrics m = Compare({-1}, {std::nextafter(-1.0F, -2.0F)});
  EXPECT_EQ(m.max_ulp, 1);
  EXPECT_EQ(m.max_abs, 0x1p-23);
  EXPECT_EQ(Compare({-1000}, {-2000}).max_abs, 1000);
  EXPECT_EQ(Compare({-3e38F}, {-1e38F}).max_rel, Compare({3e38F}, {1e38F}).max_rel);
}

// Against the distance of bit patterns, which needs no arithmetic.
TEST(Metrics, StepsAreThoseOfTheBitPatterns) {
  for (const DType dtype : {DType::kBF16, DType::kF16}) {
    const uint16_t infinity = dtype == DType::kBF16 ? 0x7f80 : 0x7c00;
    std::vector<uint16_t> all;
    for (uint32_t sign : {0U, 0x8000U}) {
      for (uint32_t bits = 0; bits < infinity; ++bits) {
        all.push_back(static_cast<uint16_t>(sign | bits));
      }
    }
    std::mt19937 random(1);
    for (size_t i = 0; i < all.size(); ++i) {
      const uint16_t next = all[(i + 1) % all.size()], any = all[random() % all.size()];
      for (const uint16_t other : {next, any}) {
        ASSERT_EQ(CompareBits(dtype, all[i], other).max_ulp, UlpDistance(dtype, all[i], other))
            << all[i] << " " << other;
      }
    }
  }
  std::mt19937 random(2);
  for (int i = 0; i < 100'000; ++i) {
    const auto a = static_cast<uint32_t>(random());
    const auto b = i % 2 == 0 ? static_cast<uint32_t>(random()) : a + 1;
    const auto x = std::bit_cast<float>(a), y = std::bit_cast<float>(b);
    if (!std::isfinite(x) || !std::isfinite(y)) continue;
    ASSERT_EQ(Compare({x}, {y}).max_ulp, UlpDistance(DType::kF32, a, b)) << a << " " << b;
  }
}

TEST(Metrics, StepsOfDoublePrecision) {
  const auto steps = [](double a, double b) {
    const std::vector<double> x = {a}, y = {b};
    return CompareTensors(View(DType::kF64, x), View(DType::kF64, y)).max_ulp;
  };
  EXPECT_EQ(steps(1, std::nextafter(1.0, 2.0)), 1);
  EXPECT_EQ(steps(1, std::nextafter(1.0, 0.0)), 1);
  EXPECT_EQ(steps(0x1p-1074, -0x1p-1074), 2);
  EXPECT_EQ(steps(0x1p-1022, 0x1p-1022 - 0x1p-1074), 1);
  EXPECT_EQ(steps(1e300, std::nextafter(1e300, 0.0)), 1);
  constexpr double kMax = std::numeric_limits<double>::max();
  EXPECT_EQ(steps(-kMax, kMax), 2 * static_cast<double>(std::bit_cast<int64_t>(kMax)));
  EXPECT_EQ(steps(kMax, kInf), kInf);
}

TEST(Metrics, Cosine) {
  EXPECT_EQ(Compare({1, 0}, {0, 1}).cosine, 0);
  EXPECT_EQ(Compare({3, 4}, {-3, -4}).cosine, -1);
  EXPECT_EQ(Compare({3, 4}, {6, 8}).cosine, 1);
  EXPECT_EQ(Compare({0, 0}, {0, -0.0F}).cosine, 1);
  EXPECT_EQ(Compare({0, 0}, {1, 0}).cosine, 0);
  EXPECT_EQ(Compare({1, 0}, {0, 0}).cosine, 0);
  EXPECT_EQ(Compare({3e38F}, {3e38F}).cosine, 1);
  EXPECT_EQ(Compare({0x1p-149F}, {0x1p-149F}).cosine, 1);
  EXPECT_TRUE(std::isnan(Compare({kInfF}, {kInfF}).cosine));
  EXPECT_TRUE(std::isnan(Compare({kNan}, {0}).cosine));
  EXPECT_TRUE(std::isnan(Compare({0}, {kInfF}).cosine));
  // The product of the squares is beyond fp64; two roots, a product and a quotient round.
  const std::vector<double> large = {1e100};
  EXPECT_NEAR(CompareTensors(View(DType::kF64, large), View(DType::kF64, large)).cosine, 1,
              4 * 0x1p-53);
}

TEST(Metrics, Empty) {
  const std::vector<float> none;
  for (const Shape& shape : {Shape{0}, Shape{0, 3}, Shape{3, 0}}) {
    const Metrics m =
        CompareTensors(View(DType::kF32, none, shape), View(DType::kF32, none, shape));
    EXPECT_TRUE(m.same());
    EXPECT_EQ(m.elements, 0);
    EXPECT_EQ(m.cosine, 1);
  }
}

TEST(Metrics, Scalars) {
  const std::vector<float> a = {1}, b = {2};
  EXPECT_EQ(CompareTensors(View(DType::kF32, a, {}), View(DType::kF32, b, {})).differing, 1);
}

TEST(Metrics, ShapesThatDiffer) {
  const std::vector<float> a = {1, 2, 3, 4, 5, 6};
  const Metrics m = CompareTensors(View(DType::kF32, a, {2, 3}), View(DType::kF32, a, {3, 2}));
  EXPECT_FALSE(m.same());
  EXPECT_EQ(m.not_comparable, "shape [2, 3] against [3, 2]");
  EXPECT_EQ(m.elements, 0);
  EXPECT_FALSE(CompareTensors(View(DType::kF32, a, {6}), View(DType::kF32, a, {1, 6})).same());
  EXPECT_FALSE(CompareTensors(View(DType::kF32, a, {0}), View(DType::kF32, a, {0, 1})).same());
}

TEST(Metrics, DTypesThatDiffer) {
  const std::vector<float> wide = {1, -2, 0.0F}, other = {1, -2, -0.0F};
  const std::vector<uint16_t> narrow = {0x3f80, 0xc000, 0x0000};
  const auto compare = [&](const std::vector<float>& a) {
    return CompareTensors(View(DType::kF32, a), View(DType::kBF16, narrow));
  };
  EXPECT_TRUE(compare(wide).same());
  EXPECT_EQ(compare(other).differing, 1);
  EXPECT_EQ(compare({1.0078125F, -2, 0}).max_ulp, 1);     // 1 + 2^-7: a step of bf16
  EXPECT_EQ(compare({1.00390625F, -2, 0}).max_ulp, 0.5);  // half of one
  EXPECT_EQ(compare({kNan, -2, 0}).nan_mismatch, 1);
  ExpectInfinite(compare({kInfF, -2, 0}));
}

TEST(Metrics, RootMeanSquareOfTheDifference) {
  EXPECT_EQ(Compare({1, 2, 4, 8}, {1, 2, 3, 8}).rms, 0.5);      // sqrt(1 / 4)
  EXPECT_EQ(Compare({-1, -2, 7, 1}, {-4, -6, 7, 1}).rms, 2.5);  // sqrt(25 / 4)
  EXPECT_EQ(Compare({-6, -1, 7, 1}, {-2, -4, 7, 1}).rms, 2.5);  // the large one first
  EXPECT_EQ(Compare({0.0F}, {-0.0F}).rms, 0);
  EXPECT_EQ(Compare({kNan, 2}, {kNan, 0}).rms, std::sqrt(2.0));  // two NaNs differ by nothing
  EXPECT_EQ(Compare({kInfF, 2}, {kInfF, 0}).rms, std::sqrt(2.0));
  EXPECT_EQ(Compare({0x1p-149F}, {0}).rms, 0x1p-149);
  const auto of = [](double a, double b) {
    const std::vector<double> x = {a, a}, y = {b, b};
    return CompareTensors(View(DType::kF64, x), View(DType::kF64, y)).rms;
  };
  EXPECT_EQ(of(0x1p1000, 0), 0x1p1000);  // whose squares fp64 does not hold
  EXPECT_EQ(of(0x1p-1000, 0), 0x1p-1000);
  constexpr double kMax = std::numeric_limits<double>::max();
  EXPECT_EQ(of(kMax, -kMax), kInf);
  // Ignored elements count neither above nor below the line.
  EXPECT_EQ(Compare({1, 9}, {3, 0}, [](int64_t i) { return i == 1; }).rms, 2);
}

TEST(Metrics, KindsOfDifference) {
  const std::vector<float> a = {1, 2}, b = {1, 3};
  const std::vector<uint16_t> narrow = {0x3f80, 0x4000};  // 1, 2 in BF16
  const auto kind = [](const TensorView& x, const TensorView& y) {
    return DifferenceName(DifferenceOf(x, y, CompareTensors(x, y)));
  };
  EXPECT_EQ(kind(View(DType::kF32, a), View(DType::kF32, a)), "none");
  EXPECT_EQ(kind(View(DType::kF32, a), View(DType::kF32, b)), "values");
  EXPECT_EQ(kind(View(DType::kF32, a), View(DType::kBF16, narrow)), "dtype");
  EXPECT_EQ(kind(View(DType::kF32, b), View(DType::kBF16, narrow)), "dtype");
  EXPECT_EQ(kind(View(DType::kF32, a), View(DType::kI32, a)), "dtype");
  EXPECT_EQ(kind(View(DType::kF32, a), View(DType::kF32, a, {2, 1})), "shape");
  EXPECT_EQ(kind(View(DType::kF32, a), View(DType::kBF16, narrow, {2, 1})), "shape");
  const std::vector<float> nan = {kNan, 2};
  EXPECT_EQ(kind(View(DType::kF32, nan), View(DType::kF32, nan)), "none");
  EXPECT_EQ(kind(View(DType::kF32, nan), View(DType::kF32, a)), "values");
}

TEST(Metrics, LongerThanABlockOfConversion) {
  std::vector<float> a(10'000), b;
  for (size_t i = 0; i < a.size(); ++i) a[i] = static_cast<float>(i);
  b = a;
  b[4095] += 1;
  b[4096] += 1;
  b[9999] += 1;
  const Metrics m = Compare(a, b);
  EXPECT_EQ(m.elements, 10'000);
  EXPECT_EQ(m.differing, 3);
  EXPECT_EQ(m.first, 4095);
  EXPECT_EQ(m.max_abs, 1);
  EXPECT_EQ(Compare(a, b, [](int64_t i) { return i < 9999; }).first, 9999);
}

TEST(Metrics, IntegersByBits) {
  const std::vector<int32_t> a = {1, 2, 3}, b = {1, 5, 3};
  EXPECT_TRUE(CompareTensors(View(DType::kI32, a), View(DType::kI32, a)).same());
  const Metrics m = CompareTensors(View(DType::kI32, a), View(DType::kI32, b));
  EXPECT_FALSE(m.same());
  EXPECT_EQ(m.elements, 3);
  EXPECT_EQ(m.differing, 1);
  EXPECT_EQ(m.first, 1);
  for (const DType dtype : {DType::kU32, DType::kF32}) {
    const Metrics other = CompareTensors(View(DType::kI32, a), View(dtype, a));
    EXPECT_FALSE(other.same());
    EXPECT_THAT(other.not_comparable, testing::StartsWith("dtype I32 against "));
  }
}

TEST(Metrics, IgnoredElements) {
  const auto odd = [](int64_t i) { return i % 2 == 1; };
  const Metrics m = Compare({1, kNan, 2, 5}, {1, 7, 2, kInfF}, odd);
  EXPECT_TRUE(m.same());
  EXPECT_EQ(m.elements, 2);
  EXPECT_EQ(m.cosine, 1);
  EXPECT_EQ(Compare({1, 2, 3}, {1, 0, 4}, odd).first, 2);  // an index of the whole tensor
  const Metrics nothing = Compare({1}, {2}, [](int64_t) { return true; });
  EXPECT_TRUE(nothing.same());
  EXPECT_EQ(nothing.elements, 0);
}

}  // namespace
}  // namespace samebits
