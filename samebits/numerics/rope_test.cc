// The frequencies of every kind of rotary embedding: fp32 against the exact ones within the bound
// that the judge allows, and the special cases of the formulas.
#include "samebits/numerics/rope.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

namespace samebits {
namespace {

// Parameters as published checkpoints have them, and odd ones.
std::vector<RopeParameters> Kinds() {
  std::vector<RopeParameters> result;
  std::mt19937 random(5);
  const auto uniform = [&](double low, double high) {
    return std::exp(std::uniform_real_distribution<double>(std::log(low), std::log(high))(random));
  };
  for (const RopeKind kind : {RopeKind::kDefault, RopeKind::kLinear, RopeKind::kDynamic,
                              RopeKind::kYarn, RopeKind::kLlama3}) {
    for (int i = 0; i < 40; ++i) {
      RopeParameters r;
      r.kind = kind;
      r.theta = i < 4 ? 5e5 : uniform(1e2, 1e8);
      r.factor = i < 4 ? 8 : uniform(1, 64);
      r.original_length = i < 4 ? 8192 : static_cast<int64_t>(uniform(16, 200000));
      r.low_freq_factor = i < 4 ? 1 : uniform(0.5, 4);
      r.high_freq_factor = i < 4 ? 4 : r.low_freq_factor * uniform(1.1, 8);
      r.beta_fast = i < 4 ? 32 : uniform(4, 64);
      r.beta_slow = i < 4 ? 1 : uniform(0.5, 3);
      r.truncate = i % 2 == 0;
      result.push_back(r);
    }
  }
  return result;
}

TEST(Rope, Float32FrequenciesAreWithinTheBound) {
  int64_t values = 0;
  double worst = 0;
  for (const RopeParameters& rope : Kinds()) {
    for (const int64_t d : {12, 32, 64, 80, 128}) {
      for (const int64_t length :
           {int64_t{1}, rope.original_length + 1, 3 * rope.original_length}) {
        const std::vector<float> actual = InverseFrequencies(rope, d, length);
        const auto exact = exact::InverseFrequencies(rope, d, length);
        ASSERT_EQ(actual.size(), static_cast<size_t>(d / 2));
        ASSERT_EQ(exact.size(), actual.size());
        for (size_t i = 0; i < actual.size(); ++i) {
          ASSERT_GT(actual[i], 0);
          ASSERT_GT(exact[i].relative, 0);
          const double error = std::fabs(actual[i] / exact[i].value - 1) / exact[i].relative;
          EXPECT_LE(error, 1) << RopeKindName(rope.kind) << " theta " << rope.theta << " factor "
                              << rope.factor << " pair " << i << " of " << d;
          worst = std::max(worst, error);
          ++values;
        }
      }
    }
  }
  EXPECT_GT(worst, 0.05);  // a bound that is never neared says nothing
  EXPECT_GT(values, 30000);
}

TEST(Rope, FactorOneChangesNothing) {
  const std::vector<float> plain = InverseFrequencies({}, 64, 10);
  for (const RopeKind kind : {RopeKind::kLinear, RopeKind::kDynamic}) {
    RopeParameters rope;
    rope.kind = kind;
    rope.original_length = 4096;
    EXPECT_EQ(InverseFrequencies(rope, 64, 10), plain) << RopeKindName(kind);
  }
}

TEST(Rope, Llama3KeepsTheFastAndSlowsTheSlow) {
  RopeParameters rope;
  rope.kind = RopeKind::kLlama3;
  rope.theta = 5e5;
  rope.factor = 8;
  rope.original_length = 8192;
  RopeParameters plain_rope;
  plain_rope.theta = rope.theta;
  const std::vector<float> plain = InverseFrequencies(plain_rope, 128, 0);
  const std::vector<float> scaled = InverseFrequencies(rope, 128, 0);
  // Wavelengths below 8192 / 4 stay, those above 8192 are eight times as long.
  int kept = 0, slowed = 0, between = 0;
  for (size_t i = 0; i < plain.size(); ++i) {
    const double wavelength = 2 * M_PI / plain[i];
    if (wavelength < 2048) {
      EXPECT_EQ(scaled[i], plain[i]);
      ++kept;
    } else if (wavelength > 8192) {
      EXPECT_EQ(scaled[i], plain[i] / 8);
      ++slowed;
    } else {
      EXPECT_LT(scaled[i], plain[i]);
      EXPECT_GT(scaled[i], plain[i] / 8);
      ++between;
    }
  }
  EXPECT_EQ(kept, 29);
  EXPECT_EQ(between, 6);
  EXPECT_EQ(slowed, 29);
}

TEST(Rope, YarnKeepsTheFastAndSlowsTheSlow) {
  RopeParameters rope;
  rope.kind = RopeKind::kYarn;
  rope.theta = 1e6;
  rope.factor = 4;
  rope.original_length = 32768;
  RopeParameters plain_rope;
  plain_rope.theta = rope.theta;
  const std::vector<float> plain = InverseFrequencies(plain_rope, 128, 0);
  const std::vector<float> scaled = InverseFrequencies(rope, 128, 0);
  EXPECT_EQ(scaled.front(), plain.front());
  EXPECT_EQ(scaled.back(), plain.back() / 4);
  EXPECT_EQ(RotaryScaling(rope), static_cast<float>(0.1 * std::log(4.0) + 1));
  rope.attention_factor = 0.5;
  EXPECT_EQ(RotaryScaling(rope), 0.5F);
  rope.attention_factor.reset();
  rope.mscale = 0.7;
  EXPECT_EQ(RotaryScaling(rope), static_cast<float>(0.1 * std::log(4.0) + 1))
      << "one is not enough";
  rope.mscale_all_dim = 1.4;
  EXPECT_EQ(RotaryScaling(rope),
            static_cast<float>((0.07 * std::log(4.0) + 1) / (0.14 * std::log(4.0) + 1)));
  rope.kind = RopeKind::kLlama3;
  EXPECT_EQ(RotaryScaling(rope), 1.0F);
}

TEST(Rope, OnlyDynamicDependsOnTheLengthAndOnlyBeyondTheOriginal) {
  for (RopeParameters rope : Kinds()) {
    rope.original_length = 100;
    const bool dynamic = rope.kind == RopeKind::kDynamic;
    EXPECT_FALSE(RopeDependsOnLength(rope, 100));
    EXPECT_EQ(RopeDependsOnLength(rope, 101), dynamic);
    EXPECT_EQ(InverseFrequencies(rope, 16, 1), InverseFrequencies(rope, 16, 100));
    if (rope.factor < 1.01) continue;
    EXPECT_EQ(InverseFrequencies(rope, 16, 1) != InverseFrequencies(rope, 16, 200), dynamic);
  }
}

TEST(Rope, ATableHasARowForEachLength) {
  RopeParameters rope;
  rope.kind = RopeKind::kDynamic;
  rope.factor = 2;
  rope.original_length = 8;
  // A prompt of 10, then tokens of their own.
  std::vector<int64_t> lengths;
  for (int64_t position = 0; position < 13; ++position) lengths.push_back(RopeLength(position, 10));
  EXPECT_EQ(lengths, (std::vector<int64_t>{10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 11, 12, 13}));
  const RotaryTable table = MakeRotaryTable(rope, 16, lengths);
  ASSERT_EQ(table.row_stride, 8);
  ASSERT_EQ(table.inv_freq.size(), 13U * 8U);
  for (size_t t = 0; t < lengths.size(); ++t) {
    const std::vector<float> row(table.inv_freq.begin() + static_cast<std::ptrdiff_t>(8 * t),
                                 table.inv_freq.begin() + static_cast<std::ptrdiff_t>(8 * t + 8));
    EXPECT_EQ(row, InverseFrequencies(rope, 16, lengths[t])) << t;
  }
  // Short texts share one row, whatever their lengths.
  const RotaryTable alike = MakeRotaryTable(rope, 16, std::vector<int64_t>{1, 2, 8});
  EXPECT_EQ(alike.row_stride, 0);
  EXPECT_EQ(alike.inv_freq, InverseFrequencies(rope, 16, 0));
}

TEST(Rope, EdgesOfTheAllowedNumbersStayFinite) {
  for (const RopeKind kind :
       {RopeKind::kLinear, RopeKind::kDynamic, RopeKind::kYarn, RopeKind::kLlama3}) {
    for (const double theta : {1.0000001, 1e12}) {
      for (const double factor : {1.0, 1e6}) {
        for (const int64_t original : {int64_t{1}, int64_t{1} << 31}) {
          RopeParameters rope;
          rope.kind = kind;
          rope.theta = theta;
          rope.factor = factor;
          rope.original_length = original;
          for (const int64_t d : {4, 128, 4096}) {
            for (const float f : InverseFrequencies(rope, d, int64_t{1} << 31)) {
              EXPECT_TRUE(std::isfinite(f)) << RopeKindName(kind) << " " << theta << " " << factor;
            }
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace samebits
