// exp and softmax against what torch gave with 8 lanes (tests/fixtures/make_torch_sampling.py), and
// the order of 16 lanes against a sum that is written out.
#include "samebits/numerics/torch_softmax.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "samebits/numerics/math.h"
#include "samebits/numerics/torch_testing.h"

namespace samebits {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

std::vector<float> Softmax(const std::vector<float>& x, int lanes) {
  std::vector<float> y(x.size());
  TorchSoftmax(x, lanes, y);
  return y;
}

TEST(TorchExp, EndsAndSpecialValues) {
  EXPECT_EQ(TorchExp(0.0F), 1.0F);
  EXPECT_EQ(TorchExp(-0.0F), 1.0F);
  EXPECT_EQ(TorchExp(-kInf), 0.0F);
  EXPECT_EQ(TorchExp(kInf), kInf);
  EXPECT_TRUE(std::isnan(TorchExp(kNan)));
  EXPECT_EQ(TorchExp(std::nextafter(-104.0F, -kInf)), 0.0F);
  EXPECT_EQ(TorchExp(-103.0F), 0x1p-149F);
  EXPECT_EQ(TorchExp(89.0F), kInf);
  EXPECT_EQ(TorchExp(std::numeric_limits<float>::lowest()), 0.0F);
  EXPECT_EQ(TorchExp(std::numeric_limits<float>::max()), kInf);
}

// 1.0 ulp is Sleef's promise; Exp of numerics/math.h is within 0.988 of the truth.
TEST(TorchExp, WithinTwoUlpOfOurs) {
  for (float x = -87.0F; x < 88.0F; x += 0.00037F) {
    const auto a = std::bit_cast<int32_t>(TorchExp(x)), b = std::bit_cast<int32_t>(Exp(x));
    ASSERT_LE(std::abs(a - b), 2) << x;
  }
}

TEST(TorchSoftmax, BitsOfTorch) {
  const Json manifest = LoadTorchFixture("manifest.json");
  const int lanes = manifest["lanes"].get<int>();
  int rows = 0;
  const Json numbers = LoadTorchFixture("numbers.json");
  for (const Json& row : numbers["softmax"]) {
    const auto n = row["n"].get<int64_t>();
    std::vector<float> x = MakeTorchLogits("fine", static_cast<uint64_t>(n), n);
    for (int64_t i = n / 2; n % 3 == 0 && i < n; i += 2) x[i] = -kInf;
    for (float& value : x) value *= n % 4 == 0 ? 13.0F : 1.0F;
    const std::vector<float> y = Softmax(x, lanes);
    for (size_t i = 0; row.contains("bits") && i < y.size(); ++i) {
      ASSERT_EQ(std::bit_cast<uint32_t>(y[i]), row["bits"][i].get<uint32_t>()) << n << ", " << i;
    }
    EXPECT_EQ(HashOf<float>(y), row["hash"].get<std::string>()) << n;
    ++rows;
  }
  EXPECT_EQ(rows, 43);
}

TEST(TorchSoftmax, SixteenLanesWrittenOut) {
  for (const int64_t n : {15, 16, 23, 37}) {
    std::vector<float> x = MakeTorchLogits("fine", 99, n);
    x[0] = 9.0F;  // the maximum: above the sum of four
    float e[64] = {};
    for (int64_t i = 0; i < n; ++i) e[i] = TorchExp(x[i] - 9.0F);
    float s = 0;
    if (n < 16) {
      for (int64_t i = 0; i < n; ++i) s += e[i];
    } else {
      const auto l = [&](int i) { return (e[i] + e[i + 16]) + e[i + 32]; };
      s = (((l(0) + l(8)) + (l(4) + l(12))) + ((l(2) + l(10)) + (l(6) + l(14)))) +
          (((l(1) + l(9)) + (l(5) + l(13))) + ((l(3) + l(11)) + (l(7) + l(15))));
    }
    const std::vector<float> y = Softmax(x, 16);
    for (int64_t i = 0; i < n; ++i) {
      ASSERT_EQ(std::bit_cast<uint32_t>(y[i]), std::bit_cast<uint32_t>(e[i] * (1.0F / s)));
    }
  }
}

TEST(TorchSoftmax, LanesChangeTheSum) {
  int different = 0;
  for (uint64_t seed = 0; seed < 50; ++seed) {
    const std::vector<float> x = MakeTorchLogits("fine", seed, 200);
    different += Softmax(x, 8) != Softmax(x, 16);
  }
  EXPECT_GT(different, 10);
}

TEST(TorchSoftmax, RowsWithoutProbabilities) {
  for (const std::vector<float>& row : std::vector<std::vector<float>>{
           {1, kNan, 2}, {kNan}, {1, kInf, 2}, {-kInf, -kInf}, {-kInf}}) {
    for (const float value : Softmax(row, 8)) EXPECT_TRUE(std::isnan(value));
  }
  std::vector<float> wide(40, 1.0F);
  wide[33] = kNan;
  for (const float value : Softmax(wide, 16)) EXPECT_TRUE(std::isnan(value));
}

}  // namespace
}  // namespace samebits
