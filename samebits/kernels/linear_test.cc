// The fast linear kernels against the interpreter, bit for bit.
#include <gtest/gtest.h>

#include <deque>
#include <vector>

#include "samebits/kernels/kernels_testing.h"
#include "samebits/kernels/parallel_linear.h"
#include "samebits/kernels/tables.h"
#include "samebits/numerics/canonical.h"

namespace samebits {
namespace {

struct LinearCase {
  int64_t rows, in, out;
  DType weight_dtype;
  bool bias;
  Data data;
  int64_t slack;
};

// Those of an instruction set, whichever is the faster on this CPU.
std::vector<LinearKernel> LinearKernels(const Kernels& kernels) {
  if (kernels.isa != Isa::kAvx512Bf16) return {kernels.linear};
  return {kAvx512Bf16Linear[0], kAvx512Bf16Linear[1]};
}

class LinearTest : public KernelsTest {
 protected:
  // Both on the same range; everything outside the range must stay as it was.
  void Compare(const LinearCase& c, int64_t row_begin, int64_t row_end, int64_t out_begin,
               int64_t out_end) {
    GuardedArray x(dtype(), c.rows * c.in, c.slack), w(c.weight_dtype, c.out * c.in, c.slack);
    GuardedArray bias(c.weight_dtype, c.out, c.slack);
    GuardedArray expected(dtype(), c.rows * c.out), actual(dtype(), c.rows * c.out, c.slack);
    FillData(x, c.data, random_);
    FillData(w, c.data, random_);
    FillData(bias, c.data, random_);
    expected.Fill(std::byte{0xa5});
    LinearArgs args = {dtype(), c.weight_dtype, x.data(), w.data(), c.bias ? bias.data() : nullptr,
                       nullptr, c.rows,         c.in,     c.out};
    args.y = expected.data();
    canonical::Linear(args, row_begin, row_end, out_begin, out_end);
    args.y = actual.data();
    for (const LinearKernel linear : LinearKernels(kernels())) {
      actual.Fill(std::byte{0xa5});
      linear(args, row_begin, row_end, out_begin, out_end);
      EXPECT_BITS_EQ(dtype(), expected.data(), actual.data(), expected.size())
          << "rows " << c.rows << " in " << c.in << " out " << c.out << " weights "
          << DTypeName(c.weight_dtype) << " bias " << c.bias << " data " << static_cast<int>(c.data)
          << " slack " << c.slack << " range " << row_begin << ".." << row_end << " x " << out_begin
          << ".." << out_end;
    }
  }
  void Compare(const LinearCase& c) { Compare(c, 0, c.rows, 0, c.out); }

  std::mt19937 random_{1};
};

TEST_P(LinearTest, EveryTail) {
  constexpr int64_t kRowsOuts[][2] = {{1, 1}, {1, 8}, {1, 21}, {2, 9},
                                      {3, 8}, {4, 6}, {5, 13}, {9, 7}};
  for (int64_t in : {1, 2, 3, 15, 16, 17, 30, 31, 32, 33, 34, 47, 48, 63, 64, 65, 96, 129}) {
    for (const auto& [rows, out] : kRowsOuts) {
      for (Data data : kAllData) {
        Compare({rows, in, out, dtype(), (in + rows) % 2 == 0, data, in % 3});
      }
    }
  }
}

TEST_P(LinearTest, WeightsInAnotherDtype) {
  for (DType weight_dtype : kModelDTypes) {
    for (int64_t in : {1, 16, 31, 64, 100}) {
      for (int64_t rows : {1, 2, 4, 7}) {
        for (Data data : kAllData) Compare({rows, in, 11, weight_dtype, true, data, in % 2});
      }
    }
  }
}

TEST_P(LinearTest, ModelSizes) {
  Compare({1, 1536, 17, dtype(), true, Data::kNormal, 0});
  Compare({7, 8960, 13, dtype(), false, Data::kNormal, 1});
  Compare({9, 3584 + 5, 10, DType::kBF16, true, Data::kCancelling, 0});
}

TEST_P(LinearTest, MoreRowsThanFitIntoTheCacheAtOnce) {
  Compare({11, 40003, 7, dtype(), false, Data::kNormal, 0});
  Compare({11, 40003, 7, DType::kF32, false, Data::kNormal, 0});
}

// Of CPUs whose panels of weights are whole, and of those for which they are cut or laid out as
// columns.
constexpr int64_t kFirstCaches[] = {32 << 10, 48 << 10};

// Weights and rows that are words already are read where they lie; rows that are longer than the
// second cache holds so many of, in parts, the last one shorter. With a first cache that is worth
// it, as on any other CPU: panels are cut, and rows packed for them where outputs are many.
TEST_P(LinearTest, LongRowsWhereTheyLie) {
  for (int64_t bytes : kFirstCaches) {
    AssumeFirstCache(bytes);
    for (Data data : kAllData) Compare({37, 4864, 13, dtype(), true, data, 0});
    Compare({33, 2432, 131, dtype(), true, Data::kCancelling, 0});
    const auto longest_of = [this](int64_t rows) {
      return LinearRowBytes(rows) / DTypeSize(dtype()) / 32 * 32;
    };
    const int64_t longest = longest_of(35), shorter = longest_of(70);
    Compare({35, longest, 7, dtype(), false, Data::kCancelling, 0});
    Compare({35, longest + 32, 7, dtype(), false, Data::kCancelling, 0});
    Compare({70, 2 * shorter + 96, 9, dtype(), true, Data::kCancelling, 0});
  }
  AssumeFirstCache(0);
}

// So many rows that weights are laid out as columns: panels that are not full, tiles that are not,
// rows of one block and of several, the last one shorter, more rows than a block has. And where
// the first cache is too small for that.
TEST_P(LinearTest, ManyRows) {
  for (int64_t bytes : kFirstCaches) {
    AssumeFirstCache(bytes);
    for (Data data : kAllData) {
      Compare({48, 64, 64, dtype(), true, data, 0});
      Compare({53, 32, 5, dtype(), false, data, 0});
      Compare({49, 96, 81, dtype(), true, data, 2});
      Compare({48, 2080, 3, dtype(), false, data, 0});
    }
  }  // the rest with the last one
  Compare({50, 4160, 66, dtype(), true, Data::kCancelling, 0});
  Compare({263, 64, 17, dtype(), true, Data::kCancelling, 0});
  Compare({263, 2112, 3, dtype(), false, Data::kCancelling, 0});
  Compare({70, 160, 200, dtype(), true, Data::kCancelling, 0}, 7, 62, 3, 133);
  Compare({50, 64, 70, DType::kF32, true, Data::kCancelling, 0});
  AssumeFirstCache(0);
}

TEST_P(LinearTest, RangesWriteTheirOutputsOnly) {
  const LinearCase c = {9, 70, 23, dtype(), true, Data::kNormal, 0};
  for (int64_t row_begin : {0, 1, 4}) {
    for (int64_t row_end : {4, 8, 9}) {
      for (int64_t out_begin : {0, 5, 9}) {
        for (int64_t out_end : {9, 15, 23}) Compare(c, row_begin, row_end, out_begin, out_end);
      }
    }
  }
}

// A row's bits do not depend on how many rows are computed with it.
TEST_P(LinearTest, OneRowAndManyRowsGiveTheSameBits) {
  constexpr int64_t kRows = 13, kIn = 331, kOut = 29;
  GuardedArray x(dtype(), kRows * kIn), w(dtype(), kOut * kIn);
  GuardedArray all(dtype(), kRows * kOut), single(dtype(), kRows * kOut);
  FillData(x, Data::kNormal, random_);
  FillData(w, Data::kNormal, random_);
  LinearArgs args = {dtype(), dtype(), x.data(), w.data(), nullptr, all.data(), kRows, kIn, kOut};
  kernels().linear(args, 0, kRows, 0, kOut);
  args.y = single.data();
  for (int64_t row = 0; row < kRows; ++row) {
    for (int64_t out = 0; out < kOut; out += 5) {
      kernels().linear(args, row, row + 1, out, std::min(out + 5, kOut));
    }
  }
  EXPECT_BITS_EQ(dtype(), all.data(), single.data(), all.size());
}

// Pieces reach from one layer into the next.
TEST_P(LinearTest, LayersThatReadTheSameRows) {
  constexpr int64_t kIn = 608, kOuts[] = {700, 5, 130};
  ThreadPool pool(3);
  for (int64_t rows : {1, 5, 52}) {
    GuardedArray x(dtype(), rows * kIn);
    FillData(x, Data::kCancelling, random_);
    std::deque<GuardedArray> w, together, alone;
    std::vector<LinearArgs> layers;
    for (int64_t out : kOuts) {
      w.emplace_back(dtype(), out * kIn);
      together.emplace_back(dtype(), rows * out);
      alone.emplace_back(dtype(), rows * out);
      FillData(w.back(), Data::kCancelling, random_);
      layers.push_back({dtype(), dtype(), x.data(), w.back().data(), nullptr,
                        together.back().data(), rows, kIn, out});
    }
    ParallelLinear(kernels(), pool, layers);
    for (size_t i = 0; i < layers.size(); ++i) {
      layers[i].y = alone[i].data();
      kernels().linear(layers[i], 0, rows, 0, kOuts[i]);
      EXPECT_BITS_EQ(dtype(), together[i].data(), alone[i].data(), alone[i].size());
    }
  }
}

INSTANTIATE_TEST_SUITE_P(, LinearTest,
                         testing::Combine(testing::ValuesIn(kFastIsas),
                                          testing::ValuesIn(kModelDTypes)),
                         KernelsTestName);

// What a step over a pair of bf16 does, at the places where implementations could differ: the
// accumulator is set by one pair and met by the next. Values that random data does not hit.
struct PairCase {
  const char* what;
  float first[2], then[2];  // x of (even, odd) of step one and of step two
  float first_w[2], then_w[2];
  float sum;  // fp32, worked out by hand
};

class PairTest : public testing::TestWithParam<Isa> {};

TEST_P(PairTest, OddFirstFusedAndFlushed) {
  if (!IsaSupported(GetParam())) GTEST_SKIP() << "this CPU has no " << IsaName(GetParam());
  constexpr float kInf = std::numeric_limits<float>::infinity();
  const PairCase cases[] = {
      // 1, then 2^24 (the 1 is lost), then -2^24; even first, the 1 would survive.
      {"odd element first", {1.0F, 0}, {-0x1p24F, 0x1p24F}, {1.0F, 0}, {1.0F, 1.0F}, 0.0F},
      {"even element second", {1.0F, 0}, {0x1p24F, -0x1p24F}, {1.0F, 0}, {1.0F, 1.0F}, 1.0F},
      {"the product is not rounded",
       {0, 0x1.02p0F},
       {0, -0x1.04p0F},
       {0, 0x1.02p0F},
       {0, 1},
       0x1p-14F},
      {"denormal inputs are zero", {0, 0x1p-127F}, {0, 0}, {0, 0x1p100F}, {0, 0}, 0.0F},
      {"denormal results are zero", {0, 0x1p-70F}, {0, 0}, {0, 0x1p-60F}, {0, 0}, 0.0F},
      {"a flushed result loses its place in the sum",
       {0x1p-70F, 0x1p-70F},
       {0, 0},
       {0x1p-57F, 0x1p-57F},
       {0, 0},
       0.0F},
      // 1.5 * 2^-127 is more than half a step of 2^-103
      {"a product may be tiny inside a step",
       {0, 0x1p-50F},
       {0x1.8p-64F, 0},
       {0, 0x1p-53F},
       {0x1p-63F, 0},
       0x1.000002p-103F},
      {"tiny after rounding: stays normal",
       {0, 0x1p-63F},
       {0, -0x1p-80F},
       {0, 0x1p-63F},
       {0, 0x1p-80F},
       0x1p-126F},
      {"just below: flushed", {0, 0x1p-63F}, {0, -0x1p-75F}, {0, 0x1p-63F}, {0, 0x1p-74F}, 0.0F},
      {"ties to even", {1.0F, 0x1p24F}, {1.0F, 0}, {1.0F, 1.0F}, {0x1p1F, 0}, 0x1.000002p24F},
      {"overflow", {0, 0x1p127F}, {0, 0}, {0, 2.0F}, {0, 0}, kInf},
      {"no overflow inside a step", {0, 0x1p127F}, {0, -0x1p127F}, {0, 1.0F}, {0, 2.0F}, -0x1p127F},
  };
  for (const PairCase& c : cases) {
    GuardedArray x(DType::kBF16, 34), w(DType::kBF16, 34), bias(DType::kBF16, 1);
    x.Fill(std::byte{0});
    w.Fill(std::byte{0});
    for (int i = 0; i < 2; ++i) {
      x.Set(i, c.first[i]);
      w.Set(i, c.first_w[i]);
      x.Set(32 + i, c.then[i]);
      w.Set(32 + i, c.then_w[i]);
    }
    // The sum is rounded to bf16 at the end: subtracting its leading part by the bias shows it all.
    for (bool leading : {false, true}) {
      const float lead = BF16ToFloat(FloatToBF16(c.sum));
      if (leading && !std::isfinite(lead)) continue;
      bias.Set(0, leading ? -lead : 0.0F);
      const float expected = leading ? c.sum - lead : c.sum;
      uint16_t y = 0;
      const LinearArgs args = {
          DType::kBF16, DType::kBF16, x.data(), w.data(), bias.data(), &y, 1, 34, 1};
      SelectKernels(GetParam()).linear(args, 0, 1, 0, 1);
      EXPECT_EQ(BF16ToFloat(y), BF16ToFloat(FloatToBF16(expected)))
          << c.what << (leading ? ", low part" : "");
    }
  }
}

INSTANTIATE_TEST_SUITE_P(, PairTest,
                         testing::Values(Isa::kPortable, Isa::kAvx2, Isa::kAvx512,
                                         Isa::kAvx512Bf16),
                         [](const auto& isa) { return std::string(IsaName(isa.param)); });

// Every pair of bf16 patterns of a sample as one product, and as two on top of each other: 34
// inputs, of which the first and the last pair are not zero.
TEST_P(PairTest, RandomPatternsOnRandomSums) {
  if (!IsaSupported(GetParam())) GTEST_SKIP() << "this CPU has no " << IsaName(GetParam());
  constexpr int64_t kRows = 64, kOuts = 64, kIn = 34;
  std::mt19937 random(7);
  const int64_t before = ComparedValues();
  for (int round = 0; round < 40; ++round) {
    GuardedArray x(DType::kBF16, kRows * kIn), w(DType::kBF16, kOuts * kIn);
    GuardedArray expected(DType::kBF16, kRows * kOuts), actual(DType::kBF16, kRows * kOuts);
    // Exponents around a centre, so that sums meet: with 63, products are about 2^-126.
    const uint32_t centres[] = {63, 64, 127, 190, 30};
    const uint32_t centre = centres[round % 5];
    for (GuardedArray* a : {&x, &w}) {
      a->Fill(std::byte{0});
      for (int64_t i = 0; i < a->size(); ++i) {
        const int64_t k = i % kIn;
        if (k >= 2 && k < 32) continue;
        const uint32_t bits = random() & 0x807fU, spread = random() % 8;
        const uint32_t shift = random() % 16;
        a->SetBits(i, shift == 0 ? random() & 0xffffU : bits | ((centre - 4 + spread) << 7));
      }
    }
    LinearArgs args = {DType::kBF16,    DType::kBF16, x.data(), w.data(), nullptr,
                       expected.data(), kRows,        kIn,      kOuts};
    canonical::Linear(args, 0, kRows, 0, kOuts);
    args.y = actual.data();
    for (const LinearKernel linear : LinearKernels(SelectKernels(GetParam()))) {
      actual.Fill(std::byte{0xa5});
      linear(args, 0, kRows, 0, kOuts);
      EXPECT_BITS_EQ(DType::kBF16, expected.data(), actual.data(), expected.size());
    }
  }
  fmt::print("compared with the interpreter: {} values\n", ComparedValues() - before);
}

}  // namespace
}  // namespace samebits
