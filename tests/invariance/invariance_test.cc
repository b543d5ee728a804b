// The promise of canonical arithmetic: every tensor, every logit and every chosen token has the
// same bits whatever the threads, the chunks of the prompt, the instruction set and the texts that
// are computed beside it, recorded or not, read at once or token by token, behind a prefix that was
// kept or computed. controls_test.cc shows that the comparison can fail.
// Each test prints a row of the table in docs/invariance.md. A part of all combinations, in which
// every pair of instruction set and chunk occurs; SAMEBITS_INVARIANCE=full makes it all of them.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <set>
#include <string>

#include "tests/invariance/fixtures.h"
#include "tests/invariance/runs.h"

namespace samebits {
namespace {

constexpr int64_t kSteps = 6, kPromptTokens = 23;

bool Full() {
  const char* value = std::getenv("SAMEBITS_INVARIANCE");
  return value != nullptr && std::string(value) == "full";
}

struct Model {
  const char* name;
  CheckpointSpec spec;
};

// Sizes that divide by no vector length; windows shorter than the prompt.
const Model kModels[] = {
    {"qwen2_bf16_tied", {.stored = DType::kBF16, .tied = true, .seed = 1}},
    {"qwen2_f32_window", {.stored = DType::kF32, .sliding_window = 7, .seed = 2}},
    // Rows of 1537 values: elementwise work is split, and sums of an odd length.
    {"qwen2_f16_wide",
     {.stored = DType::kF16, .num_hidden_layers = 1, .intermediate_size = 1537, .seed = 3}},
    {"llama_f32", {.model_type = "llama", .stored = DType::kF32, .seed = 5}},
    {"llama_bf16_llama3",
     {.model_type = "llama",
      .stored = DType::kBF16,
      .rope_scaling = R"({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                          "high_freq_factor": 4.0, "original_max_position_embeddings": 64})",
      .seed = 4}},
    {"qwen3_bf16", {.model_type = "qwen3", .stored = DType::kBF16, .head_dim = 18, .seed = 6}},
    {"qwen3_f16_yarn",
     {.model_type = "qwen3",
      .stored = DType::kF16,
      .head_dim = 34,
      .rope_scaling = R"({"rope_type": "yarn", "factor": 4.0,
                          "original_max_position_embeddings": 256})",
      .seed = 7}},
    {"mistral_bf16_window",
     {.model_type = "mistral",
      .stored = DType::kBF16,
      .head_dim = 14,
      .sliding_window = 5,
      .seed = 8}},
};
constexpr int kModelCount = static_cast<int>(std::size(kModels));

void PrintRow(const std::string& model, DType dtype, int64_t tokens, int64_t runs,
              int64_t compared) {
  fmt::print("| {} | {} | {} | {} | {} | {} |\n", model, ModelDTypeName(dtype), tokens, runs,
             compared, testing::Test::HasFailure() ? "SOME" : "0");
}

class Invariance : public testing::TestWithParam<std::tuple<int, DType>> {
 protected:
  const Model& model() const { return kModels[std::get<0>(GetParam())]; }
  DType dtype() const { return std::get<1>(GetParam()); }
  Subject subject() const { return opened_.In(dtype()); }

  // The interpreter, one thread, the prompt in one piece, recorded.
  void RunReference() {
    reference_ = RunWay(subject(), {}, prompt_, kSteps, true);
    const Outcome silent = RunWay(subject(), {}, prompt_, kSteps, false);
    EXPECT_EQ(silent.greedy, reference_.greedy);
    reference_.sampled = silent.sampled;
    reference_.sampled_logits = silent.sampled_logits;
    EXPECT_EQ(reference_.sampled.size(), static_cast<size_t>(kSteps));
    EXPECT_NE(reference_.sampled, reference_.greedy);
    for (const auto& [name, tensor] : reference_.tensors) {  // numbers, not all the same
      if (name.ends_with(".scores")) continue;               // hidden places hold anything
      std::set<double> different;
      for (double value : ToDoubles(tensor.view())) {
        ASSERT_TRUE(std::isfinite(value)) << name;
        different.insert(value);
      }
      EXPECT_GT(different.size(), 10U) << name;
    }
  }

  void CompareWay(const Way& way) {
    SCOPED_TRACE(
        fmt::format("{}, {} threads, chunks of {}", IsaName(way.isa), way.threads, way.chunk));
    const Outcome recorded = RunWay(subject(), way, prompt_, kSteps, true);
    compared_ += ExpectSameTensors(reference_, recorded);
    compared_ += ExpectSameLogits(reference_.logits, recorded.logits, dtype());
    EXPECT_EQ(reference_.greedy, recorded.greedy);
    ++runs_;
    if (way.chunk != 5) return;
    const Outcome silent = RunWay(subject(), way, prompt_, kSteps, false);
    compared_ += ExpectSameLogits(reference_.logits, silent.logits, dtype());
    compared_ += ExpectSameLogits(reference_.sampled_logits, silent.sampled_logits, dtype());
    EXPECT_EQ(reference_.greedy, silent.greedy);
    EXPECT_EQ(reference_.sampled, silent.sampled);
    ++runs_;
  }

  // Four texts at once, each as if it were alone; every other one recorded, and none.
  void CompareBatch(const Way& way) {
    SCOPED_TRACE(fmt::format("batch, {}, {} threads", IsaName(way.isa), way.threads));
    std::vector<std::vector<int64_t>> prompts = {prompt_};
    for (const int64_t tokens : {1, 9, 17}) {
      prompts.push_back(Prompt(tokens, model().spec.vocab_size, tokens));
    }
    const std::vector<Outcome> recorded = RunBatch(subject(), way, prompts, kSteps, true);
    const std::vector<Outcome> silent = RunBatch(subject(), way, prompts, kSteps, false);
    for (size_t i = 0; i < prompts.size(); ++i) {
      const Outcome alone =
          i == 0 ? Outcome{} : RunWay(subject(), {BestIsa()}, prompts[i], kSteps, true);
      const Outcome& expected = i == 0 ? reference_ : alone;
      if (i % 2 == 0) compared_ += ExpectSameTensors(expected, recorded[i]);
      for (const Outcome* outcome : {&recorded[i], &silent[i]}) {
        compared_ += ExpectSameLogits(expected.logits, outcome->logits, dtype());
        EXPECT_EQ(expected.greedy, outcome->greedy);
      }
    }
    runs_ += 2;
  }

  void ComparePrefix(const Way& way) {
    for (const int64_t kept : {1, 10, 22}) {
      SCOPED_TRACE(fmt::format("behind {} tokens, {}", kept, IsaName(way.isa)));
      std::vector<int64_t> other(prompt_.begin(), prompt_.begin() + kept);
      for (int64_t i = 0; i < 12; ++i) other.push_back((3 * i + 1) % model().spec.vocab_size);
      const Outcome outcome = RunBehindPrefix(subject(), way, other, kept, prompt_, kSteps);
      compared_ += ExpectSameTensors(reference_, outcome, kept);
      compared_ += ExpectSameLogits(reference_.logits, outcome.logits, dtype());
      EXPECT_EQ(reference_.greedy, outcome.greedy);
      ++runs_;
    }
  }

  const Opened opened_{model().spec};
  const std::vector<int64_t> prompt_ = Prompt(kPromptTokens, model().spec.vocab_size);
  Outcome reference_;
  int64_t runs_ = 0, compared_ = 0;
};

TEST_P(Invariance, EveryWay) {
  ASSERT_NO_FATAL_FAILURE(RunReference());
  size_t combination = 0;
  for (Isa isa : SupportedIsas()) {
    for (const int64_t chunk : {1, 5, 1000}) {
      for (size_t i = 0; i < std::size(kThreads); ++i) {
        if (!Full() && i != combination % std::size(kThreads)) continue;
        CompareWay({isa, kThreads[i], chunk});
        if (HasFailure()) return;
      }
      ++combination;
    }
    ++combination;
  }
  // What decoding computed with the cache is what reading all tokens at once gives.
  std::vector<int64_t> all = prompt_;
  all.insert(all.end(), reference_.greedy.begin(), reference_.greedy.end());
  for (Isa isa : SupportedIsas()) {
    if (!Full() && isa == Isa::kPortable) continue;
    compared_ += ExpectSameTensors(reference_, RunWay(subject(), {isa, 2}, all, 0, true));
    ++runs_;
    if (!Full() && isa != BestIsa()) continue;
    CompareBatch({isa, 3});
    ComparePrefix({isa, 2, 5});
  }
  PrintRow(model().name, dtype(), kPromptTokens + kSteps, runs_, compared_);
}

INSTANTIATE_TEST_SUITE_P(Models, Invariance,
                         testing::Combine(testing::Range(0, kModelCount),
                                          testing::ValuesIn(kDTypes)),
                         [](const auto& it) {
                           return fmt::format("{}_in_{}", kModels[std::get<0>(it.param)].name,
                                              ModelDTypeName(std::get<1>(it.param)));
                         });

// Long enough that norms, rotations and attention are split between threads, too, and that the
// cache has grown several times.
class LongPrompt : public testing::TestWithParam<std::tuple<bool, DType>> {};

TEST_P(LongPrompt, ThreadsChunksInstructionSets) {
  const auto [window, dtype] = GetParam();
  CheckpointSpec spec{.stored = DType::kBF16, .num_hidden_layers = 1, .seed = 6};
  if (window) {
    spec.model_type = "mistral";
    spec.sliding_window = 101;
  }
  const Opened opened(spec);
  constexpr int64_t kTokens = 601;
  const std::vector<int64_t> prompt = Prompt(kTokens, spec.vocab_size);
  const auto run = [&, dtype = dtype](const Way& way) {
    return RunWay(opened.In(dtype), way, prompt, 1, true);
  };
  const Outcome reference = run({BestIsa(), 1, 97});
  int64_t runs = 0, compared = 0;
  const auto compare = [&, dtype = dtype](const Way& way) {
    SCOPED_TRACE(
        fmt::format("{}, {} threads, chunks of {}", IsaName(way.isa), way.threads, way.chunk));
    const Outcome outcome = run(way);
    compared += ExpectSameTensors(reference, outcome);
    compared += ExpectSameLogits(reference.logits, outcome.logits, dtype);
    EXPECT_EQ(reference.greedy, outcome.greedy);
    ++runs;
  };
  for (int threads : kThreads) compare({BestIsa(), threads, 1000});
  for (Isa isa : SupportedIsas()) compare({isa, 3, 500});
  PrintRow(window ? "mistral_bf16_long_window" : "qwen2_bf16_long", dtype, kTokens + 1, runs,
           compared);
}

INSTANTIATE_TEST_SUITE_P(DTypes, LongPrompt,
                         testing::Combine(testing::Bool(), testing::ValuesIn(kDTypes)),
                         [](const auto& it) {
                           return fmt::format("{}{}", std::get<0>(it.param) ? "window_" : "",
                                              ModelDTypeName(std::get<1>(it.param)));
                         });

TEST(InstructionSets, AllOnThisCpu) {
  std::string missing;
  for (Isa isa : kIsas) {
    if (!IsaSupported(isa)) missing += fmt::format(" {}", IsaName(isa));
  }
  if (!missing.empty()) GTEST_SKIP() << "this CPU lacks" << missing << ": not compared";
}

}  // namespace
}  // namespace samebits
