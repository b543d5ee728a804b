// Maps: what they do to names and layouts, and what is refused.
#include "samebits/trace/trace_map.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "samebits/base/errors_testing.h"
#include "samebits/trace/name_suggestions.h"

namespace samebits {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class TraceMapTest : public testing::Test {
 protected:
  TraceMapTest() : values_(120) {
    std::iota(values_.begin(), values_.end(), 0.0F);
    file_.path = "port.npz";
    file_.metadata = {{"input_ids", "[1, 2, 3]"}, {"dtype", "float32"}};
    Add("blk.0.x", {1, 3, 4});
    Add("blk.1.x", {1, 3, 4});
    Add("qkv", {3, 16});
    Add("turned", {4, 3});
  }
  void Add(const std::string& name, Shape shape) {
    file_.tensors.push_back(
        {name,
         {DType::kF32, std::move(shape), reinterpret_cast<const std::byte*>(values_.data())}});
  }
  TensorFile Apply(const std::string& tensors, const std::string& more = "") const {
    return ApplyMap(file_, ParseTraceMap("{\"tensors\": [" + tensors + "]" + more + "}", "map"));
  }
  std::string Message(const std::string& tensors, const std::string& more = "") const {
    try {
      Apply(tensors, more);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }
  static std::vector<float> Values(const TensorFile& file, const std::string& name) {
    const TensorView* view = file.Find(name);
    if (view == nullptr) return {};
    return {view->as<float>(), view->as<float>() + view->elements()};
  }

  std::vector<float> values_;
  TensorFile file_;
};

TEST_F(TraceMapTest, RenamesWithNumbersAndUndoesABatchAxis) {
  const TensorFile file =
      Apply(R"({"from": "blk.{N}.x", "to": "model.layers.{N}", "take": [[0, 0]]})");
  EXPECT_EQ(file.Find("model.layers.1")->shape, (Shape{3, 4}));
  EXPECT_NE(file.Find("qkv"), nullptr);  // what no rule names stays
  EXPECT_EQ(file.Find("blk.0.x"), nullptr);
}

TEST_F(TraceMapTest, Transposes) {
  const TensorFile file = Apply(R"({"from": "turned", "to": "y", "transpose": [1, 0]})");
  EXPECT_THAT(Values(file, "y"), ElementsAre(0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11));
}

// Two groups of two queries, a key and a value of head_dim 2.
TEST_F(TraceMapTest, SplitsAFusedProjectionByGroups) {
  const TensorFile file = Apply(
      R"({"from": "qkv", "to": ["q", "k", "v"], "reshape": ["T", 2, 4, 2],
          "split": {"axis": 2, "sizes": [2, 1, 1]}, "then_reshape": ["T", -1]})");
  EXPECT_EQ(file.Find("q")->shape, (Shape{3, 8}));
  const std::vector<float> q = Values(file, "q"), k = Values(file, "k"), v = Values(file, "v");
  EXPECT_THAT(std::vector<float>(q.begin(), q.begin() + 8), ElementsAre(0, 1, 2, 3, 8, 9, 10, 11));
  EXPECT_THAT(std::vector<float>(k.begin(), k.begin() + 4), ElementsAre(4, 5, 12, 13));
  EXPECT_THAT(std::vector<float>(v.begin(), v.begin() + 4), ElementsAre(6, 7, 14, 15));
}

TEST_F(TraceMapTest, SplitsInterleavedHalves) {
  const TensorFile file = Apply(
      R"({"from": "qkv", "to": ["gate", "up"], "reshape": ["T", -1, 2],
          "split": {"axis": -1, "sizes": [1, 1]}, "then_reshape": ["T", -1]})");
  const std::vector<float> up = Values(file, "up");
  EXPECT_THAT(std::vector<float>(up.begin(), up.begin() + 3), ElementsAre(1, 3, 5));
}

TEST_F(TraceMapTest, MetadataAndSkippedNames) {
  const TensorFile file = Apply(
      "", R"(, "metadata": {"input_ids": [4, 5, 6], "dtype": "bfloat16"}, "skip": ["blk.*"])");
  EXPECT_EQ(file.metadata.at("input_ids"), "[4,5,6]");
  EXPECT_EQ(file.metadata.at("dtype"), "bfloat16");
  EXPECT_EQ(file.tensors.size(), 2);
}

TEST_F(TraceMapTest, WhatCanNotBeIsRefused) {
  EXPECT_THAT(Message(R"({"from": "none", "to": "y"})"), HasSubstr("no tensor of port.npz"));
  EXPECT_THAT(Message(R"({"from": "turned", "to": "qkv"})"), HasSubstr("as another tensor does"));
  EXPECT_THAT(Message(R"({"from": "qkv", "to": "y"}, {"from": "qkv", "to": "z"})"),
              HasSubstr("both fit"));
  EXPECT_THAT(Message(R"({"from": "qkv", "to": "y", "turn": 1})"), HasSubstr("unknown key"));
  EXPECT_THAT(Message(R"({"from": "qkv", "to": "y", "reshape": [7, -1]})"),
              HasSubstr("can not be reshaped"));
  EXPECT_THAT(Message(R"({"from": "qkv", "to": "y", "reshape": [549755813888, 549755813888]})"),
              HasSubstr("can not be reshaped"));
  EXPECT_THAT(Message(R"({"from": "qkv", "to": "y", "reshape": [-1, -1]})"),
              HasSubstr("more than one -1"));
  EXPECT_THAT(Message(R"({"from": "qkv", "to": "y", "transpose": [0, 0]})"),
              HasSubstr("no order of the axes"));
  EXPECT_THAT(Message(R"({"from": "qkv", "to": "y", "take": [[2, 0]]})"), HasSubstr("'take'"));
  EXPECT_THAT(Message(R"({"from": "qkv", "to": ["y"], "split": {"axis": 1, "sizes": [15]}})"),
              HasSubstr("'split'"));
  EXPECT_THAT(Message(R"({"from": "qkv", "to": "y", "split": {"axis": 1, "sizes": [8, 8]}})"),
              HasSubstr("1 names for 2 parts"));
  EXPECT_THAT(Message(R"({"from": "qkv"})"), HasSubstr("'to'"));
  EXPECT_THAT(Message(R"({"from": "qkv", "to": "model.layers.{N}"})"),
              HasSubstr("none in 'from' (\"qkv\")"));
}

TEST_F(TraceMapTest, SuggestsNamesAndAMapThatWorks) {
  TensorFile foreign;
  foreign.metadata = {{"input_ids", "[1, 2, 3]"}, {"dtype", "float32"}};
  const auto* bytes = reinterpret_cast<const std::byte*>(values_.data());
  foreign.tensors = {{"blk.0.attn_q", {DType::kF32, {3, 8}, bytes}},
                     {"blk.1.attn_q", {DType::kF32, {3, 8}, bytes}},
                     {"output_norm", {DType::kF32, {1, 3, 4}, bytes}},
                     {"seconds", {DType::kF32, {1}, bytes}}};
  const std::vector<ModelTensor> ours = {{"model.layers.0.self_attn.q_proj", {3, 8}},
                                         {"model.layers.1.self_attn.q_proj", {3, 8}},
                                         {"model.layers.0.self_attn.k_proj", {3, 4}},
                                         {"model.norm", {3, 4}}};
  const auto found = SuggestNames(foreign.tensors, ours);
  ASSERT_EQ(found.size(), 4);
  EXPECT_EQ(found[0].suggestion, "model.layers.0.self_attn.q_proj");
  EXPECT_EQ(found[1].suggestion, "model.layers.1.self_attn.q_proj");
  EXPECT_EQ(found[2].suggestion, "model.norm");
  EXPECT_EQ(found[3].suggestion, "");
  const TensorFile mapped = ApplyMap(foreign, ParseTraceMap(SuggestMap(foreign, ours), "made"));
  EXPECT_NE(mapped.Find("model.layers.1.self_attn.q_proj"), nullptr);
  EXPECT_EQ(mapped.Find("model.norm")->shape, (Shape{3, 4}));
  EXPECT_EQ(mapped.tensors.size(), 3);
}

}  // namespace
}  // namespace samebits
