#include "samebits/numerics/canonical.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "samebits/base/error.h"
#include "samebits/numerics/flush.h"
#include "samebits/numerics/math.h"
#include "samebits/tensor/convert.h"

namespace samebits::canonical {
namespace {

constexpr int kLanes = 16;
using Lanes = std::array<float, kLanes>;

float Load(DType dtype, const void* data, int64_t i) {
  switch (dtype) {
    case DType::kBF16:
      return BF16ToFloat(static_cast<const uint16_t*>(data)[i]);
    case DType::kF16:
      return F16ToFloat(static_cast<const uint16_t*>(data)[i]);
    default:
      return static_cast<const float*>(data)[i];
  }
}

void Store(DType dtype, void* data, int64_t i, float value) {
  switch (dtype) {
    case DType::kBF16:
      static_cast<uint16_t*>(data)[i] = FloatToBF16(value);
      break;
    case DType::kF16:
      static_cast<uint16_t*>(data)[i] = FloatToF16(value);
      break;
    default:
      static_cast<float*>(data)[i] = value;
  }
}

float Round(DType dtype, float value) {
  switch (dtype) {
    case DType::kBF16:
      return BF16ToFloat(FloatToBF16(value));
    case DType::kF16:
      return F16ToFloat(FloatToF16(value));
    default:
      return value;
  }
}

// A weight in the model's dtype.
float LoadWeight(DType dtype, DType weight_dtype, const void* data, int64_t i) {
  const float value = Load(weight_dtype, data, i);
  return weight_dtype == dtype ? value : Round(dtype, value);
}

float Reduce(Lanes lanes) {
  for (int d = 8; d >= 1; d /= 2) {
    Lanes next{};
    for (int l = 0; l < kLanes; ++l) next[l] = lanes[l] + lanes[l ^ d];
    lanes = next;
  }
  return lanes[0];
}

// The dot product of canonical.h; x(k) and w(k) give 0 beyond the end.
template <typename X, typename W>
float Dot(DType dtype, int64_t size, X&& x, W&& w) {
  Lanes lanes{};
  if (dtype == DType::kBF16) {
    for (int64_t k = 0; k < size; k += 2 * kLanes) {
      for (int l = 0; l < kLanes; ++l) {
        const int64_t even = k + 2 * l;
        lanes[l] = std::fma(x(even + 1), w(even + 1), lanes[l]);
        lanes[l] = std::fma(x(even), w(even), lanes[l]);
      }
    }
  } else {
    for (int64_t k = 0; k < size; k += kLanes) {
      for (int l = 0; l < kLanes; ++l) lanes[l] = std::fma(x(k + l), w(k + l), lanes[l]);
    }
  }
  return Reduce(lanes);
}

__attribute__((noinline)) void LinearBody(const LinearArgs& a, int64_t row_begin, int64_t row_end,
                                          int64_t out_begin, int64_t out_end) {
  const int64_t size = a.in_features;
  for (int64_t t = row_begin; t < row_end; ++t) {
    for (int64_t n = out_begin; n < out_end; ++n) {
      const auto x = [&](int64_t k) { return k < size ? Load(a.dtype, a.x, t * size + k) : 0.0F; };
      const auto w = [&](int64_t k) {
        return k < size ? LoadWeight(a.dtype, a.weight_dtype, a.w, n * size + k) : 0.0F;
      };
      float y = Dot(a.dtype, size, x, w);
      if (a.bias != nullptr) y = y + LoadWeight(a.dtype, a.weight_dtype, a.bias, n);
      Store(a.dtype, a.y, t * a.out_features + n, y);  // round: the only one
    }
  }
}

__attribute__((noinline)) void AttentionRow(const AttentionArgs& a, int64_t head, int64_t row) {
  const int64_t d = a.head_dim, end = a.first_key_count + row;  // sees the keys begin .. end - 1
  const int64_t begin = a.window > 0 ? std::max<int64_t>(0, end - a.window) : 0;
  const int64_t keys = a.first_key_count + a.rows - 1;
  const int64_t kv = head / (a.heads / a.kv_heads) * a.kv_head_stride;
  std::vector<float> s(static_cast<size_t>(end));
  for (int64_t j = begin; j < end; ++j) {
    const auto q = [&](int64_t i) {
      return i < d ? Load(a.dtype, a.q, (row * a.heads + head) * d + i) : 0.0F;
    };
    const auto k = [&](int64_t i) {
      return i < d ? Load(a.dtype, a.k, kv + j * a.kv_row_stride + i) : 0.0F;
    };
    // round: the product, then the scaled product, as Hugging Face's eager attention
    s[j] = Round(a.dtype, Round(a.dtype, Dot(a.dtype, d, q, k)) * a.scale);
  }
  float top = -std::numeric_limits<float>::infinity();
  for (int64_t j = begin; j < end; ++j) top = s[j] > top ? s[j] : top;
  std::vector<float> p(s.size());
  Lanes sums{};
  for (int64_t j = begin; j < end; ++j) {
    p[j] = Exp(s[j] - top);
    sums[j % kLanes] = sums[j % kLanes] + p[j];
  }
  const float inverse = 1.0F / Reduce(sums);
  // round: probs in the model's dtype
  for (int64_t j = begin; j < end; ++j) p[j] = Round(a.dtype, p[j] * inverse);
  for (int64_t i = 0; i < d; ++i) {
    float sum = 0;
    const auto add = [&](int64_t j) {
      const bool seen = j >= begin && j < end;  // the other one of a pair may be hidden
      const float value = seen ? Load(a.dtype, a.v, kv + j * a.kv_row_stride + i) : 0.0F;
      sum = std::fma(seen ? p[j] : 0.0F, value, sum);
    };
    if (a.dtype == DType::kBF16) {
      for (int64_t j = begin / 2 * 2; j < end; j += 2) {
        add(j + 1);
        add(j);
      }
    } else {
      for (int64_t j = begin; j < end; ++j) add(j);
    }
    Store(a.dtype, a.context, (row * a.heads + head) * d + i, sum);
  }
  for (int64_t j = 0; j < keys; ++j) {
    const int64_t at = (head * a.rows + row) * keys + j;
    const bool seen = j >= begin && j < end;
    if (a.scores != nullptr) Store(a.dtype, a.scores, at, seen ? s[j] : 0.0F);
    if (a.probs != nullptr) Store(a.dtype, a.probs, at, seen ? p[j] : 0.0F);
  }
}

}  // namespace

void Linear(const LinearArgs& args, int64_t row_begin, int64_t row_end, int64_t out_begin,
            int64_t out_end) {
  const FlushDenormals flush(args.dtype == DType::kBF16);
  LinearBody(args, row_begin, row_end, out_begin, out_end);
}

void RmsNorm(const RmsNormArgs& a, int64_t row_begin, int64_t row_end) {
  for (int64_t t = row_begin; t < row_end; ++t) {
    const auto x = [&](int64_t k) {
      return k < a.size ? Load(a.dtype, a.x, t * a.size + k) : 0.0F;
    };
    const float squares = Dot(DType::kF32, a.size, x, x);
    const float mean = squares / static_cast<float>(a.size);
    const float r = 1.0F / std::sqrt(mean + a.eps);
    for (int64_t k = 0; k < a.size; ++k) {
      const float h = Round(a.dtype, x(k) * r);  // round: before the weight, as Hugging Face
      Store(a.dtype, a.y, t * a.size + k, LoadWeight(a.dtype, a.weight_dtype, a.w, k) * h);
    }
  }
}

void Rotary(const RotaryArgs& a, int64_t row_begin, int64_t row_end) {
  const int64_t half = a.head_dim / 2;
  for (int64_t t = row_begin; t < row_end; ++t) {
    const float* inv_freq = a.inv_freq + t * a.inv_freq_stride;
    const auto position = static_cast<float>(a.positions[t]);
    for (int64_t i = 0; i < half; ++i) {
      // round: the angle, its cosine and sine, and their products with the scaling are fp32 each
      const float angle = position * inv_freq[i];
      double cosine = 0, sine = 0;
      CosSin(angle, &cosine, &sine);
      for (int64_t at : {t * a.head_dim + i, t * a.head_dim + half + i}) {
        Store(a.dtype, a.cos, at, static_cast<float>(cosine) * a.scaling);
        Store(a.dtype, a.sin, at, static_cast<float>(sine) * a.scaling);
      }
    }
  }
}

void Rope(const RopeArgs& a, int64_t row_begin, int64_t row_end) {
  const int64_t d = a.head_dim, half = d / 2;
  for (int64_t row = row_begin * a.heads; row < row_end * a.heads; ++row) {
    const int64_t t = row / a.heads;
    for (int64_t i = 0; i < d; ++i) {
      const float x = Load(a.dtype, a.x, row * d + i);
      const float partner = Load(a.dtype, a.x, row * d + (i + half) % d);
      const float rotated = i < half ? -partner : partner;
      // round: each product, then the sum
      const float b = Round(a.dtype, x * Load(a.dtype, a.cos, t * d + i));
      const float c = Round(a.dtype, rotated * Load(a.dtype, a.sin, t * d + i));
      Store(a.dtype, a.y, row * d + i, b + c);
    }
  }
}

void Attention(const AttentionArgs& args, int64_t head_begin, int64_t head_end, int64_t row_begin,
               int64_t row_end) {
  const FlushDenormals flush(args.dtype == DType::kBF16);
  for (int64_t head = head_begin; head < head_end; ++head) {
    for (int64_t row = row_begin; row < row_end; ++row) AttentionRow(args, head, row);
  }
}

void Add(DType dtype, const void* a, const void* b, void* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) Store(dtype, y, i, Load(dtype, a, i) + Load(dtype, b, i));
}

void Multiply(DType dtype, const void* a, const void* b, void* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) Store(dtype, y, i, Load(dtype, a, i) * Load(dtype, b, i));
}

void Silu(DType dtype, const void* x, void* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const float v = Load(dtype, x, i);
    Store(dtype, y, i, v / (1.0F + Exp(-v)));
  }
}

}  // namespace samebits::canonical
