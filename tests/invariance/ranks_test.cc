// The same bits on any number of ranks: tensors, logits and chosen tokens of every split of every
// architecture, in one piece and in chunks, of one sequence and of several, with exchanges that
// overlap the computing and without, against one rank.
// Ranks are threads of this process (local_ranks.h). Each test prints a row of the table in
// docs/scaling.md.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <mutex>

#include "samebits/base/error.h"
#include "samebits/graph/parallel.h"
#include "tests/invariance/fixtures.h"
#include "tests/invariance/local_ranks.h"
#include "tests/invariance/runs.h"

namespace samebits {
namespace {

struct Model {
  const char* name;
  CheckpointSpec spec;
};

// 14 query heads on 2 KV heads and 7 on 7: with 3 or 4 ranks no range of heads ends where a group
// ends. Sizes that divide by nothing.
const Model kModels[] = {
    {"qwen2",
     {.stored = DType::kBF16,
      .tied = true,
      .num_hidden_layers = 3,
      .hidden_size = 84,
      .num_attention_heads = 14,
      .num_key_value_heads = 2,
      .head_dim = 6,
      .seed = 1}},
    {"llama",
     {.model_type = "llama",
      .stored = DType::kF32,
      .num_hidden_layers = 3,
      .hidden_size = 70,
      .num_attention_heads = 7,
      .num_key_value_heads = 7,
      .head_dim = 10,
      .seed = 2}},
    {"qwen3_window",
     {.model_type = "qwen3",
      .stored = DType::kBF16,
      .num_hidden_layers = 4,
      .num_attention_heads = 8,
      .num_key_value_heads = 4,
      .head_dim = 18,
      .sliding_window = 5,
      .seed = 3}},
};

const ParallelPlan kPlans[] = {{1, 1}, {2, 1}, {3, 1}, {4, 1}, {7, 1},
                               {1, 2}, {1, 3}, {2, 2}, {3, 2}, {2, 3}};

constexpr int64_t kSteps = 4, kTokens = 19;

class Ranks : public testing::TestWithParam<std::tuple<int, DType>> {};

TEST_P(Ranks, SameBits) {
  const Model& model = kModels[std::get<0>(GetParam())];
  const DType dtype = std::get<1>(GetParam());
  const Opened opened(model.spec);
  const std::vector<int64_t> prompt = Prompt(kTokens, model.spec.vocab_size);
  const std::vector<std::vector<int64_t>> prompts = {prompt, Prompt(5, model.spec.vocab_size, 1),
                                                     Prompt(11, model.spec.vocab_size, 2)};
  const Subject one = opened.In(dtype);
  const Outcome recorded = RunWay(one, {}, prompt, kSteps, true);
  const Outcome silent = RunWay(one, {}, prompt, kSteps, false);
  const std::vector<Outcome> batch = RunBatch(one, {}, prompts, kSteps, true);
  for (const ParallelPlan& plan : kPlans) {
    SCOPED_TRACE(fmt::format("tp={},pp={}", plan.tp, plan.pp));
    std::mutex mutex;
    int64_t compared = 0;
    RunLocalRanks(plan.ranks(), [&](Communicator& ranks) {
      Subject subject = one;
      subject.ranks = &ranks;
      subject.parallel = plan;
      const Way whole{BestIsa(), 2}, pieces{BestIsa(), 1, 4};
      const Outcome first = RunWay(subject, whole, prompt, kSteps, true);
      const Outcome second = RunWay(subject, pieces, prompt, kSteps, true);
      // Not recorded: pieces of three rows travel while others are computed.
      const Way overlapped{BestIsa(), 2, 1 << 20, 3}, in_chunks{BestIsa(), 1, 7, 3};
      const Outcome third = RunWay(subject, overlapped, prompt, kSteps, false);
      const Outcome fourth = RunWay(subject, in_chunks, prompt, kSteps, false);
      const std::vector<Outcome> fifth = RunBatch(subject, whole, prompts, kSteps, true);
      const std::vector<Outcome> sixth = RunBatch(subject, overlapped, prompts, kSteps, false);
      const std::lock_guard lock(mutex);
      for (const Outcome* outcome : {&first, &second}) {
        EXPECT_EQ(outcome->greedy, recorded.greedy);
        compared += ExpectSameLogits(recorded.logits, outcome->logits, dtype);
        if (ranks.rank() == 0) compared += ExpectSameTensors(recorded, *outcome);
      }
      for (const Outcome* outcome : {&third, &fourth}) {
        EXPECT_EQ(outcome->greedy, recorded.greedy);
        compared += ExpectSameLogits(recorded.logits, outcome->logits, dtype);
        EXPECT_EQ(outcome->sampled, silent.sampled);
        compared += ExpectSameLogits(silent.sampled_logits, outcome->sampled_logits, dtype);
      }
      for (size_t i = 0; i < prompts.size(); ++i) {
        for (const Outcome* outcome : {&fifth[i], &sixth[i]}) {
          EXPECT_EQ(outcome->greedy, batch[i].greedy);
          compared += ExpectSameLogits(batch[i].logits, outcome->logits, dtype);
        }
        if (ranks.rank() == 0) compared += ExpectSameTensors(batch[i], fifth[i]);
      }
    });
    EXPECT_GT(compared, 10000);
    fmt::print("| {} | {} | {} | {} | {} | {} |\n", model.name, ModelDTypeName(dtype), plan.tp,
               plan.pp, compared, HasFailure() ? "SOME" : "0");
  }
}

INSTANTIATE_TEST_SUITE_P(All, Ranks,
                         testing::Combine(testing::Range(0, 3),
                                          testing::Values(DType::kF32, DType::kBF16)),
                         [](const auto& param) {
                           return fmt::format("{}_{}", kModels[std::get<0>(param.param)].name,
                                              ModelDTypeName(std::get<1>(param.param)));
                         });

// The comparison must be able to fail: a rank that computes its share with another weight.
TEST(RanksControl, AWrongShareIsSeen) {
  CheckpointSpec other_spec = kModels[0].spec;
  other_spec.seed = 9;
  const Opened opened(kModels[0].spec), other(other_spec);
  const std::vector<int64_t> prompt = Prompt(kTokens, 131);
  const Outcome right = RunWay(opened.In(DType::kF32), {}, prompt, 0, true);
  std::vector<std::vector<std::byte>> logits;
  RunLocalRanks(2, [&](Communicator& ranks) {
    const Opened& own = ranks.rank() == 0 ? opened : other;
    Subject subject{own.graph, own.checkpoint, DType::kF32, &ranks, {2, 1}};
    const Outcome outcome = RunWay(subject, {}, prompt, 0, true);
    if (ranks.rank() == 0) logits = outcome.logits;
  });
  EXPECT_NE(logits, right.logits);
}

// What is exchanged for a prompt, as docs/scaling.md has it: behind the last attention only the
// last row travels; pieces change the number of exchanges and not the bytes.
TEST(RanksTraffic, IsThatOfTheFormula) {
  const CheckpointSpec& spec = kModels[0].spec;
  const Opened opened(spec);
  const ModelConfig& c = opened.graph.config;
  const std::vector<int64_t> prompt = Prompt(kTokens, spec.vocab_size);
  const int64_t layers = c.num_hidden_layers, heads = c.num_attention_heads * c.head_dim;
  for (const int64_t exchange_rows : {128, 3}) {
    RunLocalRanks(2, [&](Communicator& ranks) {
      RuntimeOptions options{DType::kF32};
      options.ranks = &ranks;
      options.parallel = {2, 1};
      options.exchange_rows = exchange_rows;
      Runtime runtime(opened.graph, opened.checkpoint, options);
      Sequence sequence = runtime.NewSequence();
      runtime.Forward(sequence, prompt);
      // Rank 1 has the smaller half of what is odd; rank 0 receives that.
      const auto from_other = [&](int64_t size) {
        return ranks.rank() == 0 ? size / 2 : size - size / 2;
      };
      const int64_t rows = kTokens * (layers - 1) + 1;
      const int64_t pieces = exchange_rows == 3 ? (kTokens + 2) / 3 : 1;
      EXPECT_EQ(ranks.traffic().exchanges, 4 * (layers - 1) * pieces + 4 + 1);
      EXPECT_EQ(ranks.traffic().received,
                4 * (rows * (from_other(heads) + 2 * from_other(c.hidden_size) +
                             from_other(c.intermediate_size)) +
                     from_other(c.vocab_size)));
    });
  }
}

TEST(RanksErrors, PlansThatDoNotFit) {
  const Opened opened(kModels[0].spec);
  const auto error = [&](const ParallelPlan& plan) -> std::string {
    try {
      SplitGraph(opened.graph, plan, 0);
    } catch (const Error& e) {
      return e.what();
    }
    return "no error";
  };
  EXPECT_EQ(error({15, 1}), "tp=15: the model has 14 attention heads, a rank needs at least one");
  EXPECT_EQ(error({1, 4}), "pp=4: the model has 3 layers, a stage needs at least one");
}

}  // namespace
}  // namespace samebits
