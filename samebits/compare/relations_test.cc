// Every relation: planted, found with its name and its numbers, and not found when the last of all
// elements is one bit off.
#include "samebits/compare/relations.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "samebits/compare/relations_testing.h"

namespace samebits {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

constexpr DType kDTypes[] = {DType::kF32, DType::kBF16, DType::kF16};
constexpr int64_t kHeadDim = 8;
constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

std::vector<Relation> Find(const Tensor& a, const Tensor& b, int64_t head_dim = kHeadDim) {
  return FindRelation(a.view(), b.view(), head_dim);
}

std::vector<std::string> Ids(const std::vector<Relation>& steps) {
  std::vector<std::string> ids;
  ids.reserve(steps.size());
  for (const Relation& step : steps) ids.push_back(step.id + (step.from_a ? "" : " of b"));
  return ids;
}

// The relation is found from a to b, and nothing is when one element is off.
Relation ExpectFound(const Tensor& a, const Tensor& b, const std::string& id,
                     int64_t head_dim = kHeadDim) {
  const std::vector<Relation> steps = Find(a, b, head_dim);
  EXPECT_THAT(Ids(steps), ElementsAre(id)) << DTypeName(a.dtype()) << " " << DTypeName(b.dtype());
  EXPECT_THAT(Ids(Find(a, OneOff(b), head_dim)), IsEmpty()) << id << " with one element off";
  return steps.empty() ? Relation() : steps[0];
}

std::vector<int64_t> Identity(int64_t n) {
  std::vector<int64_t> order(n);
  std::iota(order.begin(), order.end(), 0);
  return order;
}

std::vector<int64_t> Shuffled(int64_t n, unsigned seed) {
  std::vector<int64_t> order = Identity(n);
  std::mt19937 random(seed);
  std::shuffle(order.begin(), order.end(), random);
  return order;
}

// Blocks of kHeadDim in the order given.
std::vector<int64_t> Blocks(const std::vector<int64_t>& order) {
  std::vector<int64_t> lines;
  for (const int64_t block : order) {
    for (int64_t i = 0; i < kHeadDim; ++i) lines.push_back(block * kHeadDim + i);
  }
  return lines;
}

TEST(Relations, Unrelated) {
  for (const DType dtype : kDTypes) {
    const Tensor a = RandomTensor(dtype, {32, 24}, 1), b = RandomTensor(dtype, {32, 24}, 2);
    EXPECT_THAT(Find(a, b), IsEmpty());
    EXPECT_THAT(Find(a, OneOff(a)), IsEmpty());
    EXPECT_THAT(Find(a, RandomTensor(dtype, {24, 32}, 2)), IsEmpty());
    EXPECT_THAT(Find(a, RandomTensor(dtype, {32, 25}, 2)), IsEmpty());
    EXPECT_THAT(Find(a, RandomTensor(dtype, {32 * 24}, 2)), IsEmpty());
  }
}

TEST(Relations, Transposed) {
  for (const DType dtype : kDTypes) {
    const Tensor wide = RandomTensor(dtype, {33, 70}, 1), square = RandomTensor(dtype, {40, 40}, 2);
    ExpectFound(wide, Transposed(wide), "transposed");
    ExpectFound(square, Transposed(square), "transposed");
  }
}

TEST(Relations, Reshaped) {
  const Tensor a = RandomTensor(DType::kBF16, {4, 6}, 1);
  const auto same = [](int64_t i, const std::vector<double>& x) { return x[i]; };
  ExpectFound(a, Made(a, DType::kBF16, {2, 2, 6}, same), "reshaped");
  ExpectFound(a, Made(a, DType::kBF16, {6, 4}, same), "reshaped");
}

TEST(Relations, RowsPermuted) {
  for (const DType dtype : kDTypes) {
    const Tensor a = RandomTensor(dtype, {16, 5}, 1);
    const std::vector<int64_t> order = Shuffled(16, 3);
    const Relation found = ExpectFound(a, RowsTaken(a, order), "rows-permuted");
    EXPECT_EQ(found.order, order);
    const Tensor bias = RandomTensor(dtype, {48}, 1);
    ExpectFound(bias, RowsTaken(bias, Shuffled(48, 3)), "rows-permuted");
    const Tensor cube = RandomTensor(dtype, {7, 3, 2}, 1);
    ExpectFound(cube, RowsTaken(cube, Shuffled(7, 3)), "rows-permuted");
  }
}

// Rows that are there twice go to themselves where they can.
TEST(Relations, RowsThatAreEqual) {
  Tensor a = RandomTensor(DType::kF32, {6, 3}, 1);
  for (int64_t i = 0; i < 3; ++i) a.as<float>()[3 + i] = a.as<float>()[12 + i] = 0;  // rows 1, 4
  const Relation found = ExpectFound(a, RowsTaken(a, {2, 1, 0, 3, 4, 5}), "rows-permuted");
  EXPECT_THAT(found.order, ElementsAre(2, 1, 0, 3, 4, 5));
  // The same rows, but one of them another number of times.
  const Tensor twice = RowsTaken(a, {0, 1, 2, 3, 3, 5});
  EXPECT_THAT(Find(a, twice), IsEmpty());
}

TEST(Relations, HeadsPermuted) {
  for (const DType dtype : kDTypes) {
    const Tensor a = RandomTensor(dtype, {4 * kHeadDim, 5}, 1);
    const Tensor b = RowsTaken(a, Blocks({2, 0, 1, 3}));
    EXPECT_THAT(ExpectFound(a, b, "heads-permuted").order, ElementsAre(2, 0, 1, 3));
    // Without head_dim, or with one that does not fit, it is rows.
    ExpectFound(a, b, "rows-permuted", 0);
    ExpectFound(a, b, "rows-permuted", 5);
    const Tensor bias = RandomTensor(dtype, {3 * kHeadDim}, 1);
    ExpectFound(bias, RowsTaken(bias, Blocks({1, 0, 2})), "heads-permuted");
    // Two rows swapped within a head.
    std::vector<int64_t> order = Blocks({2, 0, 1, 3});
    std::swap(order[0], order[1]);
    ExpectFound(a, RowsTaken(a, order), "rows-permuted");
  }
}

TEST(Relations, ColumnsPermuted) {
  for (const DType dtype : kDTypes) {
    const Tensor a = RandomTensor(dtype, {5, 4 * kHeadDim}, 1);
    const std::vector<int64_t> order = Shuffled(4 * kHeadDim, 4);
    EXPECT_EQ(ExpectFound(a, ColumnsTaken(a, order), "columns-permuted").order, order);
    const Tensor heads = ColumnsTaken(a, Blocks({3, 1, 2, 0}));
    EXPECT_THAT(ExpectFound(a, heads, "head-columns-permuted").order, ElementsAre(3, 1, 2, 0));
    ExpectFound(a, heads, "columns-permuted", 0);
  }
  // The same columns as multisets, but not as columns.
  Tensor a = RandomTensor(DType::kF32, {2, 3}, 1);
  Tensor b = Mapped(a, DType::kF32, [](double v) { return v; });
  std::swap(b.as<float>()[0], b.as<float>()[1]);
  EXPECT_THAT(Find(a, b), IsEmpty());
}

// Hugging Face's convert_llama_weights_to_hf.py: view(heads, D / 2, 2, E).transpose(1, 2).
TEST(Relations, RotaryLayouts) {
  for (const DType dtype : kDTypes) {
    for (const Shape& shape : {Shape{3 * kHeadDim, 5}, Shape{3 * kHeadDim}}) {
      const Tensor meta = RandomTensor(dtype, shape, 1);
      std::vector<int64_t> order;
      for (int64_t head = 0; head < 3; ++head) {
        for (int64_t part = 0; part < 2; ++part) {
          for (int64_t pair = 0; pair < kHeadDim / 2; ++pair) {
            order.push_back(head * kHeadDim + pair * 2 + part);
          }
        }
      }
      const Tensor hugging_face = RowsTaken(meta, order);
      ExpectFound(meta, hugging_face, "rotary-pairs-to-halves");
      ExpectFound(hugging_face, meta, "rotary-halves-to-pairs");
      ExpectFound(meta, hugging_face, "rows-permuted", 0);
      std::swap(order[0], order[1]);
      ExpectFound(meta, RowsTaken(meta, order), "rows-permuted");
    }
  }
}

TEST(Relations, RoundedToAnotherDType) {
  const auto same = [](double v) { return v; };
  for (const auto& [wide, narrow, id] :
       {std::tuple{DType::kF32, DType::kBF16, "rounded-to-bfloat16"},
        {DType::kF32, DType::kF16, "rounded-to-float16"},
        {DType::kF16, DType::kBF16, "rounded-to-bfloat16"},
        {DType::kBF16, DType::kF16, "rounded-to-float16"}}) {
    const Tensor a = RandomTensor(wide, {20, 30}, 1, 1e-3);  // float16 has subnormals there
    const Tensor b = Mapped(a, narrow, same);
    ExpectFound(a, b, id);
    EXPECT_THAT(Ids(Find(b, a)), ElementsAre(std::string(id) + " of b"));
    // Both a transposition and a rounding.
    EXPECT_THAT(Ids(Find(a, Transposed(b))), ElementsAre("transposed", id));
    EXPECT_THAT(Ids(Find(a, OneOff(Transposed(b)))), IsEmpty());
    EXPECT_THAT(Ids(Find(Transposed(b), a)),
                ElementsAre("transposed of b", std::string(id) + " of b"));
  }
}

TEST(Relations, SameNumbersInAWiderDType) {
  const auto same = [](double v) { return v; };
  for (const DType narrow : {DType::kBF16, DType::kF16}) {
    const Tensor a = RandomTensor(narrow, {20, 30}, 1);
    const Tensor b = Mapped(a, DType::kF32, same);
    EXPECT_THAT(Ids(Find(a, b)), ElementsAre("same-numbers"));
    EXPECT_THAT(Ids(Find(b, a)), ElementsAre("same-numbers"));
    // A bit that the narrow dtype does not hold: the narrow one is the rounded one.
    EXPECT_THAT(Ids(Find(a, OneOff(b))),
                ElementsAre(narrow == DType::kBF16 ? "rounded-to-bfloat16 of b"
                                                   : "rounded-to-float16 of b"));
    EXPECT_THAT(Ids(Find(a, Transposed(b))), ElementsAre("transposed", "same-numbers"));
  }
}

TEST(Relations, RoundedThrough) {
  const auto through = [](DType dtype) {
    return [dtype](double v) { return RoundToDType(v, dtype); };
  };
  const Tensor a = RandomTensor(DType::kF32, {20, 30}, 1, 1e-3);
  ExpectFound(a, Mapped(a, DType::kF32, through(DType::kF16)), "rounded-through-float16");
  ExpectFound(a, Mapped(a, DType::kF32, through(DType::kBF16)), "rounded-through-bfloat16");
  EXPECT_THAT(Ids(Find(Mapped(a, DType::kF32, through(DType::kF16)), a)),
              ElementsAre("rounded-through-float16 of b"));
  // bfloat16 has three digits less: through float16 only what is tiny or huge changes.
  const Tensor tiny = RandomTensor(DType::kBF16, {20, 30}, 1, 1e-6);
  ExpectFound(tiny, Mapped(tiny, DType::kBF16, through(DType::kF16)), "rounded-through-float16");
  const Tensor half = RandomTensor(DType::kF16, {20, 30}, 1);
  ExpectFound(half, Mapped(half, DType::kF16, through(DType::kBF16)), "rounded-through-bfloat16");
  // Two roundings: not what bfloat16 from float32 gives at once, on numbers that show it.
  Tensor near = RandomTensor(DType::kF32, {20, 30}, 1);
  for (int i = 0; i < 10; ++i) near.as<float>()[i] = 1 + 0x1p-8F + 0x1p-13F * (i + 1) / 16;
  ExpectFound(near, Mapped(near, DType::kBF16, through(DType::kF16)), "rounded-through-float16");
  ExpectFound(near, Mapped(near, DType::kBF16, [](double v) { return v; }), "rounded-to-bfloat16");
}

TEST(Relations, Truncated) {
  const auto cut = [](double v) {
    return std::bit_cast<float>(std::bit_cast<uint32_t>(static_cast<float>(v)) & 0xffff0000U);
  };
  const Tensor a = RandomTensor(DType::kF32, {20, 30}, 1);
  ExpectFound(a, Mapped(a, DType::kBF16, cut), "truncated-to-bfloat16");
  const Tensor half = RandomTensor(DType::kF16, {20, 30}, 1);
  ExpectFound(half, Mapped(half, DType::kBF16, cut), "truncated-to-bfloat16");
  EXPECT_THAT(Ids(Find(a, Transposed(Mapped(a, DType::kBF16, cut)))),
              ElementsAre("transposed", "truncated-to-bfloat16"));
  // In float32 the cut-off bits are zeros.
  const Tensor kept = Mapped(a, DType::kF32, cut);
  EXPECT_THAT(Ids(Find(a, kept)), ElementsAre("truncated-to-bfloat16"));
  EXPECT_THAT(Ids(Find(a, OneOff(kept))), IsEmpty());
}

TEST(Relations, Scaled) {
  for (const DType dtype : kDTypes) {
    const Tensor a = RandomTensor(dtype, {30, 40}, 1);
    for (const double constant : {0.125, 2.0, -1.0, 3.0, 0.08838834764831845, 0.1, -1.7}) {
      const auto narrow = static_cast<double>(static_cast<float>(constant));
      const Tensor b = Mapped(a, dtype, [&](double v) { return v * narrow; });
      const Relation found = ExpectFound(a, b, "scaled");
      // Any constant that gives these bits is right; float32 determines it to its last bits.
      const double step = dtype == DType::kF32 ? 0x1p-23 : 0x1p-8;
      EXPECT_NEAR(found.constant, narrow, std::fabs(narrow) * step) << constant;
      for (int64_t i = 0; i < a.elements(); ++i) {
        const double product = ToDoubles(a.view())[i] * found.constant;
        const double made = found.through_fp32 ? static_cast<float>(product) : product;
        ASSERT_EQ(RoundToDType(made, dtype), ToDoubles(b.view())[i]) << constant;
        i += 97;
      }
    }
  }
}

TEST(Relations, ScaledByTheShortestDecimal) {
  const Tensor a = RandomTensor(DType::kF32, {30, 40}, 1);
  for (const float constant : {0.1F, 0.125F, 2.0F, -1.0F, 1e-5F, 123456.0F}) {
    const Tensor b = Mapped(a, DType::kF32, [&](double v) { return v * constant; });
    const std::vector<Relation> found = Find(a, b);
    ASSERT_THAT(Ids(found), ElementsAre("scaled"));
    EXPECT_EQ(found[0].constant, static_cast<double>(constant));
    EXPECT_EQ(DescribeRelation(found[0]), fmt::format("scaled by {}", constant));
  }
}

// 16-bit kernels compute in fp32 and round twice, which now and then is not what one rounding
// gives.
TEST(Relations, ShiftedThroughFloat32) {
  // 1 + 2^-11 lies between two numbers of float16. The sums with 0, 2^-10 and 2^-9 are ties, which
  // pin the constant from both sides; the one with 2^-24 becomes a tie in fp32.
  Tensor a = RandomTensor(DType::kF16, {20, 30}, 1);
  const double pins[] = {0, 0x1p-24, 0x1p-10, 0x1p-9};
  for (int i = 0; i < 4; ++i) StoreValue(a, i, pins[i]);
  const float constant = 1 + 0x1p-11F;
  int64_t differ = 0;
  const Tensor b = Mapped(a, DType::kF16, [&](double v) {
    const double twice = RoundToDType(static_cast<float>(v) + constant, DType::kF16);
    differ += twice != RoundToDType(v + constant, DType::kF16) ? 1 : 0;
    return twice;
  });
  ASSERT_GT(differ, 0);  // otherwise this shows nothing
  const Relation found = ExpectFound(a, b, "shifted");
  EXPECT_TRUE(found.through_fp32);
  EXPECT_EQ(found.constant, static_cast<double>(constant));
}

// A tiny constant that only the tiniest element feels is no relation: one bit off is a bit off.
TEST(Relations, OneElementIsNotShifted) {
  const Tensor a = RandomTensor(DType::kBF16, {8, 6}, 1);
  for (int64_t i = 0; i < a.elements(); ++i) {
    Tensor b = Mapped(a, DType::kBF16, [](double v) { return v; });
    b.as<uint16_t>()[i] ^= 1;
    EXPECT_THAT(Ids(Find(a, b)), IsEmpty()) << i;
    b.as<uint16_t>()[i] ^= 3;
    EXPECT_THAT(Ids(Find(a, b)), IsEmpty()) << i;
  }
}

TEST(Relations, ScaledFromTheSecond) {
  const Tensor a = RandomTensor(DType::kBF16, {30, 40}, 1);
  const Tensor b = Mapped(a, DType::kBF16, [](double v) { return v * 1.3; });
  EXPECT_THAT(Ids(Find(a, b)), ElementsAre("scaled"));
  EXPECT_THAT(Ids(Find(b, a)), ElementsAre("scaled of b"));
}

TEST(Relations, Shifted) {
  for (const DType dtype : kDTypes) {
    const Tensor a = RandomTensor(dtype, {30, 40}, 1);
    for (const float constant : {1.0F, -1.0F, 0.1F, 1e-3F, 1000.0F}) {
      const Tensor b = Mapped(a, dtype, [&](double v) { return v + constant; });
      ExpectFound(a, b, "shifted");
      EXPECT_THAT(Ids(Find(a, OneOff(b))), IsEmpty()) << constant;
    }
    // An RMSNorm weight that is stored as w - 1.
    const std::vector<Relation> one = Find(a, Mapped(a, dtype, [](double v) { return v + 1; }));
    ASSERT_EQ(one.size(), 1U);
    EXPECT_EQ(one[0].constant, 1);
    EXPECT_EQ(DescribeRelation(one[0]), "shifted by 1");
  }
}

TEST(Relations, SpecialNumbersGoWithTheRelation) {
  Tensor a = RandomTensor(DType::kF32, {10, 10}, 1);
  const double special[] = {0.0, -0.0, kInf, -kInf, kNan, 0x1p-149, -0x1p-140, 3e38};
  for (int i = 0; i < 8; ++i) StoreValue(a, i, special[i]);
  const auto edited = [&](const std::function<double(double)>& value) {
    return Mapped(a, DType::kF32, value);
  };
  ExpectFound(a, edited([](double v) { return v * 2; }), "scaled");  // 3e38 overflows
  ExpectFound(a, edited([](double v) { return v * -0.25; }), "scaled");
  ExpectFound(a, edited([](double v) { return v + 1; }), "shifted");
  ExpectFound(a, edited([](double v) { return RoundToDType(v, DType::kBF16); }),
              "rounded-through-bfloat16");
  ExpectFound(a, Transposed(a), "transposed");
  // One special number that does not go with it.
  for (const auto& [place, value] : {std::pair{0, 1.0},
                                     {0, -0.0},
                                     {1, 0.0},
                                     {2, -kInf},
                                     {2, 1.0},
                                     {4, 1.0},
                                     {8, kNan},
                                     {8, kInf},
                                     {9, 0.0}}) {
    Tensor b = edited([](double v) { return v * 2; });
    StoreValue(b, place, value);
    EXPECT_THAT(Ids(Find(a, b)), IsEmpty()) << place << " " << value;
  }
}

TEST(Relations, SignsOfZerosAndBitsOfNans) {
  Tensor a = RandomTensor(DType::kF32, {10, 10}, 1);
  StoreValue(a, 5, -0.0);
  Tensor b = Mapped(a, DType::kF32, [](double v) { return v + 0.0; });
  const Relation zero = ExpectFound(a, b, "shifted");
  EXPECT_EQ(zero.constant, 0);
  StoreValue(a, 5, kNan);
  b = Mapped(a, DType::kF32, [](double v) { return v; });
  b.as<uint32_t>()[5] ^= 0x80000000U;
  EXPECT_THAT(Ids(Find(a, b)), ElementsAre("same-numbers"));
}

// Zeros can be anything times zero: no relation.
TEST(Relations, ZerosAreNotScaled) {
  const Tensor a = RandomTensor(DType::kF32, {10, 10}, 1);
  EXPECT_THAT(Ids(Find(a, Tensor(DType::kF32, {10, 10}))), IsEmpty());
  // A constant against another one, as in norms that were never trained, is one.
  const Tensor ones = Mapped(a, DType::kF32, [](double) { return 1; });
  const Tensor twos = Mapped(a, DType::kF32, [](double) { return 2; });
  EXPECT_THAT(Ids(Find(ones, twos)), ElementsAre("scaled"));
}

TEST(Relations, EmptyTensorsAndScalars) {
  for (const Shape& shape : {Shape{0}, Shape{0, 3}, Shape{3, 0}}) {
    const Tensor empty(DType::kF32, shape);
    EXPECT_THAT(Find(empty, Tensor(DType::kF32, {0, 7})), IsEmpty());
    EXPECT_THAT(Find(empty, Tensor(DType::kBF16, shape)), IsEmpty());
    EXPECT_THAT(Find(empty, RandomTensor(DType::kF32, {2, 3}, 1)), IsEmpty());
  }
  Tensor two(DType::kF32, {}), three(DType::kF32, {});
  StoreValue(two, 0, 2);
  StoreValue(three, 0, 3);
  EXPECT_THAT(Ids(Find(two, three)), ElementsAre("scaled"));
  Tensor vector(DType::kF32, {1});
  StoreValue(vector, 0, 2);
  EXPECT_THAT(Ids(Find(two, vector)), ElementsAre("reshaped"));
}

// Dtypes that are not numbers here are moved all the same.
TEST(Relations, Integers) {
  const std::vector<uint8_t> a = {1, 2, 3, 4, 5, 6}, b = {1, 4, 2, 5, 3, 6};
  const auto view = [](const std::vector<uint8_t>& v, Shape shape) {
    return TensorView{DType::kU8, std::move(shape), reinterpret_cast<const std::byte*>(v.data())};
  };
  EXPECT_THAT(Ids(FindRelation(view(a, {2, 3}), view(b, {3, 2}), 0)), ElementsAre("transposed"));
  EXPECT_THAT(Ids(FindRelation(view(a, {6}), view(b, {6}), 0)), ElementsAre("rows-permuted"));
  EXPECT_THAT(FindRelation(view(a, {2, 3}), view(b, {2, 3}), 0), IsEmpty());
}

TEST(Relations, DoublePrecision) {
  std::vector<double> a(40), b;
  std::mt19937 random(1);
  std::normal_distribution<double> normal;
  for (double& v : a) v = normal(random);
  std::vector<float> narrow(a.begin(), a.end());
  const TensorView wide = {DType::kF64, {8, 5}, reinterpret_cast<const std::byte*>(a.data())};
  const TensorView rounded = {
      DType::kF32, {8, 5}, reinterpret_cast<const std::byte*>(narrow.data())};
  EXPECT_THAT(Ids(FindRelation(wide, rounded, 0)), ElementsAre("rounded-to-float32"));
  narrow[39] = std::nextafter(narrow[39], 100.0F);
  EXPECT_THAT(FindRelation(wide, rounded, 0), IsEmpty());
  b = a;
  for (double& v : b) v *= 2;
  const TensorView doubled = {DType::kF64, {8, 5}, reinterpret_cast<const std::byte*>(b.data())};
  EXPECT_THAT(FindRelation(wide, doubled, 0), IsEmpty());  // scales of F64 are not looked for
}

TEST(Relations, Descriptions) {
  EXPECT_EQ(DescribeRelation({"transposed", true, {}, 0, false}), "transposed");
  EXPECT_EQ(DescribeRelation({"same-numbers", true, {}, 0, false}),
            "number for number, in other bits");
  EXPECT_EQ(DescribeRelation({"heads-permuted", true, {1, 0}, 0, false}), "heads permuted: 1 0");
  EXPECT_THAT(DescribeRelation({"rows-permuted", true, Shuffled(40, 1), 0, false}),
              testing::EndsWith(" ..."));
}

}  // namespace
}  // namespace samebits
