// Logits as distributions: against values that can be worked out by hand, and in every corner where
// a softmax has no value.
#include "samebits/compare/logits.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace samebits {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr float kInfF = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

TensorView View(const std::vector<float>& values, Shape shape) {
  return {DType::kF32, std::move(shape), reinterpret_cast<const std::byte*>(values.data())};
}

// One token.
LogitMetrics Compare(const std::vector<float>& a, const std::vector<float>& b) {
  const Shape shape = {1, static_cast<int64_t>(a.size())};
  return CompareLogits(View(a, shape), View(b, shape));
}

// Nothing about it may look small.
void ExpectNoAgreement(const LogitMetrics& m) {
  EXPECT_EQ(m.tokens, 1);
  EXPECT_EQ(m.kl_mean, kInf);
  EXPECT_EQ(m.kl_max, kInf);
  EXPECT_EQ(m.kl_max_token, 0);
  EXPECT_EQ(m.same_top1, 0);
  EXPECT_EQ(m.same_top5, 0);
}

TEST(Logits, Equal) {
  for (const std::vector<float>& row : {std::vector<float>{1, 2, 3}, {-1e38F, 3e38F}, {0}}) {
    const LogitMetrics m = Compare(row, row);
    EXPECT_EQ(m.tokens, 1);
    EXPECT_EQ(m.kl_mean, 0);
    EXPECT_EQ(m.kl_max, 0);
    EXPECT_EQ(m.kl_max_token, -1);
    EXPECT_EQ(m.same_top1, 1);
    EXPECT_EQ(m.same_top5, 1);
  }
}

// p = (1/4, 3/4), q = (1/2, 1/2): the logits are log 1, log 3 in fp32, 0 and 0. The error of a
// logit, 2^-25, enters times p; twice 1e-7 covers it and the roundings in fp64.
TEST(Logits, DivergenceByHand) {
  const LogitMetrics m = Compare({0, std::log(3.0F)}, {5, 5});
  const double expected = 0.25 * std::log(0.5) + 0.75 * std::log(1.5);
  EXPECT_NEAR(m.kl_mean, expected, 2e-7);
  EXPECT_EQ(m.kl_mean, m.kl_max);
  // From the other side it is another number.
  EXPECT_NEAR(Compare({5, 5}, {0, std::log(3.0F)}).kl_mean,
              0.5 * std::log(2.0) + 0.5 * std::log(2.0 / 3.0), 2e-7);
}

TEST(Logits, AShiftOfAllLogitsChangesNothing) {
  const LogitMetrics m = Compare({1, 2, 3}, {101, 102, 103});
  // log(sum of exp) near 103 is rounded to a multiple of 2^-46, by one operation more than once.
  EXPECT_LT(m.kl_max, 4 * 0x1p-46);
  EXPECT_GE(m.kl_max, 0);
  EXPECT_EQ(m.same_top1, 1);
}

TEST(Logits, MeanAndMaximumOverTokens) {
  const std::vector<float> a = {0, 0, 1, 1, 7, 7}, b = {0, 0, 3, 1, 7, 8};
  const LogitMetrics m = CompareLogits(View(a, {3, 2}), View(b, {3, 2}));
  EXPECT_EQ(m.tokens, 3);
  const double second = Compare({1, 1}, {3, 1}).kl_max, third = Compare({7, 7}, {7, 8}).kl_max;
  EXPECT_GT(second, third);
  EXPECT_EQ(m.kl_max, second);
  EXPECT_EQ(m.kl_max_token, 1);
  EXPECT_EQ(m.kl_mean, (second + third) / 3);
  // The same in a batch, and with tokens left out.
  EXPECT_EQ(CompareLogits(View(a, {3, 1, 2}), View(b, {3, 1, 2})).kl_mean, m.kl_mean);
  const LogitMetrics some =
      CompareLogits(View(a, {3, 2}), View(b, {3, 2}), [](int64_t row) { return row != 2; });
  EXPECT_EQ(some.tokens, 1);
  EXPECT_EQ(some.kl_mean, third);
  EXPECT_EQ(some.kl_max_token, 2);
}

TEST(Logits, TopIds) {
  const std::vector<float> a = {9, 8, 7, 6, 5, 4, 3};
  LogitMetrics m = Compare(a, {8, 9, 7, 6, 5, 4, 3});  // the first two swapped
  EXPECT_EQ(m.same_top1, 0);
  EXPECT_EQ(m.same_top5, 1);
  m = Compare(a, {9, 8, 7, 6, 4, 5, 3});  // the fifth and the sixth
  EXPECT_EQ(m.same_top1, 1);
  EXPECT_EQ(m.same_top5, 0);
  m = Compare(a, {9, 8, 7, 6, 5, 3, 4});
  EXPECT_EQ(m.same_top1, 1);
  EXPECT_EQ(m.same_top5, 1);
  // Of equal logits the lower id: 1 and 1.
  EXPECT_EQ(Compare({0, 5, 5}, {0, 6, 5}).same_top1, 1);
  EXPECT_EQ(Compare({0, 5, 5}, {0, 5, 6}).same_top1, 0);
  EXPECT_EQ(Compare({2, 1}, {2, 0}).same_top5, 1);  // a vocabulary of two
}

TEST(Logits, NanOnOneSide) {
  ExpectNoAgreement(Compare({1, kNan, 3}, {1, 2, 3}));
  ExpectNoAgreement(Compare({1, 2, 3}, {1, kNan, 3}));
  ExpectNoAgreement(Compare({1, kNan, 3}, {kNan, 1, 3}));
  ExpectNoAgreement(Compare({kNan}, {0}));
}

TEST(Logits, NanOnBothSidesIsTheSameOnlyIfAllIs) {
  EXPECT_EQ(Compare({1, kNan, 3}, {1, -kNan, 3}).kl_max, 0);
  EXPECT_EQ(Compare({1, kNan, 3}, {1, kNan, 3}).same_top1, 1);
  ExpectNoAgreement(Compare({1, kNan, 3}, {1, kNan, 4}));
}

TEST(Logits, ANanDoesNotHideInTheMean) {
  const std::vector<float> a = {1, 2, kNan, 2}, b = {1, 2, 1, 2};
  const LogitMetrics m = CompareLogits(View(a, {2, 2}), View(b, {2, 2}));
  EXPECT_EQ(m.kl_mean, kInf);
  EXPECT_EQ(m.kl_max_token, 1);
  EXPECT_EQ(m.same_top1, 1);
}

TEST(Logits, Infinities) {
  // -infinity is a token that can not come.
  EXPECT_EQ(Compare({0, -kInfF}, {0, -kInfF}).kl_max, 0);
  EXPECT_LT(Compare({0, 0, -kInfF}, {1, 1, -kInfF}).kl_max, 1e-15);
  EXPECT_EQ(Compare({0, 0}, {0, -kInfF}).kl_max, kInf);  // p > 0, q = 0
  EXPECT_EQ(Compare({0, -kInfF}, {0, 0}).kl_max, std::log(2.0));
  EXPECT_EQ(Compare({0, -3e38F}, {0, -kInfF}).kl_max, kInf);  // p underflows, and is not 0
  ExpectNoAgreement(Compare({kInfF, 0}, {1, 0}));
  ExpectNoAgreement(Compare({1, 0}, {kInfF, 0}));
  ExpectNoAgreement(Compare({-kInfF, -kInfF}, {0, 0}));
  ExpectNoAgreement(Compare({0, 0}, {-kInfF, -kInfF}));
  EXPECT_EQ(Compare({kInfF, 0}, {kInfF, 0}).kl_max, 0);
}

TEST(Logits, ZerosSubnormalsAndNegatives) {
  EXPECT_EQ(Compare({0.0F, -0.0F}, {-0.0F, 0.0F}).kl_max, 0);
  EXPECT_EQ(Compare({0.0F, -0.0F}, {-0.0F, 0.0F}).same_top1, 1);
  const LogitMetrics tiny = Compare({0x1p-149F, 0}, {0, 0x1p-149F});
  EXPECT_EQ(tiny.kl_max, 0);
  EXPECT_EQ(tiny.same_top1, 0);  // the order of the ids is another one all the same
  EXPECT_EQ(Compare({-1000, -2000}, {-2000, -1000}).same_top1, 0);
  EXPECT_EQ(Compare({-1000, -2000}, {-2000, -1000}).kl_max, 1000);
}

TEST(Logits, Empty) {
  const std::vector<float> none;
  for (const Shape& shape : {Shape{0}, Shape{0, 5}, Shape{5, 0}, Shape{0, 3, 4}}) {
    const LogitMetrics m = CompareLogits(View(none, shape), View(none, shape));
    EXPECT_EQ(m.tokens, 0);
    EXPECT_EQ(m.kl_mean, 0);
    EXPECT_EQ(m.kl_max, 0);
  }
}

}  // namespace
}  // namespace samebits
