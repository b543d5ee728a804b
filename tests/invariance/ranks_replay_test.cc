// Replays of sdpa on several ranks: the orders and buffers of torch's kernel depend on all heads of
// a call, so a rank must not take them from its share. The profile of these tests has one order for
// the work items of whole calls and another for every other number of items: torch's own orders
// happen to be the same for all numbers in the recorded profiles. Ranks are threads of this
// process.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <mutex>

#include "samebits/base/json.h"
#include "samebits/checkpoint/digest.h"
#include "samebits/engine/sampler.h"
#include "samebits/graph/parallel.h"
#include "tests/invariance/fixtures.h"
#include "tests/invariance/local_ranks.h"
#include "tests/invariance/runs.h"

namespace samebits {
namespace {

constexpr int64_t kTokens = 9, kSteps = 3, kWindow = 5;

// What is run: texts of one length, the first so many tokens of each hidden.
struct Case {
  const char* name;
  std::vector<int64_t> padding;
  int64_t window, steps;
};

// nano: 14 query heads on 2 KV heads. A window is never decoded behind in a replay.
const Case kCases[] = {{"one", {0}, 0, kSteps},          // is_causal
                       {"batch", {0, 4, 6}, 0, kSteps},  // masks, then a group's heads as rows
                       {"window", {0}, kWindow, 0}};     // a mask of several rows

const ParallelPlan kPlans[] = {{2, 1}, {3, 1}, {4, 1}, {7, 1}, {1, 2}, {2, 2}, {3, 2}, {7, 2}};

// The recorded profile with entries for all calls of these tests. For a call's own number of work
// items its products have rules `scores` and `context`, for all others 2, a plain chain.
std::shared_ptr<const ReplayPlan> SdpaReplay(int scores, int context) {
  Json json = ParseJson(
      ReadTextFile(SAMEBITS_SOURCE_DIR "/tests/golden/avx2/float32-threads1.profile.json", 1 << 20),
      "profile");
  json["threads"] = 3;  // so that buffers begin at other alignments
  const Json proof = {{"compared", 1}, {"differing", 0}};
  Json linear = Json::array();
  for (const auto& [in, out, bias] : {std::tuple(224, 224, true),
                                      {224, 32, true},
                                      {224, 224, false},
                                      {224, 608, false},
                                      {608, 224, false},
                                      {224, 496, false}}) {
    linear.push_back({{"in_features", in},
                      {"out_features", out},
                      {"bias", bias},
                      {"rows", {1, 64}},
                      {"rule", 2},
                      {"proof", proof}});
  }
  json["linear"] = linear;
  json["sdpa_scores"] = json["sdpa_context"] = Json::array();
  const auto add = [&](int64_t rows_low, int64_t rows_high, int64_t low, int64_t high, int rule,
                       int context_rule) {
    Json entry = {{"head_dim", 16},  {"matrices", {low, high}},
                  {"proof", proof},  {"rows", {rows_low, rows_high}},
                  {"keys", {1, 64}}, {"rule", rule}};
    json["sdpa_scores"].push_back(entry);
    entry["rule"] = context_rule;
    for (const bool accumulate : {false, true}) {
      entry["accumulate"] = accumulate;
      json["sdpa_context"].push_back(entry);
    }
  };
  for (const auto& [rows, items] :
       {std::pair(kTokens, 14), {1, 14}, {kTokens, 3 * 14}, {7, 3 * 2}}) {
    add(rows, rows, items, items, scores, context);
  }
  add(1, 64, 1, 4096, 2, 2);
  json.erase("digest");
  json["digest"] = Sha256(json.dump(-1, ' ', true, Json::error_handler_t::replace));
  return std::make_shared<const ReplayPlan>(
      std::make_shared<const Profile>(Profile::Parse(json.dump(), "profile")), "sdpa");
}

// Reads the texts as one padded batch, then `steps` tokens each, greedily. The kernel has no scores
// and no probs.
std::vector<Outcome> RunPadded(const Subject& subject, const Case& one, int threads) {
  RuntimeOptions options{subject.dtype, BestIsa(), threads, subject.replay};
  options.ranks = subject.ranks;
  options.parallel = subject.parallel;
  Runtime runtime(subject.graph, subject.checkpoint, options);
  std::vector<Outcome> outcomes(one.padding.size());
  std::vector<Sequence> sequences;
  std::vector<MemoryRecorder> recorders;
  std::vector<std::vector<int64_t>> ids;
  for (size_t i = 0; i < outcomes.size(); ++i) {
    sequences.push_back(runtime.NewSequence());
    sequences[i].SetPadding(one.padding[i]);
    recorders.emplace_back(subject.graph, subject.dtype, kTokens + one.steps);
    ids.push_back(Prompt(kTokens, subject.graph.config.vocab_size, static_cast<int64_t>(i)));
  }
  for (int64_t step = 0; step <= one.steps; ++step) {
    std::vector<Part> parts;
    for (size_t i = 0; i < ids.size(); ++i) parts.push_back({&sequences[i], ids[i], &recorders[i]});
    TensorView row = runtime.Forward(parts);
    row.shape[0] = 1;
    for (size_t i = 0; i < ids.size(); ++i, row.data += row.bytes()) {
      outcomes[i].logits.emplace_back(row.data, row.data + row.bytes());
      ids[i] = {SampleToken(row, {}, step)};
      outcomes[i].greedy.push_back(ids[i][0]);
    }
  }
  for (size_t i = 0; i < outcomes.size(); ++i) {
    outcomes[i].tensors = std::move(recorders[i]).Take();
    std::erase_if(outcomes[i].tensors, [](const auto& tensor) {
      return tensor.first.ends_with(".scores") || tensor.first.ends_with(".probs");
    });
  }
  return outcomes;
}

Graph WithWindow(Graph graph, int64_t window) {
  for (Node& node : graph.nodes) {
    if (node.kind == OpKind::kAttention) node.attributes.window = window;
  }
  return graph;
}

// In float32: for so few tokens the two orders are rounded to the same values in bfloat16.
class RanksReplay : public testing::TestWithParam<Case> {};

TEST_P(RanksReplay, SdpaHasTheSameBits) {
  const Case& one = GetParam();
  const DType dtype = DType::kF32;
  const Checkpoint checkpoint = Checkpoint::Open(SAMEBITS_SOURCE_DIR "/models/nano");
  const Graph graph = WithWindow(BuildGraph(checkpoint.config()), one.window);
  Subject alone{graph, checkpoint, dtype};
  alone.replay = SdpaReplay(3, 4);
  const std::vector<Outcome> expected = RunPadded(alone, one, 1);

  // The other order, which shares of a call would have, gives other values.
  Subject other = alone;
  other.replay = SdpaReplay(2, 2);
  EXPECT_TRUE(RunPadded(other, one, 1)[0].logits != expected[0].logits);

  for (const ParallelPlan& plan : kPlans) {
    SCOPED_TRACE(fmt::format("tp={},pp={}", plan.tp, plan.pp));
    std::mutex mutex;
    int64_t compared = 0;
    RunLocalRanks(plan.ranks(), [&](Communicator& ranks) {
      Subject subject = alone;
      subject.ranks = &ranks;
      subject.parallel = plan;
      const std::vector<Outcome> outcomes = RunPadded(subject, one, 2);
      const std::lock_guard lock(mutex);
      for (size_t i = 0; i < outcomes.size(); ++i) {
        EXPECT_EQ(outcomes[i].greedy, expected[i].greedy);
        compared += ExpectSameLogits(expected[i].logits, outcomes[i].logits, dtype);
        if (ranks.rank() == 0) compared += ExpectSameTensors(expected[i], outcomes[i]);
      }
    });
    EXPECT_GT(compared, 100000);
    fmt::print("| sdpa {} | float32 | {} | {} | {} | {} |\n", one.name, plan.tp, plan.pp, compared,
               HasFailure() ? "SOME" : "0");
  }
}

INSTANTIATE_TEST_SUITE_P(All, RanksReplay, testing::ValuesIn(kCases),
                         [](const auto& param) { return std::string(param.param.name); });

}  // namespace
}  // namespace samebits
