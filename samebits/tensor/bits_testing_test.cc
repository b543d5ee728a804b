// The comparison that all tests of kernels trust: what it must see, and what it must forgive.
#include "samebits/tensor/bits_testing.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

namespace samebits {
namespace {

using testing::HasSubstr;

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

bool Equal(float a, float b) {
  return static_cast<bool>(BitsEqual(std::vector<float>{a}, std::vector<float>{b}));
}

TEST(BitsTesting, SeesEveryDifference) {
  EXPECT_FALSE(Equal(0.0F, -0.0F));
  EXPECT_FALSE(Equal(1.0F, std::nextafter(1.0F, 2.0F)));
  EXPECT_FALSE(Equal(0x1p-149F, 0.0F));
  EXPECT_FALSE(Equal(-1.0F, 1.0F));
  EXPECT_FALSE(Equal(kInf, -kInf));
  EXPECT_FALSE(Equal(kInf, std::numeric_limits<float>::max()));
  EXPECT_FALSE(Equal(kNan, kInf));
  EXPECT_FALSE(Equal(1.0F, kNan));
  EXPECT_FALSE(Equal(kNan, 0.0F));
  EXPECT_FALSE(BitsEqual(std::vector<float>{1.0F}, std::vector<float>{}));
}

TEST(BitsTesting, AcceptsEqualBitsAndAnyNan) {
  EXPECT_TRUE(Equal(-0.0F, -0.0F));
  EXPECT_TRUE(Equal(0x1p-149F, 0x1p-149F));
  EXPECT_TRUE(Equal(-kInf, -kInf));
  EXPECT_TRUE(Equal(kNan, -kNan));
  EXPECT_TRUE(Equal(kNan, std::bit_cast<float>(0xff812345U)));
  EXPECT_TRUE(BitsEqual(std::vector<float>{}, std::vector<float>{}));
}

TEST(BitsTesting, KnowsTheNansOfEachDtype) {
  const uint16_t bf16_nan = 0x7fc0, f16_nan = 0x7e01, f16_inf = 0x7c00, other = 0xffff;
  EXPECT_TRUE(BitsEqual(DType::kBF16, &bf16_nan, &other, 1));
  EXPECT_TRUE(BitsEqual(DType::kF16, &f16_nan, &other, 1));
  EXPECT_FALSE(BitsEqual(DType::kF16, &f16_nan, &f16_inf, 1));
  EXPECT_FALSE(BitsEqual(DType::kBF16, &f16_inf, &f16_nan, 1));  // two numbers in bf16
}

TEST(BitsTesting, SaysHowManyAndWhereAndHowFar) {
  const std::vector<float> a = {1.0F, 2.0F, -1.0F, 4.0F};
  std::vector<float> b = a;
  b[2] = std::bit_cast<float>(0xbf800003U);
  b[3] = kNan;
  const testing::AssertionResult result = BitsEqual(a, b);
  EXPECT_THAT(result.message(), HasSubstr("2 of 4 values differ; first at 2"));
  EXPECT_THAT(result.message(), HasSubstr("expected 0xbf800000, actual 0xbf800003, 3 ulp"));
}

TEST(BitsTesting, CountsUlpsAcrossZero) {
  const auto distance = [](float a, float b) {
    return UlpDistance(DType::kF32, std::bit_cast<uint32_t>(a), std::bit_cast<uint32_t>(b));
  };
  EXPECT_EQ(distance(0.0F, -0.0F), 0);
  EXPECT_EQ(distance(0x1p-149F, -0x1p-149F), 2);
  EXPECT_EQ(distance(-2.0F, -1.0F), 1 << 23);
  EXPECT_EQ(UlpDistance(DType::kBF16, 0x3f80, 0x3f7f), 1);
}

}  // namespace
}  // namespace samebits
