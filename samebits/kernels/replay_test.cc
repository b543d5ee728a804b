// The fast kernels of replayed orders against the interpreter: bit for bit, for every family,
// dtype, layout, tail, misalignment and split.
#include "samebits/kernels/replay.h"

#include <gtest/gtest.h>

#include "samebits/kernels/kernels_testing.h"

namespace samebits {
namespace {

// Orders that were measured (docs/numerics/torch-linear.md), and others of their families.
constexpr const char* kOrders[] = {
    R"({"family": "lanes", "tail_product": "rounded", "stages":
        [{"lanes": 8, "vectors": 8, "accumulators": 8}, {"lanes": 8, "vectors": 2, "accumulators": 1}]})",
    R"({"family": "lanes", "tail": "lane0", "stages":
        [{"lanes": 4, "vectors": 1, "accumulators": 1, "join_lanes": "sequence"}]})",
    R"({"family": "lanes", "peel": {"of": "w", "row": 3, "least": 1}, "product": "rounded", "stages":
        [{"lanes": 4, "vectors": 1, "accumulators": 1}]})",
    R"({"family": "lanes", "peel": {"of": "x"}, "product": "rounded", "stages":
        [{"lanes": 4, "vectors": 2, "accumulators": 2}]})",
    R"({"family": "lanes", "peel": {"of": "x", "least": 1}, "product": "rounded", "stages":
        [{"lanes": 4, "vectors": 2, "accumulators": 1}]})",
    R"({"family": "lanes", "stages":
        [{"lanes": 8, "vectors": 4, "accumulators": 4, "join_accumulators": "sequence"}]})",
    R"({"family": "lanes", "stages": [{"lanes": 16, "vectors": 1, "accumulators": 1}]})",
    R"({"family": "lanes", "tail": "lanes", "stages":
        [{"lanes": 16, "vectors": 1, "accumulators": 1, "join_lanes": "quarters"}]})",
    R"({"family": "lanes", "peel": 1, "tail": "lanes", "stages":
        [{"lanes": 16, "vectors": 1, "accumulators": 1},
         {"lanes": 16, "vectors": 1, "accumulators": 1, "start": "total"}]})",
    R"({"family": "lanes", "peel": 1, "peel_joins": "last", "tail": "lanes", "stages":
        [{"lanes": 16, "vectors": 2, "accumulators": 2},
         {"lanes": 16, "vectors": 1, "accumulators": 1, "start": "lanes"}]})",
    R"({"family": "lanes", "peel": 5, "product": "rounded", "tail": "lanes", "stages":
        [{"lanes": 16, "vectors": 4, "accumulators": 2, "join_accumulators": "sequence"},
         {"lanes": 16, "vectors": 2, "accumulators": 2, "start": "lanes"},
         {"lanes": 8, "vectors": 1, "accumulators": 1},
         {"lanes": 16, "vectors": 1, "accumulators": 1, "start": "total",
          "join_lanes": "quarters"}]})",
    R"({"family": "lanes", "peel": 3, "peel_joins": "last", "tail_product": "rounded", "stages":
        [{"lanes": 4, "vectors": 2, "accumulators": 1},
         {"lanes": 4, "vectors": 1, "accumulators": 1, "start": "total"}]})",
    R"({"family": "lanes", "tail": "lanes", "stages":
        [{"lanes": 8, "vectors": 4, "accumulators": 4}]})",
    R"({"family": "chain", "block": 192, "halve_below": 384})",
    R"({"family": "chain", "block": 384, "halve_below": 768, "halve": "up"})",
    R"({"family": "chain", "block": 48, "halve_below": 96, "halve": "rest", "group": [1, 0]})",
    R"({"family": "chain", "group": [6, 4, [7, 5], [[2, 0], [3, 1]]], "start": "chain"})",
    R"({"family": "chain", "product": "rounded"})",
    R"({"family": "chain", "product": "rounded", "start": "chain"})",
    R"({"family": "chain", "block": 512, "group": [1, 0], "flush": true, "first": "set"})",
    R"({"family": "chain", "group": [2, 0, 1], "tail": "descending"})",
    R"({"family": "chain", "group": [[[0, 2], [1, 3]]], "tail": "descending", "start": "chain",
        "product": "rounded"})",
    R"({"family": "chain", "group": [0, 1, 2, 3, [[[4, 5], 6], 7]], "start": "chain",
        "product": "rounded"})",
    R"({"family": "chain", "tail": "descending"})",
    R"({"family": "chain", "block": 288, "tile": 32, "flush": true, "first": "set"})",
    R"({"family": "chain", "block": 64, "part": 192, "tile": 32, "flush": true, "first": "set"})",
    R"({"family": "chain", "block": 10, "part": 20})",
    R"({"family": "chain", "block": 40, "halve_below": 80, "halve": "up", "part": 95})",
    R"({"family": "chain", "tile": 20, "flush": true, "start": "chain"})",
    R"({"family": "chain", "tile": 7, "product": "rounded"})",
    R"({"family": "chain", "tile": 300})",
    R"({"family": "lanes", "pairs": true, "flush": true, "tail": "lanes", "stages":
        [{"lanes": 16, "vectors": 2, "accumulators": 1, "join_lanes": [8, 1, 2, 4]}]})",
    R"({"family": "lanes", "tail": "lanes", "flush": true, "product": "rounded", "stages":
        [{"lanes": 8, "vectors": 2, "accumulators": 2, "join_lanes": [1, 4, 2]}]})",
};

SumRule Rule(const std::string& order, const char* bias) {
  const std::string json =
      fmt::format(R"({{"bias": "{}", "classes": [{{"order": {}}}]}})", bias, order);
  return ReadSumRule(ParseJson(json, "test"), "test");
}

class RandomProduct {
 public:
  RandomProduct(DType dtype, DType y_dtype, int64_t rows, int64_t size, int64_t outs, Data data,
                int seed)
      : random_(seed),
        x_(dtype, rows * size),
        w_(dtype, outs * size),
        bias_(dtype, outs),
        old_(y_dtype, rows * outs),
        expected_(y_dtype, rows * outs),
        actual_(y_dtype, rows * outs) {
    FillData(x_, data, random_);
    FillData(w_, data, random_);
    FillData(bias_, data, random_);
    FillData(old_, Data::kNormal, random_);
    args_ = {.dtype = dtype,
             .weight_dtype = dtype,
             .y_dtype = y_dtype,
             .x = x_.data(),
             .w = w_.data(),
             .bias = nullptr,
             .y = nullptr,
             .accumulate = false,
             .rows = rows,
             .in_features = size,
             .out_features = outs,
             .x_row_stride = size,
             .w_out_stride = size,
             .w_in_stride = 1,
             .y_row_stride = outs,
             .alignment = {.x = static_cast<int32_t>(random_() % 4),
                           .w = static_cast<int32_t>(random_() % 4),
                           .y = static_cast<int32_t>(random_() % 4)}};
  }

  void Bias() { args_.bias = bias_.data(); }
  void Accumulate() { args_.accumulate = true; }
  void InMajor() {  // as v of attention lies
    args_.w_out_stride = 1;
    args_.w_in_stride = args_.out_features;
  }

  // The fast kernel in four pieces, cut at random.
  void Compare(Isa isa, const SumRule& rule, const std::string& what) {
    const int64_t rows = args_.rows, outs = args_.out_features;
    expected_.CopyFrom(old_);
    actual_.CopyFrom(old_);
    args_.y = expected_.data();
    Product(args_, rule, 0, rows, 0, outs);
    args_.y = actual_.data();
    const auto row = static_cast<int64_t>(random_() % static_cast<uint64_t>(rows + 1));
    const auto out = static_cast<int64_t>(random_() % static_cast<uint64_t>(outs + 1));
    ReplayProduct(isa, args_, rule, 0, row, 0, out);
    ReplayProduct(isa, args_, rule, row, rows, 0, out);
    ReplayProduct(isa, args_, rule, 0, row, out, outs);
    ReplayProduct(isa, args_, rule, row, rows, out, outs);
    ASSERT_TRUE(BitsEqual(args_.y_dtype, expected_.data(), actual_.data(), rows * outs))
        << what << " rows " << rows << " size " << args_.in_features << " outs " << outs;
  }

 private:
  std::mt19937 random_;
  GuardedArray x_, w_, bias_, old_, expected_, actual_;
  ProductArgs args_{};
};

class ReplayTest : public KernelsTest {};

TEST_P(ReplayTest, EveryOrderLikeTheInterpreter) {
  const struct {
    int64_t rows, size, outs;
  } shapes[] = {{1, 1, 1},    {1, 64, 9},   {2, 63, 5},   {3, 65, 17},   {4, 193, 12}, {5, 100, 33},
                {7, 256, 16}, {6, 383, 18}, {13, 577, 3}, {1, 1030, 20}, {8, 31, 15},  {2, 8, 70}};
  int seed = 0;
  for (const char* order : kOrders) {
    for (const auto& shape : shapes) {
      const Data data = kAllData[static_cast<size_t>(seed) % std::size(kAllData)];
      for (const char* bias : {"first", "last", "rounded"}) {
        RandomProduct with_bias(dtype(), dtype(), shape.rows, shape.size, shape.outs, data, ++seed);
        with_bias.Bias();
        with_bias.Compare(isa(), Rule(order, bias), order);
      }
      RandomProduct plain(dtype(), dtype(), shape.rows, shape.size, shape.outs, data, ++seed);
      plain.Compare(isa(), Rule(order, "first"), order);
      plain.InMajor();
      plain.Compare(isa(), Rule(order, "first"), order);
      RandomProduct onto(dtype(), DType::kF32, shape.rows, shape.size, shape.outs, data, ++seed);
      onto.Accumulate();
      onto.InMajor();
      onto.Compare(isa(), Rule(order, "first"), order);
      if (HasFatalFailure()) return;
    }
  }
}

TEST_P(ReplayTest, ClassesOfRowsAndColumns) {
  const SumRule rule = ReadSumRule(ParseJson(R"({"bias": "first", "classes": [
    {"rows": [0, 4], "order": {"family": "chain", "block": 192, "halve_below": 384}},
    {"rows": [4, null], "columns": {"complete": 4}, "order": {"family": "lanes",
      "peel": {"of": "x"}, "stages": [{"lanes": 4, "vectors": 1, "accumulators": 1}]}},
    {"rows": [4, null], "columns": {"rest": 4}, "order": {"family": "lanes",
      "peel": {"of": "x"}, "stages": [{"lanes": 4, "vectors": 2, "accumulators": 2}]}}]})",
                                             "test"),
                                   "test");
  for (int seed = 0; seed < 20; ++seed) {
    RandomProduct product(dtype(), dtype(), 5 + seed % 3, 190 + seed, 10 + seed, Data::kCancelling,
                          seed);
    if (seed % 2 == 0) product.Bias();
    product.Compare(isa(), rule, "classes");
    if (HasFatalFailure()) return;
  }
}

INSTANTIATE_TEST_SUITE_P(Isas, ReplayTest,
                         testing::Combine(testing::ValuesIn(kFastIsas),
                                          testing::ValuesIn(kModelDTypes)),
                         KernelsTestName);

}  // namespace
}  // namespace samebits
