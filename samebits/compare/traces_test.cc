// Aligning two traces: order, names on one side, masked scores, the first difference.
#include "samebits/compare/traces.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <limits>
#include <random>

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
  for (const char* last : {"model.norm", "lm_head", "a", "model.layers.", "model.layers.0.colour",
                           "model.layers.99999999999999999999", "z"}) {
    expected.emplace_back(last);
  }
  std::vector<std::string> names = expected;
  std::mt19937 random(1);
  for (int i = 0; i < 20; ++i) {
    std::shuffle(names.begin(), names.end(), random);
    SortByForwardPass(names);
    ASSERT_EQ(names, expected);
  }
}

}  // namespace
}  // namespace samebits
