// Aligning two traces: order, names on one side, masked scores, the first difference.
#include "samebits/compare/traces.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <limits>
#include <random>
#include <set>

#include "samebits/checkpoint/safetensors_testing.h"

namespace samebits {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

struct Values {
  Shape shape;
  std::vector<float> values;
};

class CompareTracesTest : public testing::Test {
 protected:
  Trace Make(const std::map<std::string, Values>& tensors,
             const std::map<std::string, std::string>& extra = {}) {
    std::map<std::string, std::string> metadata = {
        {"format", "samebits-trace-1"}, {"input_ids", "[1, 2]"}, {"dtype", "float32"}};
    for (const auto& [key, value] : extra) metadata[key] = value;
    std::vector<TensorSpec> specs;
    specs.reserve(tensors.size());
    for (const auto& [name, t] : tensors) {
      specs.push_back({name, DType::kF32, t.shape, ValueBytes(t.values)});
    }
    bytes_.emplace_back(SafetensorsBytes(specs, metadata));
    return Trace::Parse(bytes_.back().span(), "t");
  }

 private:
  std::deque<AlignedBytes> bytes_;  // what the traces point into
};

std::vector<std::string> Names(const TraceDifference& d) {
  std::vector<std::string> names;
  for (const NodeDifference& node : d.nodes) names.push_back(node.name);
  return names;
}

TEST_F(CompareTracesTest, Same) {
  const std::map<std::string, Values> tensors = {{"lm_head", {{2}, {1, 2}}},
                                                 {"model.norm", {{2}, {3, 4}}}};
  const TraceDifference d = CompareTraces(Make(tensors), Make(tensors, {{"framework", "jax"}}));
  EXPECT_TRUE(d.same());
  EXPECT_EQ(d.first, "");
  EXPECT_THAT(Names(d), ElementsAre("model.norm", "lm_head"));
}

TEST_F(CompareTracesTest, FirstIsTheFirstOfAForwardPass) {
  const Trace a = Make({{"lm_head", {{1}, {1}}},
                        {"model.layers.10.mlp.act", {{1}, {1}}},
                        {"model.layers.2", {{1}, {1}}},
                        {"model.layers.2.mlp.act", {{1}, {1}}}});
  const Trace b = Make({{"lm_head", {{1}, {2}}},
                        {"model.layers.10.mlp.act", {{1}, {2}}},
                        {"model.layers.2", {{1}, {2}}},
                        {"model.layers.2.mlp.act", {{1}, {1}}}});
  const TraceDifference d = CompareTraces(a, b);
  EXPECT_FALSE(d.same());
  EXPECT_EQ(d.first, "model.layers.2");
  EXPECT_THAT(Names(d), ElementsAre("model.layers.2.mlp.act", "model.layers.2",
                                    "model.layers.10.mlp.act", "lm_head"));
}

TEST_F(CompareTracesTest, NamesOnOneSide) {
  const TraceDifference d =
      CompareTraces(Make({{"lm_head", {{1}, {1}}}, {"model.norm", {{1}, {1}}}, {"x", {{1}, {1}}}}),
                    Make({{"lm_head", {{1}, {1}}}, {"model.embed_tokens", {{1}, {1}}}}));
  EXPECT_FALSE(d.same());
  EXPECT_EQ(d.first, "");
  EXPECT_THAT(d.only_a, ElementsAre("model.norm", "x"));
  EXPECT_THAT(d.only_b, ElementsAre("model.embed_tokens"));
}

TEST_F(CompareTracesTest, NothingInCommon) {
  const TraceDifference d = CompareTraces(Make({{"a", {{1}, {1}}}}), Make({{"b", {{1}, {1}}}}));
  EXPECT_FALSE(d.same());
  EXPECT_THAT(d.nodes, IsEmpty());
}

TEST_F(CompareTracesTest, InputsDiffer) {
  const std::map<std::string, Values> tensors = {{"lm_head", {{1}, {1}}}};
  for (const auto& [key, value] :
       {std::pair{"input_ids", "[1, 3]"}, std::pair{"input_ids", "[1, 2, 3]"},
        std::pair{"positions", "[1, 2]"}}) {
    const TraceDifference d = CompareTraces(Make(tensors), Make(tensors, {{key, value}}));
    EXPECT_TRUE(d.inputs_differ);
    EXPECT_FALSE(d.same());
  }
  EXPECT_TRUE(CompareTraces(Make(tensors), Make(tensors, {{"positions", "[0, 1]"}})).same());
}

TEST_F(CompareTracesTest, MasksAndBatchesAreInputs) {
  const std::map<std::string, Values> tensors = {{"lm_head", {{1}, {1}}}};
  EXPECT_TRUE(CompareTraces(Make(tensors), Make(tensors, {{"attention_mask", "[1, 1]"}})).same());
  EXPECT_TRUE(CompareTraces(Make(tensors), Make(tensors, {{"chunks", "[1, 1]"}})).same());
  for (const auto& [key, value] :
       {std::pair{"attention_mask", "[0, 1]"}, std::pair{"input_ids", "[[1, 2]]"}}) {
    EXPECT_TRUE(CompareTraces(Make(tensors), Make(tensors, {{key, value}})).inputs_differ);
  }
}

TEST_F(CompareTracesTest, ShapesAndDTypesAreToldApartFromNumbers) {
  const Trace a = Make({{"model.embed_tokens", {{2, 1}, {1, 1}}},
                        {"model.norm", {{2}, {1, 1}}},
                        {"lm_head", {{2}, {1, 1}}}});
  const Trace b = Make({{"model.embed_tokens", {{1, 2}, {1, 1}}},
                        {"model.norm", {{2}, {1, 1}}},
                        {"lm_head", {{2}, {1, kNan}}}});
  const TraceDifference d = CompareTraces(a, b);
  EXPECT_EQ(d.first, "model.embed_tokens");
  EXPECT_EQ(d.first_values, "lm_head");
  ASSERT_EQ(d.nodes.size(), 3U);
  EXPECT_EQ(d.nodes[0].difference, Difference::kShape);
  EXPECT_EQ(d.nodes[0].metrics.elements, 0);
  EXPECT_EQ(d.nodes[0].shape_b, (Shape{1, 2}));
  EXPECT_EQ(d.nodes[1].difference, Difference::kNone);
  EXPECT_EQ(d.nodes[2].difference, Difference::kValues);
  EXPECT_EQ(d.nodes[2].metrics.nan_mismatch, 1);
}

TEST_F(CompareTracesTest, AnotherDTypeIsADifferenceOfItsOwn) {
  const std::string bytes = SafetensorsBytes(
      {{"lm_head", DType::kBF16, {2}, ValueBytes<uint16_t>({0x3f80, 0x4000})}},  // 1, 2
      {{"format", "samebits-trace-1"}, {"input_ids", "[1, 2]"}, {"dtype", "float32"}});
  const AlignedBytes kept(bytes);
  const TraceDifference d =
      CompareTraces(Make({{"lm_head", {{2}, {1, 2}}}}), Trace::Parse(kept.span(), "b"));
  EXPECT_FALSE(d.same());
  EXPECT_EQ(d.first, "lm_head");
  EXPECT_EQ(d.first_values, "");
  EXPECT_EQ(d.nodes[0].difference, Difference::kDType);
  EXPECT_EQ(d.nodes[0].metrics.differing, 0);
}

TEST_F(CompareTracesTest, LogitsAsDistributions) {
  const auto logits = [&](const std::vector<float>& values,
                          const std::map<std::string, std::string>& extra = {}) {
    return Make({{"lm_head", {{2, 2}, values}}, {"model.norm", {{2, 2}, values}}}, extra);
  };
  TraceDifference d = CompareTraces(logits({0, 1, 2, 1}), logits({1, 0, 2, 1}));
  EXPECT_FALSE(d.nodes[0].logits.has_value());  // model.norm
  ASSERT_TRUE(d.nodes[1].logits.has_value());
  EXPECT_EQ(d.nodes[1].logits->tokens, 2);
  EXPECT_EQ(d.nodes[1].logits->same_top1, 1);
  EXPECT_EQ(d.nodes[1].logits->kl_max_token, 0);
  // Padding is no token; its bits are compared all the same.
  const std::map<std::string, std::string> padded = {{"attention_mask", "[0, 1]"}};
  d = CompareTraces(logits({0, 1, 2, 1}, padded), logits({1, 0, 2, 1}, padded));
  EXPECT_EQ(d.nodes[1].logits->tokens, 1);
  EXPECT_EQ(d.nodes[1].logits->kl_max, 0);
  EXPECT_EQ(d.nodes[1].metrics.differing, 2);
  // Of another shape, or empty.
  d = CompareTraces(logits({0, 1, 2, 1}), Make({{"lm_head", {{4}, {0, 1, 2, 1}}}}));
  EXPECT_FALSE(d.nodes[0].logits.has_value());
  const Trace empty = Make({{"lm_head", {{2, 0}, {}}}});
  d = CompareTraces(empty, empty);
  EXPECT_TRUE(d.same());
  EXPECT_EQ(d.nodes[0].logits->tokens, 0);
}

TEST_F(CompareTracesTest, ShapesThatDifferAreADifference) {
  const TraceDifference d =
      CompareTraces(Make({{"lm_head", {{2, 1}, {1, 1}}}}), Make({{"lm_head", {{1, 2}, {1, 1}}}}));
  EXPECT_FALSE(d.same());
  EXPECT_EQ(d.first, "lm_head");
}

// [1, 2, 2]: of the first row the second key is masked.
TEST_F(CompareTracesTest, MaskedScoresAreIgnored) {
  const std::string name = "model.layers.0.self_attn.scores";
  const Trace a = Make({{name, {{1, 2, 2}, {1, 9, 3, 4}}}});
  for (const float masked : {0.0F, -1e30F, kNan}) {
    const TraceDifference d = CompareTraces(a, Make({{name, {{1, 2, 2}, {1, masked, 3, 4}}}}));
    EXPECT_TRUE(d.same());
    EXPECT_EQ(d.nodes[0].metrics.elements, 3);
  }
  for (int seen : {0, 2, 3}) {
    std::vector<float> values = {1, 9, 3, 4};
    values[seen] = kNan;
    const TraceDifference d = CompareTraces(a, Make({{name, {{1, 2, 2}, values}}}));
    EXPECT_FALSE(d.same());
    EXPECT_EQ(d.nodes[0].metrics.first, seen);
  }
}

// More keys than rows: the first row sees what came before it.
TEST_F(CompareTracesTest, MaskBehindACache) {
  const std::string name = "model.layers.0.self_attn.scores";
  const std::vector<float> values = {1, 2, 0, 4, 5, 6};
  const Trace a = Make({{name, {{1, 2, 3}, values}}});
  for (int i = 0; i < 6; ++i) {
    std::vector<float> edited = values;
    edited[i] = 100;
    EXPECT_EQ(CompareTraces(a, Make({{name, {{1, 2, 3}, edited}}})).same(), i == 2) << i;
  }
}

TEST_F(CompareTracesTest, ProbsHaveNoMaskedPlaces) {
  const std::string name = "model.layers.0.self_attn.probs";
  EXPECT_FALSE(CompareTraces(Make({{name, {{1, 2, 2}, {1, 0, 1, 0}}}}),
                             Make({{name, {{1, 2, 2}, {1, 0.5, 1, 0}}}}))
                   .same());
}

TEST_F(CompareTracesTest, ScoresThatASlidingWindowHidesAreNotCompared) {
  const std::string scores = "model.layers.0.self_attn.scores";
  const std::string probs = "model.layers.0.self_attn.probs";
  const auto make = [&](float hidden, float seen) {  // token 1 does not see key 0
    return Make({{scores, {{1, 2, 2}, {1, 9, hidden, seen}}}, {probs, {{1, 2, 2}, {1, 0, 0, 1}}}});
  };
  EXPECT_TRUE(CompareTraces(make(0, 3), make(5, 3)).same());
  EXPECT_FALSE(CompareTraces(make(0, 3), make(0, 4)).same());
}

// Every element of `seen` shows a difference, no other does.
void ExpectSeen(const std::function<Trace(const std::vector<float>&)>& make, int elements,
                const std::set<int>& seen) {
  const std::vector<float> values(elements, 1);
  const Trace a = make(values);
  for (int i = 0; i < elements; ++i) {
    std::vector<float> edited = values;
    edited[i] = kNan;
    EXPECT_EQ(!CompareTraces(a, make(edited)).same(), seen.contains(i)) << i;
  }
}

// Two sequences of three tokens, the second padded on the left: [B, H, T, S].
TEST_F(CompareTracesTest, PaddingHidesKeys) {
  const std::map<std::string, std::string> batch = {{"input_ids", "[[1, 2, 3], [0, 4, 5]]"},
                                                    {"attention_mask", "[[1, 1, 1], [0, 1, 1]]"}};
  ExpectSeen(
      [&](const std::vector<float>& values) {
        return Make({{"model.layers.0.self_attn.scores", {{2, 1, 3, 3}, values}}}, batch);
      },
      18, {0, 3, 4, 6, 7, 8, 13, 16, 17});
}

TEST_F(CompareTracesTest, PaddingOfOneSequence) {
  ExpectSeen(
      [&](const std::vector<float>& values) {
        return Make({{"model.layers.0.self_attn.scores", {{2, 2, 2}, values}}},
                    {{"attention_mask", "[0, 1]"}});
      },
      8, {3, 7});
}

// A window of two keys, as the probabilities of two heads show it; of the first head alone it
// could be one.
TEST_F(CompareTracesTest, TheNarrowestWindowThatHoldsAllProbabilities) {
  const auto make = [&](const std::vector<float>& values) {
    return Make({{"model.layers.0.self_attn.scores", {{2, 3, 3}, values}},
                 {"model.layers.0.self_attn.probs",
                  {{2, 3, 3}, {1, 0, 0, 0, 1, 0, 0, 0, 1, 1, 0, 0, 0, 1, 0, 0, 0.5, 0.5}}}},
                {{"input_ids", "[1, 2, 3]"}});
  };
  ExpectSeen(make, 18, {0, 3, 4, 7, 8, 9, 12, 13, 16, 17});
}

// What one of the two saw counts.
TEST_F(CompareTracesTest, AWindowOfOneTraceHidesNothingFromTheOther) {
  const std::string scores = "model.layers.0.self_attn.scores";
  const std::string probs = "model.layers.0.self_attn.probs";
  const Trace narrow =
      Make({{scores, {{1, 2, 2}, {1, 0, 7, 1}}}, {probs, {{1, 2, 2}, {1, 0, 0, 1}}}});
  const Trace wide =
      Make({{scores, {{1, 2, 2}, {1, 0, 2, 1}}}, {probs, {{1, 2, 2}, {1, 0, 0.5, 0.5}}}});
  EXPECT_EQ(CompareTraces(narrow, wide).first, scores);
  EXPECT_EQ(CompareTraces(wide, narrow).first, scores);
}

// A probability of 0 within what others see is underflow: the score counts.
TEST_F(CompareTracesTest, UnderflowHidesNothing) {
  const auto make = [&](const std::vector<float>& values) {
    return Make(
        {{"model.layers.0.self_attn.scores", {{1, 3, 3}, values}},
         {"model.layers.0.self_attn.probs", {{1, 3, 3}, {1, 0, 0, 0, 1, 0, 0.25, 0, 0.75}}}},
        {{"input_ids", "[1, 2, 3]"}});
  };
  ExpectSeen(make, 9, {0, 3, 4, 6, 7, 8});
}

TEST_F(CompareTracesTest, EmptyScores) {
  for (const Shape& shape : {Shape{0, 2, 2}, Shape{2, 0, 2}, Shape{2, 2, 0}, Shape{0, 1, 2, 2}}) {
    const Trace a = Make({{"model.layers.0.self_attn.scores", {shape, {}}},
                          {"model.layers.0.self_attn.probs", {shape, {}}}});
    EXPECT_TRUE(CompareTraces(a, a).same());
  }
}

// Unknown names come last, in the order in which they lie in the first file.
TEST_F(CompareTracesTest, UnknownNamesInTheOrderOfTheFile) {
  std::vector<TensorSpec> specs;
  for (const char* name : {"z", "lm_head", "b", "model.layers.3.custom", "a", "model.norm"}) {
    specs.push_back({name, DType::kF32, {1}});
  }
  const AlignedBytes bytes(SafetensorsBytes(
      specs, {{"format", "samebits-trace-1"}, {"input_ids", "[1]"}, {"dtype", "float32"}}));
  const Trace trace = Trace::Parse(bytes.span(), "t");
  EXPECT_THAT(Names(CompareTraces(trace, trace)),
              ElementsAre("model.norm", "lm_head", "z", "b", "model.layers.3.custom", "a"));
}

TEST(SortByForwardPass, TheOrderOfTheFormat) {
  std::vector<std::string> expected = {"model.embed_tokens", "model.rotary.cos",
                                       "model.rotary.sin"};
  for (const char* layer : {"model.layers.0", "model.layers.2", "model.layers.10"}) {
    for (const char* node : {".input_layernorm",   ".self_attn.q_proj",
                             ".self_attn.k_proj",  ".self_attn.v_proj",
                             ".self_attn.q_norm",  ".self_attn.k_norm",
                             ".self_attn.q_rope",  ".self_attn.k_rope",
                             ".self_attn.scores",  ".self_attn.probs",
                             ".self_attn.context", ".self_attn.o_proj",
                             ".attn_residual",     ".post_attention_layernorm",
                             ".mlp.gate_proj",     ".mlp.up_proj",
                             ".mlp.act",           ".mlp.gated",
                             ".mlp.down_proj",     ""}) {
      expected.push_back(std::string(layer) + node);
    }
  }
  expected.emplace_back("model.norm");
  expected.emplace_back("lm_head");
  std::vector<std::string> names = expected;
  std::mt19937 random(1);
  for (int i = 0; i < 20; ++i) {
    std::shuffle(names.begin(), names.end(), random);
    SortByForwardPass(names);
    ASSERT_EQ(names, expected);
  }
  const std::vector<std::string> unknown = {"z",
                                            "model.layers.-1",
                                            "model.layers.",
                                            "model.layers.0.colour",
                                            "a",
                                            "model.rotary.tan",
                                            "model.layers.99999999999999999999"};
  std::vector<std::string> all = unknown;
  all.insert(all.begin() + 3, expected.begin(), expected.end());
  SortByForwardPass(all);
  expected.insert(expected.end(), unknown.begin(), unknown.end());
  EXPECT_EQ(all, expected);
}

}  // namespace
}  // namespace samebits
