// The scalar interpreter of torch_ops.h.
#include "samebits/numerics/torch_ops.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "samebits/base/error.h"
#include "samebits/numerics/element.h"

namespace samebits::torch_ops {
namespace {

float Round(DType dtype, float value) {
  if (dtype == DType::kF32) return value;
  return dtype == DType::kBF16 ? BF16ToFloat(FloatToBF16(value)) : F16ToFloat(FloatToF16(value));
}

int64_t CeilLog2(int64_t n) {
  return n <= 2 ? 1 : static_cast<int64_t>(std::bit_width(static_cast<uint64_t>(n - 1)));
}

constexpr int64_t kAccumulators = 4, kLevels = 4;

// One lane of one accumulator over `vectors` vectors, `stride` floats apart.
float CascadeLane(const float* x, int64_t vectors, int64_t stride) {
  const int64_t power = std::max<int64_t>(4, CeilLog2(vectors) / kLevels);
  const int64_t step = int64_t{1} << power, mask = step - 1;
  float level[kLevels] = {};
  int64_t i = 0;
  while (i + step <= vectors) {
    for (const int64_t end = i + step; i < end; ++i) level[0] += x[i * stride];
    for (int64_t j = 1; j < kLevels; ++j) {
      level[j] += level[j - 1];
      level[j - 1] = 0;
      if ((i & (mask << (j * power))) != 0) break;
    }
  }
  for (; i < vectors; ++i) level[0] += x[i * stride];
  for (int64_t j = 1; j < kLevels; ++j) level[0] += level[j];
  return level[0];
}

}  // namespace

float CascadeSum(const SumFunction& function, const float* x, int64_t n) {
  const int64_t width = n < function.lanes ? 1 : function.lanes;
  const int64_t vectors = n / width, groups = vectors / kAccumulators;
  float sum = 0;
  for (int64_t i = width * vectors; i < n; ++i) sum += x[i];
  for (int64_t lane = 0; lane < width; ++lane) {
    float accumulator[kAccumulators];
    for (int64_t k = 0; k < kAccumulators; ++k) {
      accumulator[k] = CascadeLane(x + k * width + lane, groups, kAccumulators * width);
    }
    for (int64_t t = kAccumulators * groups; t < vectors; ++t) {
      accumulator[0] += x[t * width + lane];
    }
    for (int64_t k = 1; k < kAccumulators; ++k) accumulator[0] += accumulator[k];
    sum += accumulator[0];
  }
  return sum;
}

void RmsNorm(const SumFunction& function, const RmsNormArgs& args, int64_t row_begin,
             int64_t row_end) {
  std::vector<float> squares(static_cast<size_t>(args.size));
  for (int64_t row = row_begin; row < row_end; ++row) {
    const int64_t first = row * args.size;
    for (int64_t i = 0; i < args.size; ++i) {
      const float x = LoadElement(args.dtype, args.x, first + i);
      squares[static_cast<size_t>(i)] = x * x;
    }
    const float v = CascadeSum(function, squares.data(), args.size) / static_cast<float>(args.size);
    const float r = 1.0F / std::sqrt(v + args.eps);
    for (int64_t i = 0; i < args.size; ++i) {
      // round: transformers casts the normalised values to dtype before it multiplies
      const float h = Round(args.dtype, LoadElement(args.dtype, args.x, first + i) * r);
      const float w = Round(args.dtype, LoadElement(args.weight_dtype, args.w, i));
      StoreElement(args.dtype, args.y, first + i, w * h);
    }
  }
}

void SoftmaxRow(const SoftmaxFunction& function, const float* x, float* y, int64_t n) {
  float max = -std::numeric_limits<float>::infinity();
  for (int64_t i = 0; i < n; ++i) max = std::max(max, x[i]);
  for (int64_t i = 0; i < n; ++i) y[i] = torch_math::Evaluate(function.exp, x[i] - max);
  float sum = 0;
  const int64_t lanes = function.lanes;
  if (n < lanes) {
    for (int64_t i = 0; i < n; ++i) sum += y[i];
  } else {
    std::vector<float> lane(y, y + lanes);
    for (int64_t i = lanes; i < n; ++i) lane[static_cast<size_t>(i % lanes)] += y[i];
    for (int64_t d = lanes / 2; d > 0; d /= 2) {
      for (int64_t l = 0; l < d; ++l)
        lane[static_cast<size_t>(l)] += lane[static_cast<size_t>(l + d)];
    }
    sum = lane[0];
  }
  const float inverse = 1.0F / sum;
  for (int64_t i = 0; i < n; ++i) y[i] *= inverse;
}

int64_t SiluPartSize(const SiluFunction& function, int64_t numel, int64_t threads) {
  if (numel <= function.grain || threads <= 1) return numel;
  const int64_t parts = std::min(threads, (numel + function.grain - 1) / function.grain);
  return (numel + parts - 1) / parts;
}

void Silu(const SiluFunction& function, DType dtype, const void* x, void* y, int64_t begin,
          int64_t end, int64_t numel, int64_t threads) {
  const int64_t part = SiluPartSize(function, numel, threads);
  for (int64_t i = begin; i < end; ++i) {
    const int64_t first = i / part * part, size = std::min(part, numel - first);
    const bool tail = i - first >= size / function.block * function.block;
    const float v = LoadElement(dtype, x, i);
    const float e = torch_math::Evaluate(tail ? function.tail_exp : function.exp, -v);
    StoreElement(dtype, y, i, v / (1.0F + e));
  }
}

void MultiplyByNumber(DType dtype, const void* x, double number, void* y, int64_t n) {
  const auto factor = static_cast<float>(number);
  for (int64_t i = 0; i < n; ++i) StoreElement(dtype, y, i, LoadElement(dtype, x, i) * factor);
}

void MaskedSoftmaxRow(const SoftmaxFunction& function, DType dtype, const void* scores,
                      const uint8_t* keep, void* probs, float* wide, int64_t n) {
  AddMask(dtype, scores, keep, probs, n);
  for (int64_t j = 0; j < n; ++j) wide[j] = LoadElement(dtype, probs, j);
  SoftmaxRow(function, wide, wide, n);
  for (int64_t j = 0; j < n; ++j) StoreElement(dtype, probs, j, wide[j]);
}

void AddMask(DType dtype, const void* x, const uint8_t* keep, void* y, int64_t n) {
  const float lowest = dtype == DType::kF32    ? std::numeric_limits<float>::lowest()
                       : dtype == DType::kBF16 ? BF16ToFloat(0xff7f)
                                               : -65504.0F;
  for (int64_t i = 0; i < n; ++i) {
    StoreElement(dtype, y, i, LoadElement(dtype, x, i) + (keep[i] != 0 ? 0.0F : lowest));
  }
}

namespace {

// `value` moved by whole steps of the ordered fp32 values (-0 and +0 are one value).
float MoveUlps(float value, int64_t ulps) {
  const auto bits = std::bit_cast<int32_t>(value);
  const int64_t place = bits >= 0 ? bits : int64_t{INT32_MIN} - bits;
  const int64_t moved = place + ulps;
  const int64_t back = moved >= 0 ? moved : int64_t{INT32_MIN} - moved;
  return std::bit_cast<float>(static_cast<int32_t>(back));
}

// The differences of one position, as ulps for each frequency.
void FillDifferences(const std::vector<AngleDifference>& all, int64_t position,
                     std::vector<int64_t>* ulps) {
  std::fill(ulps->begin(), ulps->end(), 0);
  auto it = std::lower_bound(all.begin(), all.end(), position,
                             [](const AngleDifference& d, int64_t p) { return d.position < p; });
  for (; it != all.end() && it->position == position; ++it) {
    (*ulps)[static_cast<size_t>(it->i)] = it->ulps;
  }
}

}  // namespace

void Rotary(const RotaryFunction& function, const RotaryArgs& args, int64_t row_begin,
            int64_t row_end) {
  const int64_t half = args.head_dim / 2;
  SAMEBITS_CHECK(static_cast<int64_t>(function.inv_freq.size()) == half,
                 "torch_ops::Rotary: head_dim / 2 frequencies");
  std::vector<int64_t> cos_ulps(static_cast<size_t>(half)), sin_ulps(static_cast<size_t>(half));
  for (int64_t row = row_begin; row < row_end; ++row) {
    const int64_t position = args.positions[row];
    if (position < 0 || position >= function.positions) {
      Fail(ErrorCode::kUnsupported,
           "rotary: position {}: the cosines and sines of positions 0 to {} are known; probe or "
           "capture with a longer text",
           position, function.positions - 1);
    }
    FillDifferences(function.cos, position, &cos_ulps);
    FillDifferences(function.sin, position, &sin_ulps);
    for (int64_t i = 0; i < half; ++i) {
      const auto k = static_cast<size_t>(i);
      const float angle = static_cast<float>(position) * function.inv_freq[k];
      const float cos = MoveUlps(torch_math::CosRounded(angle), cos_ulps[k]) * function.scaling;
      const float sin = MoveUlps(torch_math::SinRounded(angle), sin_ulps[k]) * function.scaling;
      for (const int64_t column : {i, i + half}) {
        StoreElement(args.dtype, args.cos, row * args.head_dim + column, cos);
        StoreElement(args.dtype, args.sin, row * args.head_dim + column, sin);
      }
    }
  }
}

}  // namespace samebits::torch_ops
