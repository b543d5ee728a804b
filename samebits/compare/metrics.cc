#include "samebits/compare/metrics.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "samebits/base/error.h"
#include "samebits/tensor/convert.h"

namespace samebits {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

bool Floating(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kBF16 || dtype == DType::kF16 ||
         dtype == DType::kF64;
}

// Numbers of the type in a row: consecutive ones are one apart, +0 and -0 both are 0. Not for kF64,
// whose places have more bits than a double.
double Ordinal(double value, DType dtype) {
  const int bits = SignificandBits(dtype);
  const double magnitude = std::fabs(value), smallest = SmallestNormal(dtype);
  double ordinal = 0;
  if (magnitude < smallest) {
    ordinal = magnitude / (smallest * std::ldexp(1.0, 1 - bits));
  } else {
    const int exponent = std::ilogb(magnitude);
    const double binade = exponent - std::ilogb(smallest) + 1;
    ordinal = (binade - 1 + std::ldexp(magnitude, -exponent)) * std::ldexp(1.0, bits - 1);
  }
  return std::copysign(ordinal, value);
}

int64_t Ordinal64(double value) {
  const auto magnitude = std::bit_cast<int64_t>(std::fabs(value));
  return std::signbit(value) ? -magnitude : magnitude;
}

// Steps of dtype from x to y, both finite.
double Steps(double x, double y, DType dtype) {
  if (dtype != DType::kF64) return std::fabs(Ordinal(x, dtype) - Ordinal(y, dtype));
  const int64_t from = Ordinal64(std::min(x, y)), to = Ordinal64(std::max(x, y));
  return static_cast<double>(static_cast<uint64_t>(to) - static_cast<uint64_t>(from));
}

bool SameBits(const TensorView& a, const TensorView& b, int64_t i) {
  const auto size = static_cast<size_t>(DTypeSize(a.dtype));
  return std::memcmp(a.data + i * DTypeSize(a.dtype), b.data + i * DTypeSize(a.dtype), size) == 0;
}

struct Sums {
  double ab = 0, aa = 0, bb = 0;
};

void CompareValues(double x, double y, DType dtype, bool same_bits, int64_t i, Metrics& m) {
  if (std::isnan(x) && std::isnan(y)) return;
  if (same_bits) return;
  ++m.differing;
  if (m.first < 0) m.first = i;
  if (std::isnan(x) || std::isnan(y)) {
    ++m.nan_mismatch;
    m.max_abs = m.max_rel = m.max_ulp = kInfinity;
    return;
  }
  if (x == y) return;  // +0 and -0
  if (std::isinf(x) || std::isinf(y)) {
    m.max_abs = m.max_rel = m.max_ulp = kInfinity;
    return;
  }
  const double distance = std::fabs(x - y);
  m.max_abs = std::max(m.max_abs, distance);
  m.max_rel = std::max(m.max_rel, x == 0 ? kInfinity : distance / std::fabs(x));
  m.max_ulp = std::max(m.max_ulp, Steps(x, y, dtype));
}

}  // namespace

Metrics CompareTensors(const TensorView& a, const TensorView& b,
                       const std::function<bool(int64_t)>& ignore) {
  Metrics m;
  if (a.shape != b.shape) {
    m.not_comparable =
        fmt::format("shape {} against {}", ShapeToString(a.shape), ShapeToString(b.shape));
    return m;
  }
  const bool numbers = Floating(a.dtype) && Floating(b.dtype);
  if (!numbers && a.dtype != b.dtype) {
    m.not_comparable = fmt::format("dtype {} against {}", DTypeName(a.dtype), DTypeName(b.dtype));
    return m;
  }
  const int64_t n = a.elements();
  if (!numbers) {  // integers and the like: bits alone
    for (int64_t i = 0; i < n; ++i) {
      if (ignore && ignore(i)) continue;
      ++m.elements;
      if (SameBits(a, b, i)) continue;
      ++m.differing;
      if (m.first < 0) m.first = i;
    }
    return m;
  }
  const std::vector<double> x = ToDoubles(a), y = ToDoubles(b);
  const DType coarser = SignificandBits(a.dtype) < SignificandBits(b.dtype) ? a.dtype : b.dtype;
  Sums sums;
  for (int64_t i = 0; i < n; ++i) {
    if (ignore && ignore(i)) continue;
    ++m.elements;
    const bool same_bits = a.dtype == b.dtype
                               ? SameBits(a, b, i)
                               : x[i] == y[i] && std::signbit(x[i]) == std::signbit(y[i]);
    CompareValues(x[i], y[i], coarser, same_bits, i, m);
    sums.ab += x[i] * y[i];
    sums.aa += x[i] * x[i];
    sums.bb += y[i] * y[i];
  }
  if (sums.aa == 0 || sums.bb == 0) {
    m.cosine = sums.aa == 0 && sums.bb == 0 ? 1 : 0;
    if (std::isnan(sums.ab)) m.cosine = sums.ab;  // zeros against infinities
  } else {
    const double product = sums.aa * sums.bb;
    m.cosine = sums.ab / (std::isnormal(product) ? std::sqrt(product)
                                                 : std::sqrt(sums.aa) * std::sqrt(sums.bb));
  }
  return m;
}

}  // namespace samebits
