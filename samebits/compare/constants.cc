#include "samebits/compare/constants.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "samebits/tensor/convert.h"

namespace samebits {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr int64_t kBlock = 4096;

struct Interval {
  double low = -kInfinity, high = kInfinity;

  void Meet(const Interval& other) {
    low = std::max(low, other.low);
    high = std::min(high, other.high);
  }
  bool empty() const { return !(low <= high); }
  bool bounded() const { return std::isfinite(low) && std::isfinite(high); }
};

// What rounds to `y`, a number of the dtype or an infinity.
Interval RoundsTo(double y, DType dtype) {
  const double smallest = SmallestNormal(dtype);
  const int bits = SignificandBits(dtype);
  const double largest_exponent = dtype == DType::kF16 ? 15 : 127;
  double low = 0, high = 0;  // of |y|
  if (std::isinf(y)) {
    const double top = std::ldexp(2 - std::ldexp(1.0, -bits), static_cast<int>(largest_exponent));
    low = top;  // half a step beyond the largest number
    high = kInfinity;
  } else {
    const double magnitude = std::fabs(y);
    const int exponent = std::ilogb(std::max(magnitude, smallest));
    const double half = std::ldexp(1.0, exponent - bits);  // of a step
    const bool binade = magnitude == std::ldexp(1.0, exponent) && magnitude > smallest;
    low = magnitude - (binade ? half / 2 : half);
    high = magnitude + half;
    if (magnitude == 0) return {-half, half};
  }
  return std::signbit(y) ? Interval{-high, -low} : Interval{low, high};
}

// The same with room for a rounding to fp32 on the way.
Interval Widened(Interval i) {
  const double room_low = std::fabs(i.low) * 0x1p-23 + 0x1p-149;
  const double room_high = std::fabs(i.high) * 0x1p-23 + 0x1p-149;
  if (std::isfinite(i.low)) i.low -= room_low;
  if (std::isfinite(i.high)) i.high += room_high;
  return i;
}

struct Scale {
  static constexpr const char* kId = "scaled";
  static double Of(double x, double constant) { return x * constant; }
  static float Of(float x, float constant) { return x * constant; }
  static bool IsFixed(double x) { return x == 0; }  // whatever the constant
  // The constants c for which x c lies in `result`; false: none.
  static bool Constants(double x, const Interval& result, Interval& constants) {
    if (x == 0) return result.low <= 0 && result.high >= 0;
    constants = x > 0 ? Interval{result.low / x, result.high / x}
                      : Interval{result.high / x, result.low / x};
    return true;
  }
};

struct Shift {
  static constexpr const char* kId = "shifted";
  static double Of(double x, double constant) { return x + constant; }
  static float Of(float x, float constant) { return x + constant; }
  static bool IsFixed(double) { return false; }
  static bool Constants(double x, const Interval& result, Interval& constants) {
    constants = {result.low - x, result.high - x};
    return true;
  }
};

float Narrowed(double value) {
  constexpr double kLargest = std::numeric_limits<float>::max();
  if (std::fabs(value) > kLargest) return value > 0 ? HUGE_VALF : -HUGE_VALF;
  return static_cast<float>(value);
}

bool Same(double x, double y) {
  return std::bit_cast<uint64_t>(x) == std::bit_cast<uint64_t>(y) ||
         (std::isnan(x) && std::isnan(y));
}

// In the dtype, from fp32.
double Stored(float value, DType dtype) {
  switch (dtype) {
    case DType::kBF16:
      return BF16ToFloat(FloatToBF16(value));
    case DType::kF16:
      return F16ToFloat(FloatToF16(value));
    default:
      return value;
  }
}

template <typename Operation>
class Search {
 public:
  Search(const TensorView& a, const TensorView& b) : a_(a), b_(b), x_(kBlock), y_(kBlock) {}

  std::optional<Relation> Run() {
    if (!Narrow() || !wide_.bounded()) return std::nullopt;
    if (changed_ == 0) return Try(0);  // only signs of zeros
    if (changed_ < numbers_ - changed_) return std::nullopt;
    if (!once_.empty() && once_.bounded()) {
      if (auto found = TryDecimals(once_)) return found;
      if (auto found = Try(once_.low + (once_.high - once_.low) / 2)) return found;
    }
    // The numbers of fp32 from the middle outwards.
    const float middle = Narrowed(wide_.low + (wide_.high - wide_.low) / 2);
    float up = middle, down = middle;
    constexpr int kNeighbours = 8;
    for (int i = 0; i < kNeighbours; ++i) {
      if (auto found = Try(up)) return found;
      if (auto found = Try(down)) return found;
      up = std::nextafter(up, std::numeric_limits<float>::infinity());
      down = std::nextafter(down, -std::numeric_limits<float>::infinity());
    }
    return std::nullopt;
  }

 private:
  // Calls `element(x, y)` until it gives false.
  template <typename Element>
  bool All(Element&& element) {
    const int64_t n = b_.elements();
    for (int64_t begin = 0; begin < n; begin += kBlock) {
      const int64_t count = std::min(kBlock, n - begin);
      ToDoubles(a_, begin, count, x_.data());
      ToDoubles(b_, begin, count, y_.data());
      for (int64_t i = 0; i < count; ++i) {
        if (!element(x_[i], y_[i])) return false;
      }
    }
    return true;
  }

  bool Narrow() {
    return All([this](double x, double y) {
      if (std::isnan(x) || std::isnan(y)) return std::isnan(x) && std::isnan(y);
      if (std::isinf(x)) return std::isinf(y);  // and limits nothing
      ++numbers_;
      changed_ += x != y || Operation::IsFixed(x) ? 1 : 0;
      const Interval result = RoundsTo(y, b_.dtype);
      Interval once, wide;
      if (!Operation::Constants(x, result, once)) return false;
      Operation::Constants(x, Widened(result), wide);
      once_.Meet(once);
      wide_.Meet(wide);
      return !wide_.empty();
    });
  }

  // Decimal numbers within the interval, with ever more digits after the point.
  std::optional<Relation> TryDecimals(const Interval& interval) {
    const double largest = std::max(std::fabs(interval.low), std::fabs(interval.high));
    if (interval.low <= 0 && interval.high >= 0) {
      if (auto found = Try(0)) return found;
    }
    if (largest == 0) return std::nullopt;
    const int first = -static_cast<int>(std::floor(std::log10(largest)));
    constexpr int kDigits = 17;
    double last = kInfinity;
    for (int digits = first; digits < first + kDigits; ++digits) {
      const double unit = std::pow(10.0, std::abs(digits));
      const auto scaled = [&](double v) { return digits >= 0 ? v * unit : v / unit; };
      const double whole = std::ceil(scaled(interval.low));
      const double decimal = digits >= 0 ? whole / unit : whole * unit;
      if (decimal == last || !(decimal <= interval.high)) continue;
      last = decimal;
      if (auto found = Try(decimal)) return found;
    }
    return std::nullopt;
  }

  // The constant itself and as fp32, the result rounded once or through fp32.
  std::optional<Relation> Try(double constant) {
    const float narrow = Narrowed(constant);
    for (const double value : {static_cast<double>(narrow), constant}) {
      if (!std::isfinite(value) || (value == 0 && Operation::Of(1.0, 0.0) == 0)) continue;
      const bool once = All([&](double x, double y) {
        return Same(RoundToDType(Operation::Of(x, value), b_.dtype), y);
      });
      if (once) return Relation{Operation::kId, true, {}, value, false};
    }
    if (!std::isfinite(narrow) || (narrow == 0 && Operation::Of(1.0, 0.0) == 0)) {
      return std::nullopt;
    }
    const bool twice =
        b_.dtype != DType::kF32 && All([&](double x, double y) {
          return Same(Stored(Operation::Of(static_cast<float>(x), narrow), b_.dtype), y);
        });
    if (twice) return Relation{Operation::kId, true, {}, narrow, true};
    return std::nullopt;
  }

  const TensorView &a_, &b_;
  std::vector<double> x_, y_;
  Interval once_;  // constants that give every element when the result is rounded once
  Interval wide_;  // those that may when it is rounded to fp32 before
  int64_t numbers_ = 0, changed_ = 0;
};

template <typename Operation>
std::optional<Relation> Find(const TensorView& a, const TensorView& b) {
  const bool supported =
      b.dtype == DType::kF32 || b.dtype == DType::kBF16 || b.dtype == DType::kF16;
  if (!supported || a.dtype != b.dtype || a.shape != b.shape) return std::nullopt;
  return Search<Operation>(a, b).Run();
}

bool AllZero(const TensorView& view) {
  constexpr int64_t kBlockOfZeros = 4096;
  std::vector<double> values(kBlockOfZeros);
  const int64_t n = view.elements();
  for (int64_t begin = 0; begin < n; begin += kBlockOfZeros) {
    const int64_t count = std::min(kBlockOfZeros, n - begin);
    ToDoubles(view, begin, count, values.data());
    if (std::any_of(values.begin(), values.begin() + count, [](double v) { return v != 0; })) {
      return false;
    }
  }
  return true;
}

}  // namespace

std::optional<Relation> FindScale(const TensorView& a, const TensorView& b) {
  std::optional<Relation> found = Find<Scale>(a, b);
  if (found && AllZero(b)) return std::nullopt;  // any constant that is small enough gives zeros
  return found;
}

std::optional<Relation> FindShift(const TensorView& a, const TensorView& b) {
  return Find<Shift>(a, b);
}

}  // namespace samebits
