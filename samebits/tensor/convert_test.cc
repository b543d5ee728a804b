// Conversions, over all 65536 patterns of both 16-bit types: widening is exact, narrowing goes to
// the nearest value with ties to even, in one rounding, from fp32 and from fp64.
#include "samebits/tensor/convert.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "samebits/tensor/bits_testing.h"

namespace samebits {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

struct Format {
  DType dtype;
  int exponent_bits, fraction_bits;
  float (*widen)(uint16_t);
  uint16_t (*narrow)(float);
  uint16_t (*narrow64)(double);

  uint16_t infinity() const {
    return static_cast<uint16_t>(((1 << exponent_bits) - 1) << fraction_bits);
  }
  bool nan(uint16_t bits) const { return (bits & 0x7fff) > infinity(); }
  // The value by the definition of IEEE 754. Infinity stands for the power of two that would be
  // next: where rounding to it begins is decided as for any other neighbour.
  double Value(uint16_t bits) const {
    const int exponent = (bits & 0x7fff) >> fraction_bits;
    const int fraction = bits & ((1 << fraction_bits) - 1);
    const int bias = (1 << (exponent_bits - 1)) - 1;
    const double magnitude = exponent == 0 ? std::ldexp(fraction, 1 - bias - fraction_bits)
                                           : std::ldexp(fraction + (1 << fraction_bits),
                                                        exponent - bias - fraction_bits);
    return (bits & 0x8000) != 0 ? -magnitude : magnitude;
  }
};

class ConvertTest : public testing::TestWithParam<Format> {};

TEST_P(ConvertTest, WideningIsExact) {
  const Format& f = GetParam();
  for (int i = 0; i < 65536; ++i) {
    const auto bits = static_cast<uint16_t>(i);
    const float value = f.widen(bits);
    if (f.nan(bits)) {
      ASSERT_TRUE(std::isnan(value)) << i;
    } else if ((bits & 0x7fff) == f.infinity()) {
      ASSERT_EQ(value, (bits & 0x8000) != 0 ? -kInf : kInf);
    } else {
      ASSERT_EQ(value, f.Value(bits)) << i;
    }
    ASSERT_EQ(std::signbit(value), (bits & 0x8000) != 0) << i;
  }
}

TEST_P(ConvertTest, NarrowingGivesEveryValueBack) {
  const Format& f = GetParam();
  const int quiet = 1 << (f.fraction_bits - 1);
  for (int i = 0; i < 65536; ++i) {
    const auto bits = static_cast<uint16_t>(i);
    const float value = f.widen(bits);
    // NaN becomes quiet and keeps its sign and payload.
    const auto expected = static_cast<uint16_t>(f.nan(bits) ? bits | quiet : bits);
    ASSERT_EQ(f.narrow(value), expected) << i;
    if (f.nan(bits)) {
      ASSERT_TRUE(f.nan(f.narrow64(value))) << i;
      ASSERT_TRUE(std::isnan(RoundToDType(value, f.dtype))) << i;
    } else {
      ASSERT_EQ(f.narrow64(value), bits) << i;
      ASSERT_EQ(std::bit_cast<uint64_t>(RoundToDType(value, f.dtype)),
                std::bit_cast<uint64_t>(static_cast<double>(value)))
          << i;
    }
  }
}

// Between every two neighbours: the middle goes to the even one, a hair beside it to the nearer.
// That pins the rounding of every number, since it is monotone between.
TEST_P(ConvertTest, NearestWithTiesToEven) {
  const Format& f = GetParam();
  int64_t twice_rounded = 0;
  for (uint16_t lower = 0; lower < f.infinity(); ++lower) {
    const auto upper = static_cast<uint16_t>(lower + 1);
    const uint16_t even = lower % 2 == 0 ? lower : upper;
    const double middle = (f.Value(lower) + f.Value(upper)) / 2;  // exact in fp64 and in fp32
    const auto middle32 = static_cast<float>(middle);
    ASSERT_EQ(middle32, middle);
    for (const int sign : {0, 0x8000}) {
      const double s = sign != 0 ? -1 : 1;
      const auto with_sign = [sign](uint16_t bits) { return static_cast<uint16_t>(bits | sign); };
      const auto below = static_cast<float>(s) * std::nextafter(middle32, 0.0F);
      const auto above = static_cast<float>(s) * std::nextafter(middle32, kInf);
      ASSERT_EQ(f.narrow(static_cast<float>(s) * middle32), with_sign(even)) << lower;
      ASSERT_EQ(f.narrow(below), with_sign(lower)) << lower;
      ASSERT_EQ(f.narrow(above), with_sign(upper)) << lower;
      const double below64 = s * std::nextafter(middle, 0.0);
      const double above64 = s * std::nextafter(middle, HUGE_VAL);
      ASSERT_EQ(f.narrow64(s * middle), with_sign(even)) << lower;
      ASSERT_EQ(f.narrow64(below64), with_sign(lower)) << lower;
      ASSERT_EQ(f.narrow64(above64), with_sign(upper)) << lower;
      for (const auto& [value, bits] :
           {std::pair{s * middle, even}, std::pair{below64, lower}, std::pair{above64, upper}}) {
        const double expected = f.widen(with_sign(bits));
        ASSERT_EQ(std::bit_cast<uint64_t>(RoundToDType(value, f.dtype)),
                  std::bit_cast<uint64_t>(expected))
            << lower;
      }
      // Through fp32 both hairs are lost, and the tie to even is wrong for one of them.
      const int wrong = (f.narrow(static_cast<float>(below64)) != with_sign(lower) ? 1 : 0) +
                        (f.narrow(static_cast<float>(above64)) != with_sign(upper) ? 1 : 0);
      ASSERT_EQ(wrong, 1) << lower;
      twice_rounded += wrong;
    }
  }
  EXPECT_EQ(twice_rounded, 2 * f.infinity());  // this test can tell one rounding from two
}

TEST_P(ConvertTest, OverflowAndUnderflow) {
  const Format& f = GetParam();
  const uint16_t inf = f.infinity(), max = static_cast<uint16_t>(inf - 1);
  for (const double value : {1e300, std::numeric_limits<double>::max(), HUGE_VAL}) {
    EXPECT_EQ(f.narrow64(value), inf);
    EXPECT_EQ(f.narrow64(-value), inf | 0x8000);
    EXPECT_EQ(RoundToDType(-value, f.dtype), -HUGE_VAL);
  }
  EXPECT_EQ(f.narrow(kInf), inf);
  EXPECT_EQ(f.narrow(-kInf), inf | 0x8000);
  EXPECT_EQ(f.narrow(std::numeric_limits<float>::max()), inf);
  EXPECT_EQ(f.narrow64(f.Value(max)), max);
  for (const double value : {0.0, 1e-300, 0x1p-1074}) {
    EXPECT_EQ(f.narrow64(value), 0);
    EXPECT_EQ(f.narrow64(-value), 0x8000);
    EXPECT_TRUE(std::signbit(RoundToDType(-value, f.dtype)));
    EXPECT_EQ(RoundToDType(-value, f.dtype), 0.0);
  }
  EXPECT_EQ(f.narrow(-0.0F), 0x8000);
  EXPECT_EQ(f.narrow(-0x1p-149F), 0x8000);
  EXPECT_TRUE(f.nan(f.narrow(std::bit_cast<float>(0x7f800001U))));  // a payload that is cut off
  EXPECT_TRUE(f.nan(f.narrow(std::bit_cast<float>(0xffffffffU))));
  EXPECT_TRUE(f.nan(f.narrow64(std::bit_cast<double>(0x7ff0000000000001U))));
}

// Random bit patterns of fp32: fp64 holds them exactly, so both ways must agree.
TEST_P(ConvertTest, FromFloatAsFromDouble) {
  const Format& f = GetParam();
  std::mt19937 random(1);
  for (int i = 0; i < 1'000'000; ++i) {
    const auto value = std::bit_cast<float>(static_cast<uint32_t>(random()));
    if (std::isnan(value)) continue;
    ASSERT_EQ(f.narrow(value), f.narrow64(value)) << std::bit_cast<uint32_t>(value);
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, ConvertTest,
    testing::Values(Format{DType::kBF16, 8, 7, BF16ToFloat, FloatToBF16, DoubleToBF16},
                    Format{DType::kF16, 5, 10, F16ToFloat, FloatToF16, DoubleToF16}),
    [](const testing::TestParamInfo<Format>& format) {
      return std::string(DTypeName(format.param.dtype));
    });

TEST(RoundToDType, SinglePrecisionAndNone) {
  EXPECT_EQ(RoundToDType(0.1, DType::kF32), 0.1F);
  EXPECT_EQ(RoundToDType(0x1.000001p0, DType::kF32), 1.0);                  // a tie, to even
  EXPECT_EQ(RoundToDType(0x1.0000010000001p0, DType::kF32), 0x1.000002p0);  // above it
  EXPECT_EQ(RoundToDType(0x1p-150, DType::kF32), 0.0);
  EXPECT_EQ(RoundToDType(0x1.8p-150, DType::kF32), 0x1p-149);
  EXPECT_EQ(RoundToDType(0.1, DType::kF64), 0.1);
}

// Significand and exponent range, seen through rounding itself.
TEST(DTypeLimits, AgreeWithTheConversions) {
  for (const DType dtype : {DType::kF64, DType::kF32, DType::kBF16, DType::kF16}) {
    const double step = std::ldexp(1.0, 1 - SignificandBits(dtype));
    EXPECT_EQ(RoundToDType(1.0 + step, dtype), 1.0 + step);
    if (dtype != DType::kF64) {
      EXPECT_EQ(RoundToDType(1.0 + step / 2, dtype), 1.0);
    }
    // One below the smallest normal number has the same distance to its neighbours.
    const double smallest = SmallestNormal(dtype), quantum = smallest * step;
    EXPECT_GT(quantum, 0);
    EXPECT_EQ(RoundToDType(smallest - quantum, dtype), smallest - quantum);
    EXPECT_EQ(RoundToDType(smallest + quantum, dtype), smallest + quantum);
    EXPECT_EQ(RoundToDType(quantum / 2, dtype), 0.0);
  }
  EXPECT_EQ(SmallestNormal(DType::kF64), std::numeric_limits<double>::min());
  EXPECT_EQ(SmallestNormal(DType::kF32), std::numeric_limits<float>::min());
}

}  // namespace
}  // namespace samebits
