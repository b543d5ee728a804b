// The bounds hold for every order of summation that could be thought of, and are not idle: what
// lies beyond them is no fp32 sum.
#include "samebits/numerics/exact.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <random>

#include "samebits/numerics/bounds.h"
#include "samebits/numerics/tail.h"
#include "samebits/tensor/convert.h"

namespace samebits {
namespace {

using Floats = std::vector<float>;

float Sequential(const Floats& x, const Floats& w, bool fused) {
  float sum = 0;
  for (size_t k = 0; k < x.size(); ++k) sum = fused ? std::fma(x[k], w[k], sum) : sum + x[k] * w[k];
  return sum;
}

float Lanes(const Floats& x, const Floats& w, size_t lanes, bool fused) {
  Floats sums(lanes);
  for (size_t k = 0; k < x.size(); ++k) {
    float& s = sums[k % lanes];
    s = fused ? std::fma(x[k], w[k], s) : s + x[k] * w[k];
  }
  for (size_t n = lanes; n > 1; n /= 2) {
    for (size_t l = 0; l < n / 2; ++l) sums[l] = sums[l] + sums[l + n / 2];
  }
  return sums[0];
}

// Rounded products added in the order of a random tree.
float RandomTree(const Floats& x, const Floats& w, std::mt19937& random) {
  Floats terms;
  for (size_t k = 0; k < x.size(); ++k) terms.push_back(x[k] * w[k]);
  while (terms.size() > 1) {
    const size_t a = random() % terms.size();
    std::swap(terms[a], terms.back());
    const float last = terms.back();
    terms.pop_back();
    terms[random() % terms.size()] += last;
  }
  return terms[0];
}

// Blocks whose sums are added: the shape of GEMM libraries.
float Blocks(const Floats& x, const Floats& w, size_t block) {
  float total = 0;
  for (size_t begin = 0; begin < x.size(); begin += block) {
    float sum = 0;
    for (size_t k = begin; k < std::min(x.size(), begin + block); ++k) {
      sum = std::fma(x[k], w[k], sum);
    }
    total += sum;
  }
  return total;
}

enum class Data { kPlain, kCancelling, kWide };

void Fill(Data data, DType dtype, std::mt19937& random, Floats& x, Floats& w) {
  std::normal_distribution<double> normal;
  for (size_t k = 0; k < x.size(); ++k) {
    // f16 ends at 65504.
    const double spread =
        data == Data::kWide ? std::exp((dtype == DType::kF16 ? 1 : 3) * normal(random)) : 1.0;
    x[k] = static_cast<float>(RoundToDType(normal(random) * spread, dtype));
    w[k] = static_cast<float>(RoundToDType(normal(random), dtype));
    if (data == Data::kCancelling && k % 2 == 1) {
      x[k] = x[k - 1];
      w[k] = -w[k - 1];
    }
  }
  if (data == Data::kCancelling) {  // partners far apart
    for (size_t k = x.size() - 1; k > 0; --k) {
      const size_t other = random() % (k + 1);
      std::swap(x[k], x[other]);
      std::swap(w[k], w[other]);
    }
  }
}

struct Exact {
  double y = 0, bound = 0;
};

Exact ExactDot(const Floats& x, const Floats& w, DType dtype) {
  const std::vector<double> wide(x.begin(), x.end());
  TensorView view{DType::kF32,
                  {1, static_cast<int64_t>(w.size())},
                  reinterpret_cast<const std::byte*>(w.data())};
  Exact e;
  double magnitude = 0;
  exact::Dots({wide.data(), view, dtype, false, false, 1, static_cast<int64_t>(x.size()), 1, &e.y,
               &magnitude},
              0, 1);
  e.bound = exact::SumBound(static_cast<int64_t>(x.size()) + 1, magnitude);
  return e;
}

TEST(Exact, DotBoundHoldsForEveryOrder) {
  std::mt19937 random(1);
  int64_t outcomes = 0, outside = 0, beyond = 0;
  for (size_t size : {1, 2, 7, 64, 257, 896, 3584, 18944}) {
    for (DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
      for (Data data : {Data::kPlain, Data::kCancelling, Data::kWide}) {
        const int repeats = size > 4000 ? 4 : size > 500 ? 20 : 100;
        for (int repeat = 0; repeat < repeats; ++repeat) {
          Floats x(size), w(size);
          Fill(data, dtype, random, x, w);
          const Exact e = ExactDot(x, w, dtype);
          Floats results = {Sequential(x, w, false), Sequential(x, w, true), Lanes(x, w, 4, false),
                            Lanes(x, w, 8, true),    Lanes(x, w, 16, true),  Lanes(x, w, 64, false),
                            Blocks(x, w, 192),       Blocks(x, w, 512)};
          for (int i = 0; i < 3; ++i) results.push_back(RandomTree(x, w, random));
          for (float result : results) {
            ++outcomes;
            outside += std::fabs(result - e.y) <= e.bound ? 0 : 1;
          }
          // The bound is not idle: a change of one part in a hundred of the sum of magnitudes is
          // seen.
          const double moved = e.y + 100 * e.bound;
          beyond += std::fabs(moved - e.y) > e.bound || e.bound == 0 ? 1 : 0;
        }
      }
    }
  }
  EXPECT_EQ(outside, 0) << "of " << outcomes;
  EXPECT_GT(beyond, 0);
  RecordProperty("outcomes", static_cast<int>(outcomes));
  std::printf("%ld outcomes of fp32 sums, %ld outside the bound\n", static_cast<long>(outcomes),
              static_cast<long>(outside));
}

TEST(Exact, DotOfOneIsExact) {
  const Exact e = ExactDot({3}, {0.5F}, DType::kF32);
  EXPECT_EQ(e.y, 1.5);
}

TEST(Exact, TransposedAndRoundedWeights) {
  const std::vector<double> x = {1, 10};
  const float w[4] = {1, 2, 3, 1.0F + 0x1p-10F};  // the last is no bf16 number
  TensorView view{DType::kF32, {2, 2}, reinterpret_cast<const std::byte*>(w)};
  double y[2], magnitude[2];
  exact::Dots({x.data(), view, DType::kBF16, false, false, 1, 2, 2, y, magnitude}, 0, 2);
  EXPECT_EQ(y[0], 21);
  EXPECT_EQ(y[1], 13);
  exact::Dots({x.data(), view, DType::kBF16, true, false, 1, 2, 2, y, magnitude}, 0, 2);
  EXPECT_EQ(y[0], 31);
  EXPECT_EQ(y[1], 12);
}

TEST(Exact, RmsNormBoundHolds) {
  std::mt19937 random(2);
  std::normal_distribution<float> normal;
  int64_t outside = 0;
  for (int64_t size : {8, 224, 896, 3584}) {
    for (float scale : {1e-3F, 1.0F, 1e3F}) {
      std::vector<double> x, y(size);
      for (int64_t k = 0; k < size; ++k) x.push_back(static_cast<float>(normal(random) * scale));
      double relative = 0;
      exact::RmsNormRow(x.data(), size, 1e-6, y.data(), &relative);
      for (size_t lanes : {1, 8, 16}) {  // mean, then the root, then its reciprocal or a division
        Floats f(x.begin(), x.end());
        const float sum = lanes == 1 ? Sequential(f, f, false) : Lanes(f, f, lanes, true);
        const float root = std::sqrt(sum / static_cast<float>(size) + 1e-6F);
        for (int64_t k = 0; k < size; ++k) {
          for (float h : {f[k] * (1.0F / root), f[k] / root}) {
            outside += std::fabs(h - y[k]) <= relative * std::fabs(y[k]) ? 0 : 1;
          }
        }
      }
    }
  }
  EXPECT_EQ(outside, 0);
}

TEST(Exact, SoftmaxBoundHolds) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  int64_t outside = 0;
  for (int64_t keys : {1, 5, 64, 1000}) {
    for (float scale : {0.1F, 5.0F, 40.0F}) {
      std::vector<double> s, y(keys), bound(keys);
      std::vector<uint8_t> visible(keys, 1);
      if (keys > 4) visible[3] = 0;
      for (int64_t j = 0; j < keys; ++j) s.push_back(normal(random) * scale);
      for (double& v : s) v = static_cast<float>(v);
      exact::SoftmaxRow(s.data(), visible.data(), keys, y.data(), bound.data());
      float top = -INFINITY, sum = 0;
      for (int64_t j = 0; j < keys; ++j) {
        if (visible[j] != 0) top = std::max(top, static_cast<float>(s[j]));
      }
      for (int64_t j = 0; j < keys; ++j) {
        if (visible[j] != 0) sum += std::exp(static_cast<float>(s[j]) - top);
      }
      for (int64_t j = 0; j < keys; ++j) {
        const float e = visible[j] != 0 ? std::exp(static_cast<float>(s[j]) - top) : 0.0F;
        for (float p : {e / sum, e * (1.0F / sum)}) {
          outside += std::fabs(p - y[j]) <= bound[j] ? 0 : 1;
        }
      }
    }
  }
  EXPECT_EQ(outside, 0);
}

TEST(Exact, ActivationsAtKnownPoints) {
  double y = 0, bound = 0;
  exact::Activation("silu", 1.0, &y, &bound);
  EXPECT_NEAR(y, 0.7310585786300049, 1e-15);
  exact::Activation("gelu", 1.0, &y, &bound);
  EXPECT_NEAR(y, 0.8413447460685429, 1e-15);
  exact::Activation("relu", -2.0, &y, &bound);
  EXPECT_EQ(y, 0);
  exact::Activation("relu", std::nan(""), &y, &bound);
  EXPECT_TRUE(std::isnan(y));
}

TEST(Tail, StepsRoundWhereTheySay) {
  const Tail tail = {RoundStep(DType::kBF16), AddStep({1.0}), RoundStep(DType::kBF16)};
  EXPECT_EQ(ApplyTail(tail, 0.00390625 + 1, 0), 2.0);      // 1 + 2^-8: a tie, to even
  EXPECT_EQ(ApplyTail(tail, 1 + 0x1.8p-8, 0), 2.0 + 0.0);  // 1.0078125 + 1 lies between, a tie
  EXPECT_EQ(ApplyTail({MultiplyStep({2, 3})}, 5, 1), 15);
}

TEST(Tail, TruncationCutsTowardsZeroBehindFp32) {
  EXPECT_EQ(TruncateToDType(1 + 0x1.fp-8, DType::kBF16), 1.0);
  EXPECT_EQ(TruncateToDType(-1 - 0x1.fp-8, DType::kBF16), -1.0);
  EXPECT_EQ(TruncateToDType(1 - 0x1p-30, DType::kBF16), 1.0);  // 1 in fp32 already
  EXPECT_EQ(TruncateToDType(1 - 0x1p-20, DType::kBF16), 1 - 0x1p-8);
  for (uint32_t bits = 0x3f800000; bits < 0x3f820000; bits += 77) {
    const float value = std::bit_cast<float>(bits);
    EXPECT_EQ(TruncateToDType(value, DType::kBF16), std::bit_cast<float>(bits & 0xffff0000U));
  }
}

}  // namespace
}  // namespace samebits
