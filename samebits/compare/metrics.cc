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

constexpr int64_t kBlock = 4096;  // elements that are converted at once

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

// The place of a number of kF32 in a row, which is its bits; in steps of kBF16 it is 2^-16 of that.
double OrdinalOfFloat(double value) {
  const auto bits = std::bit_cast<uint32_t>(static_cast<float>(value));
  const auto magnitude = static_cast<double>(bits & 0x7fffffffU);
  return std::signbit(value) ? -magnitude : magnitude;
}

// Steps of the coarser dtype from x to y, both finite.
double Steps(double x, double y, DType dtype, bool floats) {
  if (floats) {  // neither has more digits than kF32, nor another range
    const double steps = std::fabs(OrdinalOfFloat(x) - OrdinalOfFloat(y));
    return dtype == DType::kBF16 ? steps * 0x1p-16 : steps;
  }
  if (dtype != DType::kF64) return std::fabs(Ordinal(x, dtype) - Ordinal(y, dtype));
  const int64_t from = Ordinal64(std::min(x, y)), to = Ordinal64(std::max(x, y));
  return static_cast<double>(static_cast<uint64_t>(to) - static_cast<uint64_t>(from));
}

bool SameBits(const TensorView& a, const TensorView& b, int64_t i) {
  const auto size = static_cast<size_t>(DTypeSize(a.dtype));
  return std::memcmp(a.data + i * DTypeSize(a.dtype), b.data + i * DTypeSize(a.dtype), size) == 0;
}

// The root of a mean of squares, without overflow or underflow on the way.
class RootMeanSquare {
 public:
  void Add(double distance) {
    if (std::isinf(distance)) {  // of two kF64
      infinite_ = true;
    } else if (distance > scale_) {
      const double ratio = scale_ / distance;
      sum_ = 1 + sum_ * ratio * ratio;
      scale_ = distance;
    } else {
      const double ratio = distance / scale_;
      sum_ += ratio * ratio;
    }
  }
  double Over(int64_t elements) const {
    if (infinite_) return kInfinity;
    if (elements == 0 || scale_ == 0) return 0;
    return scale_ * std::sqrt(sum_ / static_cast<double>(elements));
  }

 private:
  double scale_ = 0, sum_ = 0;
  bool infinite_ = false;
};

class Comparison {
 public:
  Comparison(const TensorView& a, const TensorView& b)
      : a_(a),
        b_(b),
        coarser_(SignificandBits(a.dtype) < SignificandBits(b.dtype) ? a.dtype : b.dtype) {
    const auto like_float = [](DType d) { return d == DType::kF32 || d == DType::kBF16; };
    floats_ = like_float(a.dtype) && like_float(b.dtype);
  }

  Metrics Run(const std::function<bool(int64_t)>& ignore);

 private:
  void Differ(double x, double y, int64_t i);
  double Cosine() const;

  const TensorView &a_, &b_;
  DType coarser_;
  bool floats_;
  Metrics m_;
  RootMeanSquare rms_;
  bool infinite_ = false;  // an element is infinitely far off
  double ab_ = 0, aa_ = 0, bb_ = 0;
};

// Element i has other bits.
void Comparison::Differ(double x, double y, int64_t i) {
  if (std::isnan(x) && std::isnan(y)) return;
  ++m_.differing;
  if (m_.first < 0) m_.first = i;
  if (x == y) return;  // +0 and -0
  if (!std::isfinite(x) || !std::isfinite(y)) {
    m_.nan_mismatch += std::isnan(x) || std::isnan(y) ? 1 : 0;
    infinite_ = true;
    return;
  }
  const double distance = std::fabs(x - y);
  m_.max_abs = std::max(m_.max_abs, distance);
  m_.max_rel = std::max(m_.max_rel, x == 0 ? kInfinity : distance / std::fabs(x));
  m_.max_ulp = std::max(m_.max_ulp, Steps(x, y, coarser_, floats_));
  rms_.Add(distance);
}

double Comparison::Cosine() const {
  if (aa_ == 0 || bb_ == 0) {
    if (std::isnan(ab_)) return ab_;  // zeros against infinities
    return aa_ == 0 && bb_ == 0 ? 1 : 0;
  }
  const double product = aa_ * bb_;
  return ab_ / (std::isnormal(product) ? std::sqrt(product) : std::sqrt(aa_) * std::sqrt(bb_));
}

Metrics Comparison::Run(const std::function<bool(int64_t)>& ignore) {
  const int64_t n = a_.elements();
  std::vector<double> x(static_cast<size_t>(std::min(kBlock, n))), y(x.size());
  for (int64_t begin = 0; begin < n; begin += kBlock) {
    const int64_t count = std::min(kBlock, n - begin);
    ToDoubles(a_, begin, count, x.data());
    ToDoubles(b_, begin, count, y.data());
    for (int64_t k = 0; k < count; ++k) {
      if (ignore && ignore(begin + k)) continue;
      ++m_.elements;
      // As fp64 the bits of numbers are the same where they were (of one dtype) or the numbers are.
      if (std::bit_cast<uint64_t>(x[k]) != std::bit_cast<uint64_t>(y[k])) {
        Differ(x[k], y[k], begin + k);
      }
      ab_ += x[k] * y[k];
      aa_ += x[k] * x[k];
      bb_ += y[k] * y[k];
    }
  }
  m_.rms = rms_.Over(m_.elements);
  if (infinite_) m_.max_abs = m_.max_rel = m_.max_ulp = m_.rms = kInfinity;
  m_.cosine = Cosine();
  return m_;
}

// Integers and the like: bits alone.
Metrics CompareBits(const TensorView& a, const TensorView& b,
                    const std::function<bool(int64_t)>& ignore) {
  Metrics m;
  const int64_t n = a.elements();
  for (int64_t i = 0; i < n; ++i) {
    if (ignore && ignore(i)) continue;
    ++m.elements;
    if (SameBits(a, b, i)) continue;
    ++m.differing;
    if (m.first < 0) m.first = i;
  }
  return m;
}

}  // namespace

std::string_view DifferenceName(Difference difference) {
  switch (difference) {
    case Difference::kNone:
      return "none";
    case Difference::kValues:
      return "values";
    case Difference::kDType:
      return "dtype";
    case Difference::kShape:
      return "shape";
  }
  return "";
}

Difference DifferenceOf(const TensorView& a, const TensorView& b, const Metrics& metrics) {
  if (a.shape != b.shape) return Difference::kShape;
  if (a.dtype != b.dtype) return Difference::kDType;
  return metrics.same() ? Difference::kNone : Difference::kValues;
}

bool ComparedAsNumbers(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kBF16 || dtype == DType::kF16 ||
         dtype == DType::kF64;
}

Metrics CompareTensors(const TensorView& a, const TensorView& b,
                       const std::function<bool(int64_t)>& ignore) {
  Metrics m;
  if (a.shape != b.shape) {
    m.not_comparable =
        fmt::format("shape {} against {}", ShapeToString(a.shape), ShapeToString(b.shape));
    return m;
  }
  if (ComparedAsNumbers(a.dtype) && ComparedAsNumbers(b.dtype)) return Comparison(a, b).Run(ignore);
  if (a.dtype != b.dtype) {
    m.not_comparable = fmt::format("dtype {} against {}", DTypeName(a.dtype), DTypeName(b.dtype));
    return m;
  }
  return CompareBits(a, b, ignore);
}

}  // namespace samebits
