// Sampling: ties, NaN, the sets that top-k and top-p leave, the numbers behind a seed, and the
// frequencies against the exact probabilities.
#include "samebits/engine/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <set>

#include "samebits/base/error.h"
#include "samebits/tensor/convert.h"

namespace samebits {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

Tensor Logits(const std::vector<float>& values) {
  Tensor tensor(DType::kF32, {1, static_cast<int64_t>(values.size())});
  std::memcpy(tensor.data(), values.data(), values.size() * sizeof(float));
  return tensor;
}

int64_t Sample(const std::vector<float>& values, const SamplingOptions& options, int64_t step = 0) {
  return SampleToken(Logits(values).view(), options, step);
}

// Tokens that `steps` draws give.
std::set<int64_t> Drawn(const std::vector<float>& values, const SamplingOptions& options,
                        int64_t steps = 2000) {
  const Tensor logits = Logits(values);
  std::set<int64_t> tokens;
  for (int64_t step = 0; step < steps; ++step) {
    tokens.insert(SampleToken(logits.view(), options, step));
  }
  return tokens;
}

TEST(Greedy, TheFirstOfEqualLogitsWins) {
  EXPECT_EQ(Sample({1, 5, 2, 5, 5}, {}), 1);
  EXPECT_EQ(Sample({0.0F, -0.0F}, {}), 0);
  EXPECT_EQ(Sample({-0.0F, 0.0F}, {}), 0);
  EXPECT_EQ(Sample({-3, -2, -7}, {}), 1);
}

TEST(Greedy, SeedAndStepDoNotMatter) {
  for (int64_t step = 0; step < 50; ++step) {
    EXPECT_EQ(Sample({1, 2, 3, 2}, {.seed = static_cast<uint64_t>(step)}, step), 2);
  }
}

TEST(Greedy, NanNeverWins) {
  EXPECT_EQ(Sample({kNan, 1, kNan, 3, kNan}, {}), 3);
  EXPECT_EQ(Sample({kNan, -kInf}, {}), 1);
  EXPECT_EQ(Sample({-kNan, -5}, {}), 1);
}

TEST(Greedy, Infinities) {
  EXPECT_EQ(Sample({1, kInf, kInf, 2}, {}), 1);
  EXPECT_EQ(Sample({-kInf, -kInf}, {}), 0);
}

TEST(Greedy, HalfPrecision) {
  for (DType dtype : {DType::kBF16, DType::kF16}) {
    Tensor logits(dtype, {1, 3});
    const std::vector<float> values = {1.0F, 1.5F, -2.0F};
    for (int i = 0; i < 3; ++i) {
      logits.as<uint16_t>()[i] =
          dtype == DType::kBF16 ? FloatToBF16(values[i]) : FloatToF16(values[i]);
    }
    EXPECT_EQ(SampleToken(logits.view(), {}, 0), 1);
  }
}

TEST(Sampling, OnlyNanIsAnError) {
  for (double temperature : {0.0, 1.0}) {
    try {
      Sample({kNan, kNan}, {.temperature = temperature});
      FAIL() << "a token was chosen";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kBadInput);
    }
  }
}

TEST(Sampling, NanIsNeverDrawn) {
  EXPECT_EQ(Drawn({kNan, 1, kNan, 1.5F, kNan}, {.temperature = 2}), (std::set<int64_t>{1, 3}));
}

TEST(Sampling, InfiniteLogits) {
  EXPECT_EQ(Drawn({1, kInf, 2}, {.temperature = 1}), std::set<int64_t>{1});
  EXPECT_EQ(Drawn({1, -kInf, 1}, {.temperature = 1}), (std::set<int64_t>{0, 2}));
  EXPECT_EQ(Drawn({-kInf, -kInf}, {.temperature = 1}), std::set<int64_t>{0});
}

TEST(Sampling, ExtremeTemperatures) {
  EXPECT_EQ(Drawn({1, 2, 1.999F}, {.temperature = 1e-300}), std::set<int64_t>{1});
  EXPECT_EQ(Drawn({1, 2, -300}, {.temperature = 1e300}), (std::set<int64_t>{0, 1, 2}));
}

TEST(Sampling, TopKKeepsTheLikeliest) {
  const std::vector<float> logits = {0.1F, 0.4F, 0.2F, 0.4F, 0.3F};
  EXPECT_EQ(Drawn(logits, {.temperature = 1, .top_k = 1}), std::set<int64_t>{1});
  EXPECT_EQ(Drawn(logits, {.temperature = 1, .top_k = 2}), (std::set<int64_t>{1, 3}));
  EXPECT_EQ(Drawn(logits, {.temperature = 1, .top_k = 3}), (std::set<int64_t>{1, 3, 4}));
  for (int64_t all : {0, 5, 6, 1000}) {
    EXPECT_EQ(Drawn(logits, {.temperature = 1, .top_k = all}).size(), 5U) << all;
  }
}

TEST(Sampling, TopPKeepsTheSmallestSetThatReachesIt) {
  // Four equal weights of exactly 1: the sums are exact.
  const std::vector<float> equal = {3, 3, 3, 3};
  const auto count = [&](double p) { return Drawn(equal, {.temperature = 1, .top_p = p}).size(); };
  EXPECT_EQ(count(0.0), 1U);
  EXPECT_EQ(count(0.25), 1U);
  EXPECT_EQ(count(0.2500001), 2U);
  EXPECT_EQ(count(0.5), 2U);
  EXPECT_EQ(count(0.75), 3U);
  EXPECT_EQ(count(0.7500001), 4U);
  EXPECT_EQ(count(1.0), 4U);
  // Probabilities about 0.64, 0.24, 0.09, 0.03.
  EXPECT_EQ(Drawn({1, 3, 2, 0}, {.temperature = 1, .top_p = 0.7}), (std::set<int64_t>{1, 2}));
  EXPECT_EQ(Drawn({1, 3, 2, 0}, {.temperature = 1, .top_p = 0.9}), (std::set<int64_t>{0, 1, 2}));
  // top-k first, then top-p of what it left: 0.73 of the two.
  EXPECT_EQ(Drawn({1, 3, 2, 0}, {.temperature = 1, .top_k = 2, .top_p = 0.7}),
            std::set<int64_t>{1});
}

// With 1000 equal logits the token is floor(1000 u), u = SplitMix64(SplitMix64(seed) + step) / 2^64
// cut to 53 bits. The numbers come from an implementation in Python.
TEST(Sampling, TheNumbersBehindASeed) {
  const Tensor logits = Logits(std::vector<float>(1000, 2.5F));
  const auto draw = [&](uint64_t seed) {
    std::vector<int64_t> tokens;
    for (int64_t step = 0; step < 8; ++step) {
      tokens.push_back(SampleToken(logits.view(), {.temperature = 0.7, .seed = seed}, step));
    }
    return tokens;
  };
  EXPECT_EQ(draw(0), (std::vector<int64_t>{652, 166, 509, 975, 370, 48, 957, 70}));
  EXPECT_EQ(draw(1), (std::vector<int64_t>{368, 526, 737, 692, 870, 465, 189, 199}));
  EXPECT_EQ(draw(42), (std::vector<int64_t>{343, 977, 446, 414, 570, 818, 922, 992}));
  EXPECT_EQ(draw(~uint64_t{0}), (std::vector<int64_t>{366, 407, 319, 11, 10, 208, 906, 101}));
}

// Pearson's statistic of counts against probabilities.
double ChiSquare(const std::vector<int64_t>& counts, const std::vector<double>& p, int64_t n) {
  double sum = 0;
  for (size_t i = 0; i < p.size(); ++i) {
    const double expected = p[i] * static_cast<double>(n);
    const double difference = static_cast<double>(counts[i]) - expected;
    sum += difference * difference / expected;
  }
  return sum;
}

// A chi-square variable of k degrees of freedom exceeds this with a probability below 1e-9: it is
// above k + 2 sqrt(k x) + 2 x with at most e^-x (Laurent and Massart 2000, lemma 1), x = ln 1e9.
double ChiSquareBound(double k) {
  const double x = std::log(1e9);
  return k + 2 * std::sqrt(k * x) + 2 * x;
}

std::vector<double> Softmax(const std::vector<float>& logits, double temperature) {
  std::vector<double> p;
  double total = 0;
  for (float logit : logits) {
    p.push_back(std::exp(static_cast<double>(logit) / temperature));
    total += p.back();
  }
  for (double& value : p) value /= total;
  return p;
}

const std::vector<float> kSpread = {0.3F, -1.2F, 2.0F, 0.0F, 1.1F, -0.4F, 2.0F, -2.5F};
constexpr int64_t kDraws = 100000;

// One seed, many steps; or one step of many seeds.
std::vector<int64_t> Count(const SamplingOptions& options, bool over_seeds) {
  const Tensor logits = Logits(kSpread);
  std::vector<int64_t> counts(kSpread.size());
  SamplingOptions how = options;
  for (int64_t i = 0; i < kDraws; ++i) {
    if (over_seeds) how.seed = static_cast<uint64_t>(i);
    ++counts[static_cast<size_t>(SampleToken(logits.view(), how, over_seeds ? 3 : i))];
  }
  return counts;
}

TEST(Sampling, FrequenciesAreTheProbabilities) {
  for (double temperature : {0.7, 1.0, 3.0}) {
    const std::vector<double> p = Softmax(kSpread, temperature);
    for (bool over_seeds : {false, true}) {
      const std::vector<int64_t> counts =
          Count({.temperature = temperature, .seed = 11}, over_seeds);
      EXPECT_LT(ChiSquare(counts, p, kDraws), ChiSquareBound(7))
          << "temperature " << temperature << (over_seeds ? ", over seeds" : ", over steps");
    }
  }
}

// The bound is of use: a temperature that is off by 5 % exceeds it.
TEST(Sampling, AWrongTemperatureShows) {
  const std::vector<int64_t> counts = Count({.temperature = 1.05, .seed = 11}, false);
  EXPECT_GT(ChiSquare(counts, Softmax(kSpread, 1.0), kDraws), ChiSquareBound(7));
}

TEST(Sampling, TopKFrequenciesAreRenormalised) {
  const std::vector<int64_t> counts = Count({.temperature = 1, .top_k = 3, .seed = 5}, false);
  const std::vector<double> p = Softmax({2.0F, 2.0F, 1.1F}, 1.0);
  EXPECT_EQ(counts[2] + counts[6] + counts[4], kDraws);
  EXPECT_LT(ChiSquare({counts[2], counts[6], counts[4]}, p, kDraws), ChiSquareBound(2));
}

// min-p is a share of the likeliest token's probability: e^-1 = 0.37, e^-2 = 0.14 of it.
TEST(Sampling, MinPKeepsWhatIsLikelyEnough) {
  const std::vector<float> logits = {1, 3, 2, 0};
  const auto drawn = [&](SamplingOptions options) {
    options.temperature = 1;
    return Drawn(logits, options);
  };
  EXPECT_EQ(drawn({.min_p = 0.4}), std::set<int64_t>{1});
  EXPECT_EQ(drawn({.min_p = 0.3}), (std::set<int64_t>{1, 2}));
  EXPECT_EQ(drawn({.min_p = 0.1}), (std::set<int64_t>{0, 1, 2}));
  EXPECT_EQ(drawn({.min_p = 1}), std::set<int64_t>{1});
  EXPECT_EQ(drawn({.min_p = 0}).size(), 4U);
  // top-p sees the probabilities before min-p cuts: 0.64 + 0.24 + 0.09 reach 0.9 only with three.
  EXPECT_EQ(drawn({.top_p = 0.9, .min_p = 0.3}), (std::set<int64_t>{1, 2}));
}

TEST(RepetitionPenalty, LowersWhatStandsInTheContext) {
  const SamplingOptions options{.repetition_penalty = 2};
  const auto pick = [&](const std::vector<float>& logits, const std::vector<int64_t>& context) {
    return SampleToken(Logits(logits).view(), options, 0, context);
  };
  EXPECT_EQ(pick({3, 4, 1}, {}), 1);
  EXPECT_EQ(pick({3, 4, 1}, {1}), 0);
  EXPECT_EQ(pick({3, 4, 1}, {1, 1, 1, 1}), 0) << "a token counts once";
  EXPECT_EQ(pick({3, 4, 2.5F}, {1, 0}), 2);
  EXPECT_EQ(pick({-3, -4, -5}, {0}), 1) << "a negative logit is multiplied";
  EXPECT_EQ(pick({3, 4, 1}, {-1, 3, 1000000}), 1) << "ids that the logits do not have";
  EXPECT_EQ(SampleToken(Logits({3, 4, 1}).view(), {}, 0, std::vector<int64_t>{1}), 1) << "off";
}

TEST(LogProbs, AreTheLogarithmOfTheSoftmax) {
  const std::vector<double> p = Softmax(kSpread, 1.0);
  const Tensor logits = Logits(kSpread);
  const LogProbs probs = TokenLogProbs(logits.view(), 4, 3);
  // The bound of the header.
  EXPECT_NEAR(probs.chosen, std::log(p[4]), 1e-6);
  ASSERT_EQ(probs.top.size(), 3U);
  EXPECT_EQ(probs.top[0].id, 2);
  EXPECT_EQ(probs.top[1].id, 6);
  EXPECT_EQ(probs.top[2].id, 4);
  EXPECT_EQ(probs.top[2].value, probs.chosen);
  EXPECT_NEAR(probs.top[0].value, std::log(p[2]), 1e-6);
  EXPECT_EQ(TokenLogProbs(logits.view(), 0, 1000).top.size(), kSpread.size());
  EXPECT_TRUE(TokenLogProbs(logits.view(), 0, 0).top.empty());
}

TEST(LogProbs, NanAndInfinities) {
  const LogProbs nan = TokenLogProbs(Logits({kNan, 0, 0}).view(), 1, 3);
  EXPECT_NEAR(nan.chosen, std::log(0.5), 1e-6);
  EXPECT_EQ(nan.top[2].id, 0);
  EXPECT_EQ(nan.top[2].value, -kInf);
  const LogProbs infinite = TokenLogProbs(Logits({kInf, 0}).view(), 1, 2);
  EXPECT_EQ(infinite.chosen, -kInf);
  EXPECT_EQ(infinite.top[0].value, 0);
}

}  // namespace
}  // namespace samebits
