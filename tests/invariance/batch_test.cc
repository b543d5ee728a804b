// Answers of a batch against those of each prompt alone, and perplexities: the same for any batch,
// chunk and number of threads.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <set>

#include "samebits/engine/batch_generate.h"
#include "samebits/evaluate/perplexity.h"
#include "tests/invariance/fixtures.h"
#include "tests/invariance/runs.h"

namespace samebits {
namespace {

// Prompts of many lengths with a common beginning; answers end at a stop token or a limit.
std::vector<BatchPrompt> Prompts(int64_t count) {
  std::vector<BatchPrompt> prompts;
  for (int64_t i = 0; i < count; ++i) {
    std::vector<int64_t> ids = Prompt(17, 131);
    const std::vector<int64_t> more = Prompt(1 + i * 7 % 23, 131, i + 1);
    ids.insert(ids.end(), more.begin(), more.end());
    prompts.push_back({ids, DerivedSeed(5, static_cast<uint64_t>(i))});
  }
  return prompts;
}

void CompareWithOneByOne(const CheckpointSpec& spec) {
  const Opened opened(spec);
  const std::vector<BatchPrompt> prompts = Prompts(21);
  EXPECT_GE(SharedPrefix(prompts), 17);
  BatchOptions options;
  options.generation.sampling.temperature = 100;
  options.generation.max_tokens = 24;
  options.generation.max_length = 1024;
  options.generation.stop_ids = {3, 17, 40, 55, 71, 90, 101, 120};
  options.generation.top_log_probs = 2;
  std::vector<Generation> alone;
  Runtime runtime(opened.graph, opened.checkpoint, {DType::kBF16, BestIsa(), 1});
  std::set<size_t> lengths;
  for (const BatchPrompt& prompt : prompts) {
    Sequence sequence = runtime.NewSequence();
    GenerationOptions one = options.generation;
    one.sampling.seed = prompt.seed;
    alone.push_back(Generate(runtime, sequence, prompt.ids, nullptr, one));
    lengths.insert(alone.back().ids.size());
  }
  EXPECT_GT(lengths.size(), 5U) << "answers that end at different times";
  for (const int threads : {1, 2}) {
    Runtime other(opened.graph, opened.checkpoint, {DType::kBF16, BestIsa(), threads});
    for (const int64_t batch : {1, 3, 16}) {
      for (const int64_t chunk : {4, 512}) {
        for (const bool share : {false, true}) {
          options.batch = batch;
          options.generation.chunk = chunk;
          options.share_prefix = share;
          size_t seen = 0;
          BatchEvents events;
          events.done = [&](size_t n, const Generation& answer) {
            ++seen;
            EXPECT_EQ(answer.ids, alone[n].ids);
            EXPECT_EQ(answer.stop_reason, alone[n].stop_reason);
            EXPECT_EQ(answer.decode_steps, alone[n].decode_steps);
            for (size_t i = 0; i < answer.log_probs.size(); ++i) {
              EXPECT_EQ(answer.log_probs[i].chosen, alone[n].log_probs[i].chosen);
            }
          };
          EXPECT_TRUE(GenerateBatch(other, prompts, nullptr, options, events));
          EXPECT_EQ(seen, prompts.size());
        }
      }
    }
  }
}

TEST(BatchGenerate, EachAnswerIsWhatItIsAlone) {
  CompareWithOneByOne({.stored = DType::kBF16, .tied = true, .seed = 1});
}

// The length of a prompt changes the bits of its beginning: the shared one can not be taken.
TEST(BatchGenerate, RotaryEmbeddingsThatDependOnTheLength) {
  CompareWithOneByOne({.stored = DType::kBF16,
                       .max_position_embeddings = 20,
                       .rope_scaling = R"({"rope_type": "dynamic", "factor": 60.0})",
                       .seed = 2});
}

TEST(BatchGenerate, SharedPrefix) {
  EXPECT_EQ(SharedPrefix({}), 0);
  const std::vector<BatchPrompt> same = {{{1, 2, 3}, 0}, {{1, 2, 3}, 0}};
  EXPECT_EQ(SharedPrefix(same), 2);  // a token is left to be read
  const std::vector<BatchPrompt> inside = {{{1, 2, 3, 4}, 0}, {{1, 2}, 0}};
  EXPECT_EQ(SharedPrefix(inside), 1);
  const std::vector<BatchPrompt> none = {{{1, 2}, 0}, {{2, 2}, 0}};
  EXPECT_EQ(SharedPrefix(none), 0);
}

TEST(BatchGenerate, AnInterruptionDropsWhatIsNotDone) {
  const Opened opened({.stored = DType::kBF16, .seed = 1});
  Runtime runtime(opened.graph, opened.checkpoint, {DType::kBF16, BestIsa(), 1});
  std::atomic<bool> interrupted = false;
  size_t done = 0;
  BatchOptions options;
  options.batch = 4;
  options.generation.max_tokens = 5;
  options.generation.max_length = 1024;
  BatchEvents events;
  events.interrupted = &interrupted;
  events.done = [&](size_t, const Generation& answer) {
    EXPECT_NE(answer.stop_reason, StopReason::kInterrupted);
    interrupted = ++done >= 4;
  };
  EXPECT_FALSE(GenerateBatch(runtime, Prompts(9), nullptr, options, events));
  EXPECT_EQ(done, 4U);
}

TEST(Perplexity, AnyChunkAndThreads) {
  const Opened opened({.stored = DType::kBF16, .seed = 1});
  const std::vector<int64_t> ids = Prompt(50, 131);
  std::vector<double> values;
  for (const int threads : {1, 2}) {
    Runtime runtime(opened.graph, opened.checkpoint, {DType::kBF16, BestIsa(), threads});
    for (const int64_t chunk : {1, 7, 128}) {
      const PerplexityResult result = MeasurePerplexity(runtime, ids, {20, 10, chunk}, nullptr);
      EXPECT_EQ(result.scored, 49);
      EXPECT_EQ(result.windows, 4);
      values.push_back(result.mean_nll);
    }
  }
  for (const double value : values) EXPECT_EQ(value, values[0]);
}

// As the engine itself gives it, token by token with the context of the rule.
TEST(Perplexity, Windows) {
  const Opened opened({.stored = DType::kF32, .seed = 1});
  Runtime runtime(opened.graph, opened.checkpoint, {DType::kF32, BestIsa(), 1});
  const std::vector<int64_t> ids = Prompt(30, 131);
  const int64_t window = 8;
  for (const int64_t stride : {1, 3, 7, 8}) {
    double sum = 0;
    int64_t count = 0;
    for (int64_t token = 1; token < 30; ++token) {
      int64_t begin = 0;  // of the first window that ends behind the token
      while (begin + window <= token) begin += stride;
      if (begin == token) continue;
      Sequence sequence = runtime.NewSequence();
      const TensorView& logits =
          runtime.Forward(sequence, std::span(ids).subspan(begin, token - begin));
      sum -= TokenLogProbs(logits, ids[static_cast<size_t>(token)], 0).chosen;
      ++count;
    }
    const PerplexityResult result = MeasurePerplexity(runtime, ids, {window, stride}, nullptr);
    EXPECT_EQ(result.scored, count) << stride;
    EXPECT_NEAR(result.mean_nll, sum / static_cast<double>(count), 1e-6) << stride;  // sampler.h
    EXPECT_EQ(result.perplexity, std::exp(result.mean_nll));
  }
}

TEST(Perplexity, NaNIsNoAgreement) {
  const Opened opened({.stored = DType::kF32, .seed = 1});
  Runtime runtime(opened.graph, opened.checkpoint, {DType::kF32, BestIsa(), 1});
  const std::vector<int64_t> ids = Prompt(10, 131);
  Sequence sequence = runtime.NewSequence();
  std::vector<float> recorded;
  for (const int64_t& id : ids) {
    const TensorView& logits = runtime.Forward(sequence, std::span(&id, 1));
    const auto* values = reinterpret_cast<const float*>(logits.data);
    recorded.insert(recorded.end(), values, values + 131);
  }
  TensorView view;
  view.dtype = DType::kF32;
  view.shape = {10, 131};
  view.data = reinterpret_cast<const std::byte*>(recorded.data());
  PerplexityResult result = MeasurePerplexity(runtime, ids, {10, 5}, &view);
  EXPECT_EQ(result.against->tokens, 10);
  EXPECT_EQ(result.against->same_top, 10);
  EXPECT_EQ(result.against->kl_max, 0);
  EXPECT_EQ(result.against->kl_max_token, -1);
  recorded[3 * 131 + 7] = std::numeric_limits<float>::quiet_NaN();
  result = MeasurePerplexity(runtime, ids, {10, 5}, &view);
  EXPECT_EQ(result.against->same_top, 9);
  EXPECT_EQ(result.against->kl_max_token, 3);
  EXPECT_EQ(result.against->kl_mean, std::numeric_limits<double>::infinity());
  EXPECT_EQ(result.against->kl_median, 0);
  EXPECT_EQ(result.without_softmax, 0);
}

// NaN on both sides, from a weight.
TEST(Perplexity, NaNOnBothSidesIsNoAgreement) {
  const Opened opened({.stored = DType::kF32, .seed = 1});
  std::vector<float> norm(72, std::numeric_limits<float>::quiet_NaN());
  TensorView weight;
  weight.dtype = DType::kF32;
  weight.shape = {72};
  weight.data = reinterpret_cast<const std::byte*>(norm.data());
  RuntimeOptions options{DType::kF32, BestIsa(), 1};
  options.weights["model.norm.weight"] = weight;
  Runtime runtime(opened.graph, opened.checkpoint, options);
  const std::vector<int64_t> ids = Prompt(4, 131);
  std::vector<float> recorded(4 * 131, std::numeric_limits<float>::quiet_NaN());
  TensorView view;
  view.dtype = DType::kF32;
  view.shape = {4, 131};
  view.data = reinterpret_cast<const std::byte*>(recorded.data());
  const PerplexityResult result = MeasurePerplexity(runtime, ids, {4, 2}, &view);
  EXPECT_EQ(result.against->same_top, 0);
  EXPECT_EQ(result.against->kl_median, std::numeric_limits<double>::infinity());
  EXPECT_EQ(result.without_softmax, 3);
  EXPECT_EQ(result.perplexity, std::numeric_limits<double>::infinity());
}

TEST(Perplexity, Quantiles) {
  const std::vector<double> values = {1, 2, 3, 4};
  EXPECT_EQ(Quantile(values, 0.5), 2);
  EXPECT_EQ(Quantile(values, 0.25), 1);
  EXPECT_EQ(Quantile(values, 0.26), 2);
  EXPECT_EQ(Quantile(values, 0.999), 4);
  EXPECT_EQ(Quantile(values, 1e-9), 1);
}

}  // namespace
}  // namespace samebits
