// The interpreter against simple things that are not it: orders of summation read off as from a
// black box, fp64 formulas with derived bounds, values known exactly.
#include "samebits/numerics/canonical.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "samebits/numerics/rope.h"
#include "samebits/tensor/bits_testing.h"

namespace samebits {
namespace {

constexpr double kU = 0x1p-24;  // unit roundoff of fp32
constexpr DType kModelDTypes[] = {DType::kF32, DType::kBF16, DType::kF16};

std::vector<std::byte> Encode(DType dtype, const std::vector<float>& values) {
  std::vector<std::byte> bytes(values.size() * static_cast<size_t>(DTypeSize(dtype)));
  for (size_t i = 0; i < values.size(); ++i) {
    if (dtype == DType::kF32) {
      std::memcpy(&bytes[4 * i], &values[i], 4);
    } else {
      const uint16_t half = dtype == DType::kBF16 ? FloatToBF16(values[i]) : FloatToF16(values[i]);
      std::memcpy(&bytes[2 * i], &half, 2);
    }
  }
  return bytes;
}

std::vector<float> Decode(DType dtype, const std::vector<std::byte>& bytes) {
  std::vector<float> values(bytes.size() / static_cast<size_t>(DTypeSize(dtype)));
  for (size_t i = 0; i < values.size(); ++i) {
    const uint32_t bits = BitsAt(dtype, bytes.data(), static_cast<int64_t>(i));
    values[i] = dtype == DType::kF32    ? std::bit_cast<float>(bits)
                : dtype == DType::kBF16 ? BF16ToFloat(static_cast<uint16_t>(bits))
                                        : F16ToFloat(static_cast<uint16_t>(bits));
  }
  return values;
}

std::vector<float> RandomValues(int64_t n, std::mt19937& random) {
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<size_t>(n));
  for (float& v : values) v = normal(random);
  return values;
}

// Where element k of a dot product goes: its lane, and its turn there.
struct Place {
  int64_t lane, turn;
};
Place PlaceOf(DType dtype, int64_t k) {
  if (dtype != DType::kBF16) return {k % 16, k / 16};
  return {k % 32 / 2, k / 32 * 2 + (k % 2 == 0 ? 1 : 0)};  // the odd element comes first
}

// How many of `size` elements are added up when elements i and j meet, as documented.
int64_t TermsWhenTheyMeet(DType dtype, int64_t size, int64_t i, int64_t j) {
  const Place a = PlaceOf(dtype, i), b = PlaceOf(dtype, j);
  int64_t count = 0;
  for (int64_t k = 0; k < size; ++k) {
    const Place p = PlaceOf(dtype, k);
    if (a.lane == b.lane) {
      if (p.lane == a.lane && p.turn <= std::max(a.turn, b.turn)) ++count;
    } else {
      // The tree joins lanes that are equal modulo 8, then 4, 2, 1.
      int64_t modulus = 8;
      while (a.lane % modulus != b.lane % modulus) modulus /= 2;
      if (p.lane % modulus == a.lane % modulus) ++count;
    }
  }
  return count;
}

// A big number at i, its negative at j, ones elsewhere: what is added before they meet is lost, so
// the result is the number of terms that come later. For all pairs this determines the tree.
TEST(Canonical, DotProductsAreSummedInTheDocumentedOrder) {
  for (DType dtype : kModelDTypes) {
    const float big = dtype == DType::kF16 ? 0x1p15F : 0x1p20F;  // squared in the product
    for (int64_t size : {16, 33, 50, 64}) {
      for (int64_t i = 0; i < size; ++i) {
        for (int64_t j = 0; j < size; ++j) {
          if (i == j) continue;
          std::vector<float> x(static_cast<size_t>(size), 1.0F), w = x;
          x[i] = x[j] = w[i] = big;
          w[j] = -big;
          const auto x_bytes = Encode(dtype, x), w_bytes = Encode(dtype, w);
          std::vector<std::byte> y(static_cast<size_t>(DTypeSize(dtype)));
          canonical::Linear(
              {dtype, dtype, x_bytes.data(), w_bytes.data(), nullptr, y.data(), 1, size, 1}, 0, 1,
              0, 1);
          ASSERT_EQ(Decode(dtype, y)[0],
                    static_cast<float>(size - TermsWhenTheyMeet(dtype, size, i, j)))
              << DTypeName(dtype) << " size " << size << " pair " << i << ", " << j;
        }
      }
    }
  }
}

struct AttentionRun {
  std::vector<float> scores, probs, context;
};

// One row, one head; keys and values [keys, head_dim].
AttentionRun Attend(DType dtype, const std::vector<float>& q, const std::vector<float>& k,
                    const std::vector<float>& v, float scale) {
  const auto d = static_cast<int64_t>(q.size());
  const auto keys = static_cast<int64_t>(k.size()) / d;
  const auto qb = Encode(dtype, q), kb = Encode(dtype, k), vb = Encode(dtype, v);
  const auto bytes = [dtype](int64_t n) {
    return std::vector<std::byte>(static_cast<size_t>(n * DTypeSize(dtype)));
  };
  auto scores = bytes(keys), probs = bytes(keys), context = bytes(d);
  AttentionArgs args = {};
  args.dtype = dtype;
  args.q = qb.data();
  args.k = kb.data();
  args.v = vb.data();
  args.kv_row_stride = d;
  args.kv_head_stride = keys * d;
  args.context = context.data();
  args.scores = scores.data();
  args.probs = probs.data();
  args.rows = args.heads = args.kv_heads = 1;
  args.head_dim = d;
  args.first_key_count = keys;
  args.scale = scale;
  canonical::Attention(args, 0, 1, 0, 1);
  return {Decode(dtype, scores), Decode(dtype, probs), Decode(dtype, context)};
}

TEST(Canonical, ContextIsOneChainOverTheKeys) {
  constexpr int64_t kKeys = 32;  // equal scores: every prob is 1/32, exactly
  for (DType dtype : kModelDTypes) {
    for (int64_t i = 0; i < kKeys; ++i) {
      for (int64_t j = 0; j < kKeys; ++j) {
        if (i == j) continue;
        std::vector<float> v(kKeys, 0x1p-19F);  // adds 2^-24
        v[i] = 0x1p15F;
        v[j] = -0x1p15F;
        const AttentionRun run = Attend(dtype, {0.0F}, std::vector<float>(kKeys), v, 1.0F);
        ASSERT_EQ(run.probs[0], 1.0F / kKeys);
        const auto turn = [&](int64_t key) {
          return dtype != DType::kBF16 ? key : key % 2 == 0 ? key + 1 : key - 1;
        };
        const int64_t later = kKeys - 1 - std::max(turn(i), turn(j));
        ASSERT_EQ(run.context[0], std::ldexp(static_cast<float>(later), -24))
            << DTypeName(dtype) << " keys " << i << ", " << j;
      }
    }
  }
}

// Terms of 2^-25 beside a 1 are lost in the lane of the 1 and nowhere else.
TEST(Canonical, SoftmaxSumsKeyJInLaneJModulo16) {
  constexpr int64_t kKeys = 16 * 64;
  const auto small = static_cast<float>(-25 * std::log(2.0));
  for (int64_t second : {0, 16, 1, 15, 517}) {
    std::vector<float> k(kKeys, small);
    k[0] = k[second] = 0.0F;
    const int64_t ones = second == 0 ? 1 : 2;
    const int64_t lanes_with_ones = second % 16 == 0 ? 1 : 2;
    // In the lane of the second one, what came before it is kept.
    const int64_t turn = second / 16;
    const double before = lanes_with_ones == 2 ? static_cast<double>(turn) * 0x1p-25 : 0;
    const double sum =
        static_cast<double>(ones) + static_cast<double>(16 - lanes_with_ones) * 0x1p-19 + before;
    const AttentionRun run = Attend(DType::kF32, {1.0F}, k, std::vector<float>(kKeys), 1.0F);
    EXPECT_EQ(run.scores[1 + (second == 1 ? 1 : 0)], small);
    EXPECT_EQ(run.probs[0], 1.0F / static_cast<float>(sum)) << "second one at " << second;
  }
}

// Whatever the order: |sum - exact| <= gamma(n) sum |terms| with n roundings in a row, and then one
// rounding to the dtype.
TEST(Canonical, LinearIsWithinTheProvenBound) {
  std::mt19937 random(1);
  constexpr int64_t kOut = 5;
  for (DType dtype : kModelDTypes) {
    for (int64_t size : {1, 7, 31, 64, 300, 4096}) {
      const std::vector<float> x = Decode(dtype, Encode(dtype, RandomValues(size, random)));
      const std::vector<float> w = Decode(dtype, Encode(dtype, RandomValues(size * kOut, random)));
      const std::vector<float> bias = Decode(dtype, Encode(dtype, RandomValues(kOut, random)));
      const auto xb = Encode(dtype, x), wb = Encode(dtype, w), bb = Encode(dtype, bias);
      std::vector<std::byte> y(static_cast<size_t>(kOut * DTypeSize(dtype)));
      canonical::Linear({dtype, dtype, xb.data(), wb.data(), bb.data(), y.data(), 1, size, kOut}, 0,
                        1, 0, kOut);
      const std::vector<float> values = Decode(dtype, y);
      const double half_step = std::ldexp(1.0, -SignificandBits(dtype));
      for (int64_t n = 0; n < kOut; ++n) {
        double sum = bias[n], magnitude = std::fabs(bias[n]);
        for (int64_t k = 0; k < size; ++k) {
          const double term = static_cast<double>(x[k]) * w[n * size + k];
          sum += term;
          magnitude += std::fabs(term);
        }
        const double roundings = static_cast<double>(size) + 5;  // steps, tree, bias
        const double bound = roundings * kU / (1 - roundings * kU) * magnitude;
        EXPECT_LE(std::fabs(values[n] - sum), bound + (std::fabs(sum) + bound) * half_step)
            << DTypeName(dtype) << " size " << size;
      }
    }
  }
}

TEST(Canonical, RmsNormRoundsBeforeTheWeight) {
  std::mt19937 random(2);
  constexpr int64_t kSize = 896;
  const std::vector<float> x = RandomValues(kSize, random), w = RandomValues(kSize, random);
  for (DType dtype : kModelDTypes) {
    const auto xb = Encode(dtype, x), wb = Encode(dtype, w);
    const std::vector<float> xs = Decode(dtype, xb), ws = Decode(dtype, wb);
    std::vector<std::byte> y(xb.size());
    canonical::RmsNorm({dtype, dtype, xb.data(), wb.data(), y.data(), 1, kSize, 1e-6F}, 0, 1);
    const std::vector<float> values = Decode(dtype, y);
    double squares = 0;
    for (float v : xs) squares += static_cast<double>(v) * v;
    const double r = 1 / std::sqrt(squares / kSize + static_cast<double>(1e-6F));
    // fp32: 56 steps and 4 of the tree, halved by the square root; division, root, reciprocal,
    // eps, product: below 40 u. So h lies in an interval, and rounding is monotone.
    for (int64_t k = 0; k < kSize; ++k) {
      const double h = xs[k] * r;
      double low = h - 40 * kU * std::fabs(h), high = h + 40 * kU * std::fabs(h);
      low = RoundToDType(low, dtype) * ws[k];
      high = RoundToDType(high, dtype) * ws[k];
      if (low > high) std::swap(low, high);
      EXPECT_GE(values[k], RoundToDType(low - kU * std::fabs(low), dtype)) << DTypeName(dtype);
      EXPECT_LE(values[k], RoundToDType(high + kU * std::fabs(high), dtype)) << DTypeName(dtype);
    }
  }
}

// float32: probs within the bound of their own formula; they add up to 1 but for rounding.
TEST(Canonical, SoftmaxAgainstFp64) {
  std::mt19937 random(3);
  constexpr int64_t kKeys = 777, kDim = 16;
  const AttentionRun run =
      Attend(DType::kF32, RandomValues(kDim, random), RandomValues(kKeys * kDim, random),
             RandomValues(kKeys * kDim, random), 0.25F);
  const double top = *std::max_element(run.scores.begin(), run.scores.end());
  double sum = 0;
  for (float s : run.scores) sum += std::exp(s - top);
  for (int64_t j = 0; j < kKeys; ++j) {
    const double p = std::exp(run.scores[j] - top) / sum;
    // s - top rounds (relative to its size), Exp is within 2 u, 49 + 4 additions, 1/sum, product.
    const double bound = (std::fabs(run.scores[j] - top) + 2 + 55 + 4) * kU + 25 * kU;
    EXPECT_LE(std::fabs(run.probs[j] - p), bound * p) << j;
  }
}

TEST(Canonical, KnownValues) {
  // One key: prob 1, the context is v.
  for (DType dtype : kModelDTypes) {
    const AttentionRun run = Attend(dtype, {1, 2}, {3, -4}, {0.5F, -7}, 0.5F);
    EXPECT_EQ(run.scores, std::vector<float>{-2.5F});
    EXPECT_EQ(run.probs, std::vector<float>{1.0F});
    EXPECT_EQ(run.context, (std::vector<float>{0.5F, -7}));
  }
  // SiLU at 0, far out on both sides, infinities.
  constexpr float kInf = std::numeric_limits<float>::infinity();
  const std::vector<float> x = {0.0F, -0.0F, 100.0F, -200.0F, kInf};
  std::vector<float> y(x.size());
  canonical::Silu(DType::kF32, x.data(), y.data(), static_cast<int64_t>(x.size()));
  EXPECT_BITS_EQ(std::vector<float>({0.0F, -0.0F, 100.0F, -0.0F, kInf}), y);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  float out = 0;
  canonical::Silu(DType::kF32, &nan, &out, 1);
  EXPECT_TRUE(std::isnan(out));
  // Rotation by a quarter turn: (x1, x2) -> (-x2, x1).
  const std::vector<float> q = {1, 2, 3, 4}, zero(4, 0.0F), one(4, 1.0F);
  std::vector<float> rotated(4);
  canonical::Rope({DType::kF32, q.data(), zero.data(), one.data(), rotated.data(), 1, 1, 4}, 0, 1);
  EXPECT_EQ(rotated, (std::vector<float>{-3, -4, 1, 2}));
}

// bf16: the mode that flushes denormals ends with the call.
TEST(Canonical, TheFlushModeIsRestored) {
  const auto x = Encode(DType::kBF16, {1, 2, 3}), w = Encode(DType::kBF16, {1, 1, 1});
  uint16_t y = 0;
  canonical::Linear({DType::kBF16, DType::kBF16, x.data(), w.data(), nullptr, &y, 1, 3, 1}, 0, 1, 0,
                    1);
  EXPECT_EQ(BF16ToFloat(y), 6.0F);
  volatile float denormal = 0x1p-140F;
  EXPECT_EQ(denormal * 2.0F, 0x1p-139F);
  // Elementwise operations keep denormals.
  const auto a = Encode(DType::kBF16, {0x1p-130F}), b = Encode(DType::kBF16, {0x1p-131F});
  std::vector<std::byte> sum(2);
  canonical::Add(DType::kBF16, a.data(), b.data(), sum.data(), 1);
  EXPECT_EQ(Decode(DType::kBF16, sum)[0], 0x1.8p-130F);
}

// Hugging Face's rounding points, worked out in long double: the exponent, the power, its
// reciprocal, the angle, and the cosine are each rounded to fp32.
TEST(Canonical, RotaryRoundsWhereHuggingFaceDoes) {
  const std::vector<int64_t> positions = {0, 1, 2, 63, 511, 4095, 32767, 131071, 1 << 20};
  const auto rows = static_cast<int64_t>(positions.size());
  int64_t values = 0, differing = 0;
  for (int64_t d : {32, 64, 80, 96, 128}) {
    for (double theta : {1e4, 5e5, 1e6}) {
      std::vector<float> cosine(static_cast<size_t>(rows * d)), sine(cosine.size());
      const std::vector<float> inv_freq = InverseFrequencies({.theta = theta}, d, 0);
      canonical::Rotary({DType::kF32, positions.data(), inv_freq.data(), 0, 1, cosine.data(),
                         sine.data(), rows, d},
                        0, rows);
      for (int64_t t = 0; t < rows; ++t) {
        for (int64_t i = 0; i < d; ++i) {
          const float exponent = static_cast<float>(i % (d / 2) * 2) / static_cast<float>(d);
          const auto power = static_cast<float>(
              std::pow(static_cast<long double>(theta), static_cast<long double>(exponent)));
          const float angle = static_cast<float>(positions[t]) * (1.0F / power);
          const auto c = static_cast<float>(std::cos(static_cast<long double>(angle)));
          const auto s = static_cast<float>(std::sin(static_cast<long double>(angle)));
          for (const auto& [e, a] :
               {std::pair(c, cosine[t * d + i]), std::pair(s, sine[t * d + i])}) {
            ++values;
            if (e == a) continue;
            ++differing;  // a tie in fp64, within its error
            EXPECT_LE(
                UlpDistance(DType::kF32, std::bit_cast<uint32_t>(e), std::bit_cast<uint32_t>(a)), 1)
                << "position " << positions[t] << " of " << d << ", element " << i;
          }
        }
      }
    }
  }
  EXPECT_LE(differing, values / 100000);
  fmt::print("rotary: {} values, {} not correctly rounded\n", values, differing);
}

}  // namespace
}  // namespace samebits
