// torch's generator and multinomial against recorded draws (tests/fixtures/make_torch_sampling.py),
// and the ends that no test can wait for a generator to reach.
#include "samebits/numerics/torch_random.h"

#include <gtest/gtest.h>

#include <limits>

#include "samebits/numerics/torch_testing.h"

namespace samebits {
namespace {

TEST(TorchGenerator, DrawsOfTorch) {
  int seeds = 0;
  const Json numbers = LoadTorchFixture("numbers.json");
  for (const Json& row : numbers["exponential"]) {
    TorchGenerator generator(row["seed"].get<uint64_t>());
    std::vector<float> draws(20000);
    for (float& draw : draws) draw = TorchExponential(generator.Uniform());
    for (size_t i = 0; i < 8; ++i) {
      ASSERT_EQ(std::bit_cast<uint32_t>(draws[i]), row["first"][i].get<uint32_t>()) << i;
    }
    EXPECT_EQ(HashOf<float>(draws), row["hash"].get<std::string>());
    ++seeds;
  }
  EXPECT_EQ(seeds, 7);
}

TEST(TorchGenerator, OnlyTheLowerHalfOfTheSeedCounts) {
  TorchGenerator a(42), b((uint64_t{7} << 32) + 42), c(43);
  const double first = a.Uniform();
  EXPECT_EQ(first, b.Uniform());
  EXPECT_NE(first, c.Uniform());
}

TEST(TorchExponential, Ends) {
  EXPECT_EQ(std::bit_cast<uint32_t>(TorchExponential(0.0)), 0U);
  EXPECT_EQ(TorchExponential(0x1p-53), 0x1p-53F);
  EXPECT_EQ(TorchExponential(1 - 0x1p-53), 36.7368F);  // 53 ln 2
  EXPECT_EQ(TorchExponential(0.5), 0x1.62e43p-1F);
}

// Without the shortcut.
int64_t Slow(const std::vector<float>& p, const std::vector<double>& u) {
  int64_t best = 0;
  float best_ratio = -1;
  for (size_t i = 0; i < p.size(); ++i) {
    const float ratio = p[i] / TorchExponential(u[i]);
    if (ratio > best_ratio) {
      best = static_cast<int64_t>(i);
      best_ratio = ratio;
    }
  }
  return best;
}

TEST(TorchMultinomial, TheShortcutChangesNothing) {
  TorchGenerator generator(5);
  for (int round = 0; round < 2000; ++round) {
    std::vector<float> p(1 + round % 97);
    std::vector<double> u(p.size());
    for (size_t i = 0; i < p.size(); ++i) {
      // Few different values and ratios close to each other, some of them denormal.
      p[i] = static_cast<float>(std::floor(generator.Uniform() * 4)) * (round % 3 ? 1 : 0x1p-149F);
      u[i] = round % 2 ? generator.Uniform() : 0.25 + static_cast<double>(i % 5) * 0x1p-25;
    }
    p[0] = round % 3 ? 0.5F : 0x1p-149F;
    ASSERT_EQ(TorchMultinomial(p, u), Slow(p, u)) << round;
    // So small that q = u to the last bit, and quotients a few bits apart.
    for (size_t i = 0; i < p.size(); ++i) {
      p[i] = 1 + static_cast<float>(std::floor(generator.Uniform() * 5)) * 0x1p-23F;
      u[i] = 0x1p-40 * (1 + std::floor(generator.Uniform() * 5) * 0x1p-24);
    }
    ASSERT_EQ(TorchMultinomial(p, u), Slow(p, u)) << round;
  }
}

TEST(TorchMultinomial, TiesZerosAndANumberOfZero) {
  EXPECT_EQ(TorchMultinomial(std::vector<float>{0, 1, 1}, std::vector<double>{.5, .5, .5}), 1);
  EXPECT_EQ(TorchMultinomial(std::vector<float>{0, 0, 1}, std::vector<double>{.1, .2, .99}), 2);
  // p / 0 is infinity: it wins, the first one.
  EXPECT_EQ(TorchMultinomial(std::vector<float>{.1F, .5F, .4F}, std::vector<double>{0.9, 0, 0}), 1);
  // 0 / 0 is NaN, which torch.argmax takes for the largest, before and after an infinity.
  EXPECT_EQ(TorchMultinomial(std::vector<float>{.5F, 0, .5F}, std::vector<double>{.5, 0, .5}), 1);
  EXPECT_EQ(TorchMultinomial(std::vector<float>{.5F, .5F, 0}, std::vector<double>{0, .5, 0}), 2);
}

}  // namespace
}  // namespace samebits
