// Windows of the interpreter's attention against what they mean, on data where every sum is exact,
// and against attention without a window.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "samebits/numerics/canonical.h"
#include "samebits/tensor/bits_testing.h"
#include "samebits/tensor/convert.h"
#include "samebits/tensor/tensor.h"

namespace samebits {
namespace {

constexpr int64_t kDim = 6;

class AttentionWindow : public testing::TestWithParam<DType> {
 protected:
  Tensor Make(const std::vector<float>& values) const {
    Tensor tensor(GetParam(), {static_cast<int64_t>(values.size())});
    for (size_t i = 0; i < values.size(); ++i) {
      if (GetParam() == DType::kF32) {
        tensor.as<float>()[i] = values[i];
      } else {
        tensor.as<uint16_t>()[i] =
            GetParam() == DType::kBF16 ? FloatToBF16(values[i]) : FloatToF16(values[i]);
      }
    }
    return tensor;
  }
  AttentionArgs Args(const Tensor& q, const std::byte* k, const std::byte* v, int64_t keys,
                     int64_t window, Tensor& context, Tensor& probs) const {
    AttentionArgs args{};
    args.dtype = GetParam();
    args.q = q.data();
    args.k = k;
    args.v = v;
    args.kv_row_stride = kDim;
    args.context = context.data();
    args.probs = probs.data();
    args.rows = args.heads = args.kv_heads = 1;
    args.head_dim = kDim;
    args.first_key_count = keys;
    args.scale = 0.5F;
    args.window = window;
    return args;
  }
  std::vector<float> Random(int64_t n) {
    std::normal_distribution<float> normal;
    std::vector<float> values;
    values.reserve(static_cast<size_t>(n));
    for (int64_t i = 0; i < n; ++i) values.push_back(normal(random_));
    return values;
  }
  std::mt19937 random_{11};
};

// A query of zeros: all probs are 1/8, and the context is the mean of the values, exactly. What the
// window hides is NaN.
TEST_P(AttentionWindow, TheLastEightKeys) {
  constexpr int64_t kWindow = 8;
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  const Tensor q = Make(std::vector<float>(kDim, 0));
  for (int64_t keys = kWindow; keys < 60; ++keys) {
    std::vector<float> k, v;
    double sum = 0;
    for (int64_t j = 0; j < keys; ++j) {
      const bool seen = j > keys - 1 - kWindow;
      const auto value = static_cast<float>(j % 16);
      if (seen) sum += value;
      k.insert(k.end(), kDim, seen ? value : kNan);
      v.insert(v.end(), kDim, seen ? value : kNan);
    }
    const Tensor keys_tensor = Make(k), values = Make(v);
    Tensor context(GetParam(), {kDim}), probs(GetParam(), {keys});
    canonical::Attention(Args(q, keys_tensor.data(), values.data(), keys, kWindow, context, probs),
                         0, 1, 0, 1);
    for (double c : ToDoubles(context.view())) EXPECT_EQ(c, sum / 8) << keys;
    const std::vector<double> p = ToDoubles(probs.view());
    for (int64_t j = 0; j < keys; ++j) {
      EXPECT_EQ(p[static_cast<size_t>(j)], j > keys - 1 - kWindow ? 0.125 : 0) << keys << " " << j;
    }
  }
}

// Keys keep their numbers: hiding a multiple of 16 keys changes no lane and no pair, so the same
// bits come out as if they had never been there; the ones left may themselves begin anywhere.
TEST_P(AttentionWindow, HidingSixteenIsBeingWithoutThem) {
  constexpr int64_t kKeys = 71;
  const Tensor q = Make(Random(kDim)), k = Make(Random(kKeys * kDim)),
               v = Make(Random(kKeys * kDim));
  for (int64_t shift : {16, 32, 48}) {
    const int64_t rest = kKeys - shift, offset = shift * kDim * DTypeSize(GetParam());
    for (int64_t window : {int64_t{1}, int64_t{4}, rest - 3, rest - 1, rest}) {
      Tensor context(GetParam(), {kDim}), probs(GetParam(), {kKeys});
      Tensor context2(GetParam(), {kDim}), probs2(GetParam(), {rest});
      canonical::Attention(Args(q, k.data(), v.data(), kKeys, window, context, probs), 0, 1, 0, 1);
      canonical::Attention(
          Args(q, k.data() + offset, v.data() + offset, rest, window, context2, probs2), 0, 1, 0,
          1);
      EXPECT_BITS_EQ(GetParam(), context2.data(), context.data(), kDim);
      EXPECT_BITS_EQ(GetParam(), probs2.data(), probs.data() + shift * DTypeSize(GetParam()), rest);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(DTypes, AttentionWindow,
                         testing::Values(DType::kF32, DType::kBF16, DType::kF16),
                         [](const auto& it) { return std::string(ModelDTypeName(it.param)); });

}  // namespace
}  // namespace samebits
