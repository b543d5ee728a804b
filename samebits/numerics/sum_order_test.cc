// The interpreter of orders against sums written out by hand, and what the readers refuse.
#include "samebits/numerics/sum_order.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "samebits/base/errors_testing.h"
#include "samebits/numerics/sum_rule.h"
#include "samebits/tensor/bits_testing.h"

namespace samebits {
namespace {

struct Operands {
  std::vector<float> x, w;
};

// Sums of these depend on every detail of the order: terms cancel, none is exact.
Operands Random(int64_t size, int seed = 1) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  Operands o;
  for (int64_t k = 0; k < size; ++k) {
    o.x.push_back(normal(random) * 3);
    o.w.push_back(normal(random));
  }
  return o;
}

SumOrder Order(const char* json) { return ReadSumOrder(ParseJson(json, "test"), "test"); }

void ExpectDot(const char* json, const Operands& o, float expected, float c = 0, bool has_c = false,
               int peel = 0) {
  const float actual = Dot(Order(json), std::ssize(o.x), o.x.data(), o.w.data(), has_c, c, peel);
  EXPECT_TRUE(BitsEqual(DType::kF32, &expected, &actual, 1)) << json;
}

TEST(SumOrder, BlocksOfAChain) {
  const Operands o = Random(7);
  const auto& [x, w] = o;
  const float first = std::fma(x[2], w[2], std::fma(x[1], w[1], std::fma(x[0], w[0], 0.0F)));
  const float second = std::fma(x[5], w[5], std::fma(x[4], w[4], std::fma(x[3], w[3], 0.0F)));
  const float third = std::fma(x[6], w[6], 0.0F);
  ExpectDot(R"({"family": "chain", "block": 3})", o, ((0.0F + first) + second) + third);
  ExpectDot(R"({"family": "chain", "block": 3})", o, ((5.5F + first) + second) + third, 5.5F, true);
  // Below 8 elements blocks of half: 3, 3 and 1 as well.
  ExpectDot(R"({"family": "chain", "block": 6, "halve_below": 8})", o, (first + second) + third);
  float rounded = 5.5F;
  for (int k = 0; k < 7; ++k) rounded = rounded + x[k] * w[k];
  ExpectDot(R"({"family": "chain", "product": "rounded", "start": "chain"})", o, rounded, 5.5F,
            true);
}

TEST(SumOrder, HalvedBlocks) {
  const auto ends = [](const char* json, int64_t size) {
    const ChainOrder order = std::get<ChainOrder>(Order(json));
    std::vector<int64_t> found;
    for (int64_t k = 0; k < size; k = found.back()) found.push_back(BlockEnd(order, size, k));
    return found;
  };
  using Ends = std::vector<int64_t>;
  const char* down = R"({"family": "chain", "block": 4, "halve_below": 8})";
  EXPECT_EQ(ends(down, 4), Ends({4}));
  EXPECT_EQ(ends(down, 7), Ends({3, 6, 7}));
  EXPECT_EQ(ends(down, 13), Ends({4, 8, 12, 13}));
  const char* up = R"({"family": "chain", "block": 4, "halve_below": 8, "halve": "up"})";
  EXPECT_EQ(ends(up, 7), Ends({4, 7}));
  EXPECT_EQ(ends(up, 5), Ends({3, 5}));
  EXPECT_EQ(ends(up, 13), Ends({4, 8, 12, 13}));
  const char* rest = R"({"family": "chain", "block": 4, "halve_below": 8, "halve": "rest"})";
  EXPECT_EQ(ends(rest, 5), Ends({3, 5}));
  EXPECT_EQ(ends(rest, 8), Ends({4, 8}));
  EXPECT_EQ(ends(rest, 13), Ends({4, 8, 11, 13}));
  EXPECT_EQ(ends(R"({"family": "chain"})", 9), Ends({9}));
}

TEST(SumOrder, PairsOfAFusedChain) {
  const Operands o = Random(4);
  const auto& [x, w] = o;
  const float left = std::fma(x[2], w[2], x[0] * w[0]);  // as the tree: the right side is fused
  const float right = std::fma(x[1], w[1], x[3] * w[3]);
  ExpectDot(R"({"family": "chain", "group": [[[0, 2], [3, 1]]], "start": "chain"})", o,
            0.5F + (left + right), 0.5F, true);
}

TEST(SumOrder, FirstBlockKeepsItsSign) {
  const Operands o = {{1e-30F}, {-1e-30F}};  // its fused product rounds to -0
  ExpectDot(R"({"family": "chain"})", o, 0.0F);
  ExpectDot(R"({"family": "chain", "first": "set"})", o, -0.0F);
  ExpectDot(R"({"family": "chain"})", o, -0.0F, -0.0F, true);
}

TEST(SumOrder, Groups) {
  const Operands o = Random(6);
  const auto& [x, w] = o;
  float s = std::fma(x[0], w[0], std::fma(x[1], w[1], 0.0F));
  s = std::fma(x[2], w[2], std::fma(x[3], w[3], s));
  s = std::fma(x[4], w[4], std::fma(x[5], w[5], s));
  ExpectDot(R"({"family": "chain", "group": [1, 0]})", o, s);
  const float fours = 1.25F + ((x[0] * w[0] + x[2] * w[2]) + (x[1] * w[1] + x[3] * w[3]));
  ExpectDot(R"({"family": "chain", "group": [[[0, 2], [1, 3]]], "tail": "descending",
                "start": "chain", "product": "rounded"})",
            o, (fours + x[5] * w[5]) + x[4] * w[4], 1.25F, true);
}

TEST(SumOrder, FlushIsForBlocksOnly) {
  // Denormal input, denormal result of a step, and a denormal c, which is kept.
  const float denormal = 1e-39F;
  ExpectDot(R"({"family": "chain", "flush": true})", {{denormal}, {1.0F}}, 0.0F);
  ExpectDot(R"({"family": "chain", "flush": true})", {{1e-20F}, {1e-19F}}, 0.0F);
  ExpectDot(R"({"family": "chain"})", {{denormal}, {1.0F}}, denormal);
  ExpectDot(R"({"family": "chain", "flush": true})", {{1e-20F}, {1e-19F}}, denormal, denormal,
            true);
}

TEST(SumOrder, Tiles) {
  const Operands o = Random(7);  // tiles of 4 and 3 elements
  const std::vector<float>&x = o.x, &w = o.w;
  const auto chain = [&](int a, int b) { return std::fma(x[b], w[b], std::fma(x[a], w[a], 0.0F)); };
  const float first = chain(0, 2) + chain(1, 3);
  const float second = chain(4, 6) + std::fma(x[5], w[5], 0.0F);
  ExpectDot(R"({"family": "chain", "tile": 4})", o, 0.0F + ((0.0F + first) + second));
  ExpectDot(R"({"family": "chain", "tile": 4, "start": "chain"})", o, (1.5F + first) + second, 1.5F,
            true);
  // A block ends a tile.
  const float last = std::fma(x[6], w[6], 0.0F);
  const float middle = std::fma(x[4], w[4], 0.0F) + std::fma(x[5], w[5], 0.0F);
  ExpectDot(R"({"family": "chain", "block": 6, "tile": 4, "first": "set"})", o,
            ((0.0F + first) + middle) + (0.0F + (last + 0.0F)));
}

TEST(SumOrder, PartsOfBlocks) {
  const Operands o = Random(10);
  const auto block = [&](int k) {
    return std::fma(o.x[k + 1], o.w[k + 1], std::fma(o.x[k], o.w[k], 0.0F));
  };
  const float parts = ((2.5F + block(0)) + block(2)) + (block(4) + block(6));
  ExpectDot(R"({"family": "chain", "block": 2, "part": 4})", o, parts + block(8), 2.5F, true);
  ExpectDot(R"({"family": "chain", "block": 2, "part": 4, "first": "set"})", o,
            ((block(0) + block(2)) + (block(4) + block(6))) + block(8));
  // Parts of 5: blocks of 3 and 2, halved as if 5 were all there is.
  const auto chain = [&](int begin, int end) {
    float s = 0.0F;
    for (int k = begin; k < end; ++k) s = std::fma(o.x[k], o.w[k], s);
    return s;
  };
  ExpectDot(R"({"family": "chain", "block": 4, "halve_below": 8, "halve": "up", "part": 5})", o,
            ((1.5F + chain(0, 3)) + chain(3, 5)) + (chain(5, 8) + chain(8, 10)), 1.5F, true);
}

TEST(SumOrder, PairsAndDistances) {
  const Operands o = Random(10);  // a turn of 8 elements in 4 lanes, and one of 2 with zeros behind
  const std::vector<float>&x = o.x, &w = o.w;
  const auto lane = [&](int l, float s) {
    return std::fma(x[2 * l], w[2 * l], std::fma(x[2 * l + 1], w[2 * l + 1], s));
  };
  const float lane0 = std::fma(x[8], w[8], std::fma(x[9], w[9], lane(0, 0.0F)));
  const float joined = (lane0 + lane(1, 0.0F)) + (lane(2, 0.0F) + lane(3, 0.0F));
  ExpectDot(R"({"family": "lanes", "pairs": true, "flush": true, "tail": "lanes", "stages":
                [{"lanes": 4, "vectors": 2, "accumulators": 1, "join_lanes": [1, 2]}]})",
            o, joined);
  ExpectDot(R"({"family": "lanes", "pairs": true, "flush": true, "tail": "lanes", "stages":
                [{"lanes": 4, "vectors": 2, "accumulators": 1, "join_lanes": [1, 2]}]})",
            {{1e-20F}, {1e-19F}}, 0.0F);
}

TEST(SumOrder, LanesPeelAndTail) {
  const Operands o = Random(12);  // peel 2, two turns of 4, tail 2
  const auto p = [&](int k) { return o.x[k] * o.w[k]; };
  const float start = (0.0F + p(0)) + p(1);
  const float lane0 = (start + p(2)) + p(6), lane1 = p(3) + p(7);
  const float lane2 = p(4) + p(8), lane3 = p(5) + p(9);
  const float joined = (lane0 + lane2) + (lane1 + lane3);
  ExpectDot(R"({"family": "lanes", "peel": 2, "product": "rounded",
                "stages": [{"lanes": 4, "vectors": 1, "accumulators": 1}]})",
            o, 0.5F + ((joined + p(10)) + p(11)), 0.5F, true, 2);
}

TEST(SumOrder, AccumulatorsAndStages) {
  const Operands o = Random(11);  // one turn of 2 x 4, then one of 2, then 1
  const auto p = [&](int k) { return o.x[k] * o.w[k]; };
  const float joined = ((p(0) + p(4)) + (p(2) + p(6))) + ((p(1) + p(5)) + (p(3) + p(7)));
  const float second = p(8) + p(9);
  ExpectDot(R"({"family": "lanes", "product": "rounded",
                "stages": [{"lanes": 4, "vectors": 2, "accumulators": 2},
                           {"lanes": 2, "vectors": 1, "accumulators": 1}]})",
            o, (joined + second) + p(10));
  const float in_lane_0 = ((((p(0) + p(8)) + p(1)) + p(2)) + p(3));
  EXPECT_NE(in_lane_0, joined);
  ExpectDot(R"({"family": "lanes", "product": "rounded", "tail": "lane0", "stages":
                [{"lanes": 4, "vectors": 1, "accumulators": 1, "join_lanes": "sequence"}]})",
            {{o.x.begin(), o.x.begin() + 4}, {o.w.begin(), o.w.begin() + 4}},
            ((p(0) + p(1)) + p(2)) + p(3));
  ExpectDot(R"({"family": "lanes", "product": "rounded", "tail": "lane0", "stages":
                [{"lanes": 4, "vectors": 1, "accumulators": 1, "join_lanes": "sequence"}]})",
            {{o.x.begin(), o.x.begin() + 5}, {o.w.begin(), o.w.begin() + 5}},
            (((p(0) + p(4)) + p(1)) + p(2)) + p(3));
}

TEST(SumOrder, LanesThatGoOn) {
  const Operands o = Random(12);  // peel 1; one turn of 2 x 2, one of 2; then turns of 2, and 1
  const auto p = [&](int k) { return o.x[k] * o.w[k]; };
  const auto begin = [&](int size) {
    return Operands{{o.x.begin(), o.x.begin() + size}, {o.w.begin(), o.w.begin() + size}};
  };
  // Two accumulators joined lane by lane, where one goes on, with the tail; then the peel.
  const float lane0 = (((p(1) + p(5)) + (p(3) + p(7))) + p(9)) + p(11);
  const float lane1 = ((p(2) + p(6)) + (p(4) + p(8))) + p(10);
  ExpectDot(R"({"family": "lanes", "product": "rounded", "tail": "lanes", "peel": 1,
                "peel_joins": "last", "stages":
                [{"lanes": 2, "vectors": 2, "accumulators": 2},
                 {"lanes": 2, "vectors": 1, "accumulators": 1, "start": "lanes"}]})",
            o, 0.5F + (p(0) + (lane0 + lane1)), 0.5F, true, 1);
  // A joined total is where the next stage starts.
  const float total = ((p(0) + p(1)) + p(3)) + (p(2) + p(4));
  ExpectDot(R"({"family": "lanes", "product": "rounded", "tail": "lanes", "peel": 1, "stages":
                [{"lanes": 2, "vectors": 2, "accumulators": 1},
                 {"lanes": 4, "vectors": 1, "accumulators": 1, "start": "total",
                  "join_lanes": "sequence"}]})",
            begin(7), (total + p(5)) + p(6), 0, false, 1);
  // Fours of lanes in sequence, then neighbours.
  const float q0 = (p(0) + p(4)) + p(8), q1 = (p(1) + p(5)) + p(9);
  const float q2 = (p(2) + p(6)) + p(10), q3 = (p(3) + p(7)) + p(11);
  ExpectDot(R"({"family": "lanes", "product": "rounded", "stages":
                [{"lanes": 12, "vectors": 1, "accumulators": 1, "join_lanes": "quarters"}]})",
            o, (q0 + q1) + (q2 + q3));
}

TEST(SumOrder, Tree) {
  const Operands o = Random(3);
  const auto& [x, w] = o;
  ExpectDot(R"({"family": "tree", "tree": [2, 0, 1, -1, -1], "product": "rounded"})", o,
            x[2] * w[2] + (x[0] * w[0] + x[1] * w[1]));
  ExpectDot(R"({"family": "tree", "tree": [0, 2, -1, 1, -1]})", o,
            std::fma(x[1], w[1], std::fma(x[2], w[2], x[0] * w[0])));
}

TEST(SumOrder, ReaderRefuses) {
  const struct {
    const char* json;
    const char* message;
  } cases[] = {
      {R"([])", "place: expected an object, found []"},
      {R"({"family": "spiral"})", "'family': expected \"chain\", \"lanes\" or \"tree\""},
      {R"({"family": "chain", "blocks": 3})", "unknown key \"blocks\""},
      {R"({"family": "chain", "block": -1})", "'block'"},
      {R"({"family": "chain", "block": 8, "halve_below": 8})", "'halve_below' must be above"},
      {R"({"family": "chain", "group": [0, 2]})", "each element from 0 on must stand there once"},
      {R"({"family": "chain", "group": [[0, 1, 2]]})", "expected an element from 0 to 15"},
      {R"({"family": "chain", "group": [16]})", "expected an element from 0 to 15"},
      {R"({"family": "chain", "group": [[0, [1, [2, [3, [4, [5, [6, [7, [8, [9, [10, [11, [12, [13,
           [14, [15, 0]]]]]]]]]]]]]]]]]})",
       "expected at most 16 elements"},
      {R"({"family": "chain", "start": "chain", "block": 4})", "goes with neither"},
      {R"({"family": "chain", "tile": -1})", "'tile'"},
      {R"({"family": "chain", "tile": 4, "group": [1, 0]})", "'tile' goes with neither"},
      {R"({"family": "chain", "tile": 4, "tail": "descending"})", "'tile' goes with neither"},
      {R"({"family": "chain", "part": 4, "start": "chain"})", "goes not with 'part'"},
      {R"({"family": "chain", "product": "exact"})", "expected \"fused\" or \"rounded\""},
      {R"({"family": "chain", "halve": "up and down"})",
       "'halve': expected \"down\", \"up\" or \"rest\""},
      {R"({"family": "lanes", "stages": [{"lanes": 2, "vectors": 1, "accumulators": 1,
           "join_lanes": "quarters"}]})",
       "needs a multiple of 4 lanes"},
      {R"({"family": "lanes", "stages": [{"lanes": 2, "vectors": 2, "accumulators": 2,
           "join_accumulators": "quarters"}]})",
       "expected \"halves\" or \"sequence\""},
      {R"({"family": "lanes", "stages": [{"lanes": 2, "vectors": 1, "accumulators": 1,
           "start": "total"}]})",
       "no stage where the first one could start"},
      {R"({"family": "lanes", "stages": [{"lanes": 2, "vectors": 1, "accumulators": 1},
           {"lanes": 4, "vectors": 1, "accumulators": 1, "start": "lanes"}]})",
       "needs as many lanes (2)"},
      {R"({"family": "lanes", "peel_joins": "first",
           "stages": [{"lanes": 2, "vectors": 1, "accumulators": 1}]})",
       "'peel_joins': expected \"start\" or \"last\""},
      {R"({"family": "lanes"})", "'stages': expected a list"},
      {R"({"family": "lanes", "stages": [{"lanes": 65, "vectors": 1, "accumulators": 1}]})",
       "'lanes'"},
      {R"({"family": "lanes", "stages": [{"lanes": 8, "vectors": 3, "accumulators": 2}]})",
       "must divide"},
      {R"({"family": "lanes", "stages": [{"lanes": 6, "vectors": 1, "accumulators": 1}]})",
       "needs a power of two"},
      {R"({"family": "lanes", "stages": [{"lanes": 4, "vectors": 1, "accumulators": 1,
           "join_lanes": [1, 1]}]})",
       "'join_lanes': expected each power of two below"},
      {R"({"family": "lanes", "stages": [{"lanes": 4, "vectors": 1, "accumulators": 1,
           "join_lanes": [2]}]})",
       "'join_lanes': expected each power of two below"},
      {R"({"family": "lanes", "stages": [{"lanes": 4, "vectors": 1, "accumulators": 1,
           "join_lanes": [1, 2, 1e30]}]})",
       "'join_lanes': expected each power of two below"},
      {R"({"family": "lanes", "tail": "head",
           "stages": [{"lanes": 4, "vectors": 1, "accumulators": 1}]})",
       "'tail': expected"},
      {R"({"family": "lanes", "pairs": true,
           "stages": [{"lanes": 4, "vectors": 1, "accumulators": 1}]})",
       "'pairs' needs a single stage"},
      {R"({"family": "lanes", "peel": {"of": "z"},
           "stages": [{"lanes": 8, "vectors": 1, "accumulators": 1}]})",
       "'of': expected"},
      {R"({"family": "tree", "tree": [0, 1]})", "odd length"},
      {R"({"family": "tree", "tree": [0, 0, -1]})", "each element from 0 to 1 once"},
      {R"({"family": "tree", "tree": [0, -1, 1]})", "each element from 0 to 1 once"},
      {R"({"family": "tree", "tree": [0, 1, 2, -1, 3]})", "each element from 0 to 2 once"},
  };
  for (const auto& c : cases) {
    const std::string error =
        ErrorOf(ErrorCode::kBadInput, [&] { ReadSumOrder(ParseJson(c.json, "test"), "place"); });
    EXPECT_NE(error.find(c.message), std::string::npos) << c.json << "\n" << error;
    EXPECT_EQ(error.rfind("place", 0), 0U) << error;
  }
}

ProductArgs Shape(int64_t rows, int64_t size, int64_t outs) {
  ProductArgs a = ProductOf({.dtype = DType::kF32,
                             .weight_dtype = DType::kF32,
                             .x = nullptr,
                             .w = nullptr,
                             .bias = nullptr,
                             .y = nullptr,
                             .rows = rows,
                             .in_features = size,
                             .out_features = outs},
                            {});
  return a;
}

constexpr const char* kGemv = R"({"bias": "first", "classes": [
  {"columns": {"complete": 4}, "order": {"family": "lanes", "peel": {"of": "w", "row": 3, "least": 1},
    "stages": [{"lanes": 4, "vectors": 1, "accumulators": 1}]}},
  {"columns": {"rest": 4, "at": 0}, "order": {"family": "chain"}},
  {"columns": {"rest": 4, "at": 1}, "order": {"family": "chain", "block": 1}},
  {"columns": {"rest": 4, "at": 2}, "order": {"family": "chain", "block": 2}}]})";

TEST(SumRule, RegionsOfColumns) {
  const SumRule rule = ReadSumRule(ParseJson(kGemv, "test"), "test");
  const auto regions = Regions(rule, Shape(1, 5, 10));
  ASSERT_EQ(regions.size(), 3U);  // 8 complete, 9th, 10th
  EXPECT_EQ(regions[0].out_end, 8);
  // Row 3 of w starts at element 15, that is 3 after a multiple of 4: one element is least and
  // enough.
  EXPECT_EQ(regions[0].peel, 1);
  ProductArgs shifted = Shape(1, 5, 10);
  shifted.alignment.w = 1;
  EXPECT_EQ(Regions(rule, shifted)[0].peel, 4);
  EXPECT_EQ(regions[2].out_begin, 9);
  EXPECT_EQ(std::get<ChainOrder>(*regions[2].order).block, 1);
}

TEST(SumRule, RegionsByRow) {
  const SumRule rule = ReadSumRule(ParseJson(R"({"bias": "last", "classes": [
      {"order": {"family": "lanes", "peel": {"of": "x"},
                 "stages": [{"lanes": 4, "vectors": 1, "accumulators": 1}]}}]})",
                                             "test"),
                                   "test");
  EXPECT_EQ(Regions(rule, Shape(3, 8, 4)).size(), 1U);
  const auto regions = Regions(rule, Shape(3, 5, 4));
  ASSERT_EQ(regions.size(), 3U);
  EXPECT_EQ(regions[0].peel, 0);
  EXPECT_EQ(regions[1].peel, 3);
  EXPECT_EQ(regions[2].peel, 2);
}

TEST(SumRule, EveryOutputOnce) {
  const auto error = [](const char* classes) {
    const std::string json = fmt::format(R"({{"bias": "last", "classes": [{}]}})", classes);
    return ErrorOf(ErrorCode::kBadInput,
                   [&] { Regions(ReadSumRule(ParseJson(json, "test"), "here"), Shape(4, 8, 6)); });
  };
  EXPECT_NE(error(R"({"rows": [0, 2], "order": {"family": "chain"}},
                     {"rows": [1, null], "order": {"family": "chain"}})")
                .find("here: two classes of the rule hold row 1"),
            std::string::npos);
  EXPECT_NE(error(R"({"rows": [1, null], "order": {"family": "chain"}})")
                .find("hold 18 outputs of 4 x 6"),
            std::string::npos);
  EXPECT_NE(error(R"({"order": {"family": "tree", "tree": [0, 1, -1]}})")
                .find("a tree of 2 elements, for a product of 8"),
            std::string::npos);
}

TEST(SumRule, BiasRules) {
  // The sum is a little more than half a step of 1 in bfloat16, and half a step when it is rounded.
  const uint16_t bias = FloatToBF16(1.0F);
  const uint16_t x[] = {FloatToBF16(1.0F), FloatToBF16(1.0F)};
  const uint16_t w[] = {FloatToBF16(0x1p-8F), FloatToBF16(0x1p-17F)};
  uint16_t y = 0;
  ProductArgs a = Shape(1, 2, 1);
  a.dtype = a.weight_dtype = a.y_dtype = DType::kBF16;
  a.x = &x, a.w = &w, a.bias = &bias, a.y = &y;
  const auto value = [&](const std::string& bias_rule, const std::string& order) {
    const std::string json =
        R"({"bias": ")" + bias_rule + R"(", "classes": [{"order": )" + order + "}]}";
    Product(a, ReadSumRule(ParseJson(json, "test"), "test"), 0, 1, 0, 1);
    return BF16ToFloat(y);
  };
  const std::string chain = R"({"family": "chain"})";
  EXPECT_EQ(value("last", chain), 1.0078125F);
  EXPECT_EQ(value("rounded", chain), 1.0F);
  // As the start of the chain: 1 + 2^-8 is exact in fp32, and so is the rest.
  EXPECT_EQ(value("first", chain), 1.0078125F);
}

}  // namespace
}  // namespace samebits
