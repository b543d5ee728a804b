#include "samebits/numerics/exact.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "samebits/base/error.h"
#include "samebits/numerics/bounds.h"
#include "samebits/numerics/tail.h"
#include "samebits/tensor/convert.h"

namespace samebits::exact {
namespace {

// fp64 additions in eight interleaved chains, so that the compiler can use vectors. Built once for
// each instruction set; fp64 lanes, no fused operations, so the bits are the same everywhere.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__)
#define SAMEBITS_CLONES \
  __attribute__((target_clones("default", "arch=haswell", "arch=skylake-avx512")))
#else
#define SAMEBITS_CLONES
#endif

constexpr int kLanes = 8;
constexpr int kRowBlock = 4;

// Products of one weight row with kRowBlock rows of x.
SAMEBITS_CLONES
void DotBlock(const double* __restrict w, const double* __restrict x, int64_t size,
              double* __restrict sums, double* __restrict magnitudes) {
  double sum[kRowBlock][kLanes] = {};
  double magnitude[kRowBlock][kLanes] = {};
  const int64_t whole = size / kLanes * kLanes;
  for (int64_t k = 0; k < whole; k += kLanes) {
    for (int r = 0; r < kRowBlock; ++r) {
      for (int l = 0; l < kLanes; ++l) {
        const double product = w[k + l] * x[r * size + k + l];
        sum[r][l] += product;
        magnitude[r][l] += __builtin_fabs(product);
      }
    }
  }
  for (int r = 0; r < kRowBlock; ++r) {
    double s = 0, m = 0;
    for (int l = 0; l < kLanes; ++l) {
      s += sum[r][l];
      m += magnitude[r][l];
    }
    for (int64_t k = whole; k < size; ++k) {
      const double product = w[k] * x[r * size + k];
      s += product;
      m += __builtin_fabs(product);
    }
    sums[r] = s;
    magnitudes[r] = m;
  }
}

double ReadElement(const TensorView& w, int64_t index) {
  switch (w.dtype) {
    case DType::kBF16:
      return BF16ToFloat(w.as<uint16_t>()[index]);
    case DType::kF16:
      return F16ToFloat(w.as<uint16_t>()[index]);
    case DType::kF32:
      return w.as<float>()[index];
    default:
      CheckFailed(__FILE__, __LINE__, "dtype", "weights are BF16, F16 or F32");
  }
}

double RoundOperand(Products products, double value) {
  if (products == Products::kFull || !std::isfinite(value) || value == 0) return value;
  if (products == Products::kBf16) return RoundToDType(value, DType::kBF16);
  if (products == Products::kBf16x3) {
    const double high = RoundToDType(value, DType::kBF16);
    return high + RoundToDType(value - high, DType::kBF16);
  }
  const double step = std::ldexp(1.0, std::ilogb(value) - 10);  // 11 significant bits
  const double steps = value / step;
  if (products == Products::kTf32Cut) return std::trunc(steps) * step;
  if (products == Products::kTf32Away) return std::round(steps) * step;
  return std::nearbyint(steps) * step;
}

double LowPart(double value) {
  return RoundToDType(value - RoundToDType(value, DType::kBF16), DType::kBF16);
}

}  // namespace

void RoundOperands(Products products, std::vector<double>& values, std::vector<double>& low) {
  low.clear();
  if (products == Products::kFull) return;
  if (products == Products::kBf16x3) {
    low.resize(values.size());
    std::transform(values.begin(), values.end(), low.begin(), LowPart);
  }
  for (double& v : values) v = RoundOperand(products, v);
}

void Dots(const DotArgs& args, int64_t out_begin, int64_t out_end) {
  // Rows beyond the end are zeros, so that every block has kRowBlock of them.
  const int64_t padded = (args.rows + kRowBlock - 1) / kRowBlock * kRowBlock;
  const auto elements = static_cast<size_t>(padded * args.size);
  std::vector<double> x(elements), x_low, row(static_cast<size_t>(args.size)), row_low;
  std::copy_n(args.x, args.rows * args.size, x.begin());
  RoundOperands(args.products, x, x_low);
  const bool same = args.w.dtype == args.dtype;
  for (int64_t n = out_begin; n < out_end; ++n) {
    for (int64_t k = 0; k < args.size; ++k) {
      double w = ReadElement(args.w, args.transposed ? k * args.outs + n : n * args.size + k);
      if (args.through) w = RoundToDType(w, *args.through);
      row[k] = same            ? w
               : args.truncate ? TruncateToDType(w, args.dtype)
                               : RoundToDType(w, args.dtype);
    }
    RoundOperands(args.products, row, row_low);
    for (int64_t r = 0; r < args.rows; r += kRowBlock) {
      double sums[kRowBlock], magnitudes[kRowBlock], low[kRowBlock] = {}, unused[kRowBlock];
      DotBlock(row.data(), &x[r * args.size], args.size, sums, magnitudes);
      if (!x_low.empty()) DotBlock(row_low.data(), &x_low[r * args.size], args.size, low, unused);
      for (int64_t i = 0; i < std::min<int64_t>(kRowBlock, args.rows - r); ++i) {
        args.y[(r + i) * args.outs + n] = sums[i] - low[i];
        args.magnitude[(r + i) * args.outs + n] = magnitudes[i];
      }
    }
  }
}

double SumBound(int64_t n, double magnitude) { return Gamma(static_cast<double>(n)) * magnitude; }

void RmsNormRow(const double* x, int64_t size, double eps, double* y, double* relative) {
  double squares = 0;
  for (int64_t k = 0; k < size; ++k) squares += x[k] * x[k];
  const double root = std::sqrt(squares / static_cast<double>(size) + eps);
  for (int64_t k = 0; k < size; ++k) y[k] = x[k] / root;
  *relative = Gamma(static_cast<double>(size) + 2) / 2 + 6 * kUnitRoundoff;
}

void LayerNormRow(const double* x, int64_t size, double eps, double* y, double* bound) {
  const auto n = static_cast<double>(size);
  double sum = 0, magnitude = 0, squares = 0;
  for (int64_t k = 0; k < size; ++k) {
    sum += x[k];
    magnitude += std::fabs(x[k]);
  }
  const double mean = sum / n;
  for (int64_t k = 0; k < size; ++k) squares += (x[k] - mean) * (x[k] - mean);
  const double root = std::sqrt(squares / n + eps);
  // The mean errs by gamma(K) mean |x| and its own rounding; what follows as in RmsNormRow, with
  // each difference rounded as well.
  const double error = (Gamma(n) * magnitude / n + kUnitRoundoff * std::fabs(mean)) / root;
  for (int64_t k = 0; k < size; ++k) {
    y[k] = (x[k] - mean) / root;
    bound[k] = std::fabs(y[k]) * (Gamma(n + 4) / 2 + 8 * kUnitRoundoff) + error +
               2 * kUnitRoundoff * std::fabs(x[k]) / root;
  }
}

void SoftmaxRow(const double* s, const uint8_t* visible, int64_t keys, double* y, double* bound) {
  double top = -std::numeric_limits<double>::infinity();
  int64_t count = 0;
  for (int64_t j = 0; j < keys; ++j) {
    if (!visible[j]) continue;
    top = std::max(top, s[j]);
    ++count;
  }
  double sum = 0;
  for (int64_t j = 0; j < keys; ++j) {
    y[j] = visible[j] ? std::exp(s[j] - top) : 0.0;
    sum += y[j];
  }
  // e_j: relative error of one exponential of a rounded difference; it enters through the numerator
  // and, weighted, through the sum.
  double spread = 0;
  for (int64_t j = 0; j < keys; ++j) {
    y[j] /= sum;
    if (visible[j] && y[j] > 0) spread += y[j] * (top - s[j] + 5) * kUnitRoundoff;
  }
  for (int64_t j = 0; j < keys; ++j) {
    bound[j] = 2 * kTiny;
    if (visible[j] && y[j] > 0) {
      const double own = (top - s[j] + 5) * kUnitRoundoff;
      bound[j] += y[j] * (own + spread + Gamma(static_cast<double>(count)) + 2 * kUnitRoundoff);
    }
  }
}

void Rotary(int64_t position, const Frequency& frequency, double scaling, double* cosine,
            double* sine, double* bound) {
  const double angle = static_cast<double>(position) * frequency.value;
  *cosine = scaling * std::cos(angle);
  *sine = scaling * std::sin(angle);
  // The position is rounded once (beyond 2^24), the product once.
  *bound = (frequency.relative + 2 * kUnitRoundoff) * std::fabs(angle) + 4 * kUnitRoundoff;
  if (scaling != 1) *bound = scaling * (*bound + 3 * kUnitRoundoff);
}

void Activation(std::string_view name, double x, double* y, double* bound) {
  constexpr double u = kUnitRoundoff;
  if (name == "silu") {
    *y = x / (1 + std::exp(-x));
    *bound = 8 * u * std::fabs(*y);
    if (x < -87) *bound += std::fabs(*y);  // exp(-x) overflows in fp32 and the result is a zero
  } else if (name == "gelu") {
    *y = 0.5 * x * std::erfc(-x * M_SQRT1_2);
    *bound = 8 * u * std::fabs(*y) + 4 * u * std::fabs(x);
  } else if (name == "gelu_tanh") {
    const double inner = std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x);
    *y = 0.5 * x * (1 + std::tanh(inner));
    *bound = 8 * u * std::fabs(*y) + 4 * u * std::fabs(x);
  } else if (name == "relu") {
    *y = x > 0 ? x : (x <= 0 ? 0.0 : x);
    *bound = 0;
  } else if (name == "quick_gelu") {
    *y = x / (1 + std::exp(-1.702 * x));
    *bound = (8 + 4 * std::fabs(x)) * u * std::fabs(*y);
  } else if (name == "identity") {
    *y = x;
    *bound = 0;
  } else {
    CheckFailed(__FILE__, __LINE__, "name", "not an activation");
  }
}

}  // namespace samebits::exact
