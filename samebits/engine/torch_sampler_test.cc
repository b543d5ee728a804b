// Tokens and processed logits against what transformers' processors and torch.multinomial gave
// (tests/fixtures/make_torch_sampling.py), and the rules that a table of tokens does not spell out.
#include "samebits/engine/torch_sampler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <limits>

#include "samebits/base/error.h"
#include "samebits/numerics/torch_testing.h"
#include "samebits/tensor/convert.h"

namespace samebits {
namespace {

using testing::ElementsAre;

constexpr float kInf = std::numeric_limits<float>::infinity();
const SoftmaxFunction kSoftmax = {.lanes = 8, .exp = torch_math::Exp::kSleefU10, .proof = {}};
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

TensorView View(const std::vector<float>& row) {
  return {DType::kF32,
          {1, static_cast<int64_t>(row.size())},
          reinterpret_cast<const std::byte*>(row.data())};
}

int64_t Greedy(const std::vector<float>& row, double penalty = 1,
               const std::vector<int64_t>& context = {}) {
  return TorchSampler({.repetition_penalty = penalty}, kSoftmax).Next(View(row), context);
}

// The processed logits, -infinity where something was removed.
std::vector<float> Scores(const std::vector<float>& row, const SamplingOptions& options,
                          const std::vector<int64_t>& context = {}) {
  TorchSampler sampler(options, kSoftmax);
  sampler.Next(View(row), context);
  return {sampler.scores().begin(), sampler.scores().end()};
}

SamplingOptions Options(const Json& settings, uint64_t seed) {
  return {.temperature = settings["temperature"].get<double>(),
          .top_k = settings["top_k"].get<int64_t>(),
          .top_p = settings["top_p"].get<double>(),
          .min_p = settings["min_p"].get<double>(),
          .repetition_penalty = settings["repetition_penalty"].get<double>(),
          .seed = seed};
}

// Returns how many tokens were compared.
int64_t CompareGeneration(const Json& recorded, int64_t rows, int64_t context_length,
                          const SoftmaxFunction& softmax) {
  const auto vocabulary = recorded["vocabulary"].get<int64_t>();
  const auto seed = recorded["seed"].get<uint64_t>();
  const std::vector<float> logits =
      MakeTorchLogits(recorded["kind"].get<std::string>(), seed, rows * vocabulary);
  std::vector<int64_t> context;
  for (int64_t i = 0; i < context_length; ++i) context.push_back(i * i % vocabulary);
  TorchSampler sampler(Options(recorded["settings"], seed), softmax);
  for (int64_t row = 0; row < rows; ++row) {
    const auto begin = logits.begin() + row * vocabulary;
    const std::vector<float> one(begin, begin + vocabulary);
    context.push_back(sampler.Next(View(one), context));
    EXPECT_EQ(context.back(), recorded["tokens"][row].get<int64_t>()) << recorded.dump();
    EXPECT_EQ(HashOf<float>(sampler.scores()), recorded["scores"][row].get<std::string>())
        << recorded.dump();
  }
  return rows;
}

TEST(TorchSampler, TokensAndScoresOfTransformers) {
  const Json tokens = LoadTorchFixture("tokens.json");
  SoftmaxFunction softmax = kSoftmax;
  softmax.lanes = LoadTorchFixture("manifest.json")["lanes"].get<int64_t>();
  int64_t compared = 0;
  for (const Json& recorded : tokens["cases"]) {
    compared += CompareGeneration(recorded, tokens["rows"].get<int64_t>(),
                                  tokens["context"].get<int64_t>(), softmax);
  }
  EXPECT_EQ(compared, 1100);
}

TEST(TorchSampler, GreedyIsArgmax) {
  EXPECT_EQ(Greedy({1, 5, 2, 5, 5}), 1);
  EXPECT_EQ(Greedy({-0.0F, 0.0F}), 0);
  EXPECT_EQ(Greedy({1, kInf, kInf}), 1);
  EXPECT_EQ(Greedy({-kInf, -kInf}), 0);
  EXPECT_EQ(Greedy({1, kInf, kNan, 3, kNan}), 2);  // as torch.argmax
}

TEST(TorchSampler, PenaltyOncePerTokenInFp32) {
  EXPECT_EQ(Greedy({2, 1.9F}, 1.1, {0}), 1);
  EXPECT_EQ(Greedy({-2, -2.1F}, 1.1, {0, 0, 0}), 1);
  // ids outside of the vocabulary do not count
  EXPECT_THAT(Scores({3, -3, 0, -0.0F}, {.temperature = 1, .repetition_penalty = 1.5},
                     {0, 1, 1, 0, 2, -7, 4, int64_t{1} << 40}),
              ElementsAre(2, -4.5F, 0, -0.0F));
  EXPECT_EQ(Scores({0.7F, 0}, {.temperature = 1, .repetition_penalty = 1.05}, {0})[0],
            0.7F / 1.05F);
}

TEST(TorchSampler, TopKKeepsTiesOfTheLast) {
  EXPECT_THAT(Scores({1, 3, 2, 2, 0}, {.temperature = 1, .top_k = 2}),
              ElementsAre(-kInf, 3, 2, 2, -kInf));
  EXPECT_THAT(Scores({1, 3}, {.temperature = 1, .top_k = 7}), ElementsAre(1, 3));
}

TEST(TorchSampler, TopPCutsBetweenEqualValues) {
  // Four quarters: the sum of the first is 0.25, which 1 - 0.75 removes; of equal ones up to 16
  // torch.sort keeps the order.
  EXPECT_THAT(Scores({1, 1, 1, 1}, {.temperature = 1, .top_p = 0.75}), ElementsAre(-kInf, 1, 1, 1));
  EXPECT_THAT(Scores({1, 1, 1, 1}, {.temperature = 1, .top_p = 0}),
              ElementsAre(-kInf, -kInf, -kInf, 1));
  EXPECT_THAT(Scores({0, 9, 0}, {.temperature = 1, .top_p = 0.5}), ElementsAre(-kInf, 9, -kInf));
}

TEST(TorchSampler, MinP) {
  EXPECT_THAT(Scores({0, 1, -5}, {.temperature = 1, .min_p = 0.1}), ElementsAre(0, 1, -kInf));
  EXPECT_THAT(Scores({0, 1, 1}, {.temperature = 1, .min_p = 1}), ElementsAre(-kInf, 1, 1));
}

TEST(TorchSampler, HalfPrecisionIsWidened) {
  const std::vector<float> values = MakeTorchLogits("coarse", 3, 100);
  for (const DType dtype : {DType::kBF16, DType::kF16}) {
    Tensor logits(dtype, {1, 100});
    for (int i = 0; i < 100; ++i) {
      logits.as<uint16_t>()[i] =
          dtype == DType::kBF16 ? FloatToBF16(values[i]) : FloatToF16(values[i]);
    }
    TorchSampler half({.temperature = 1, .seed = 9}, kSoftmax),
        full({.temperature = 1, .seed = 9}, kSoftmax);
    for (int i = 0; i < 20; ++i) {
      ASSERT_EQ(half.Next(logits.view(), {}), full.Next(View(values), {}));
    }
  }
}

template <typename Action>
ErrorCode CodeOf(const Action& action, const std::string& words) {
  try {
    action();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr(words));
    return error.code();
  }
  ADD_FAILURE() << "no error: " << words;
  return ErrorCode::kIo;
}

TEST(TorchSampler, LogitsWithoutProbabilities) {
  for (const std::vector<float>& row :
       std::vector<std::vector<float>>{{1, kNan, 2}, {kInf, 1}, {-kInf, -kInf}, {3e38F, 1}}) {
    for (const SamplingOptions& options :
         std::vector<SamplingOptions>{{.temperature = 0.5},
                                      {.temperature = 0.5, .top_k = 1},
                                      {.temperature = 0.5, .top_p = 0.5}}) {
      EXPECT_EQ(
          CodeOf([&] { TorchSampler(options, kSoftmax).Next(View(row), {}); }, "largest logit"),
          ErrorCode::kBadInput);
    }
  }
}

TEST(TorchSampler, OptionsThatTransformersRejects) {
  const auto reject = [](const SamplingOptions& options, const std::string& name) {
    EXPECT_EQ(CodeOf([&] { TorchSampler(options, kSoftmax); }, name), ErrorCode::kUsage);
  };
  reject({.temperature = -1}, "temperature is -1");
  reject({.temperature = std::numeric_limits<double>::quiet_NaN()}, "temperature is nan");
  reject({.top_k = -1}, "top_k is -1");
  reject({.top_p = 1.5}, "top_p is 1.5");
  reject({.min_p = -0.5}, "min_p is -0.5");
  reject({.repetition_penalty = 0}, "repetition_penalty is 0");
}

}  // namespace
}  // namespace samebits
