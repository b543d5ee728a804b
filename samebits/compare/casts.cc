#include "samebits/compare/casts.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <string>
#include <vector>

#include "samebits/base/error.h"
#include "samebits/compare/layouts.h"
#include "samebits/compare/metrics.h"
#include "samebits/tensor/convert.h"

namespace samebits {
namespace {

enum class Cast : uint8_t { kDirect, kThroughF16, kThroughBF16, kTruncatedToBF16 };

std::string NameOf(DType dtype) {
  return dtype == DType::kF64 ? "float64" : std::string(ModelDTypeName(dtype));
}

// To nearest, ties to even. What was kF32 or narrower takes the way in fp32, which is quicker.
double Rounded(double value, DType dtype, bool float_value) {
  if (!float_value) return RoundToDType(value, dtype);
  const auto narrow = static_cast<float>(value);  // exact
  switch (dtype) {
    case DType::kBF16:
      return BF16ToFloat(FloatToBF16(narrow));
    case DType::kF16:
      return F16ToFloat(FloatToF16(narrow));
    default:
      return value;
  }
}

double Truncated(double value) {
  const auto bits = std::bit_cast<uint32_t>(static_cast<float>(value));
  return std::bit_cast<float>(bits & 0xffff0000U);
}

double Apply(Cast cast, double value, DType from, DType to) {
  const bool narrow = from != DType::kF64;
  switch (cast) {
    case Cast::kThroughF16:
      value = Rounded(value, DType::kF16, narrow);
      break;
    case Cast::kThroughBF16:
      value = Rounded(value, DType::kBF16, narrow);
      break;
    case Cast::kTruncatedToBF16:
      value = Truncated(value);
      break;
    case Cast::kDirect:
      break;
  }
  return Rounded(value, to, narrow);
}

// Gives the elements of a tensor, or of its transpose, piece by piece.
class Pieces {
 public:
  Pieces(const TensorView& view, bool transposed) : view_(view), transposed_(transposed) {
    constexpr int64_t kElements = 4096, kRows = 32;
    size_ = kElements;
    if (transposed_) size_ = std::min(kRows, view.shape[1]) * view.shape[0];
  }
  int64_t size() const { return size_; }

  void Read(int64_t begin, int64_t count, double* values) {
    if (!transposed_) return ToDoubles(view_, begin, count, values);
    const int64_t n = view_.shape[0];
    strip_.resize(static_cast<size_t>(count * DTypeSize(view_.dtype)));
    TransposedRows(view_, begin / n, count / n, strip_.data());
    ToDoubles({view_.dtype, {count}, strip_.data()}, 0, count, values);
  }

 private:
  const TensorView& view_;
  bool transposed_;
  int64_t size_ = 0;
  std::vector<std::byte> strip_;
};

bool Same(double x, double y) {
  return std::bit_cast<uint64_t>(x) == std::bit_cast<uint64_t>(y) ||
         (std::isnan(x) && std::isnan(y));
}

// Whether `cast` makes `to` of `from`; sets `changed` when it changed a number on the way.
bool Holds(Cast cast, const TensorView& from, bool transposed, const TensorView& to,
           bool& changed) {
  Pieces pieces(from, transposed);
  std::vector<double> x(static_cast<size_t>(pieces.size())), y(x.size());
  const int64_t n = to.elements();
  for (int64_t begin = 0; begin < n; begin += pieces.size()) {
    const int64_t count = std::min(pieces.size(), n - begin);
    pieces.Read(begin, count, x.data());
    ToDoubles(to, begin, count, y.data());
    for (int64_t i = 0; i < count; ++i) {
      const double made = Apply(cast, x[i], from.dtype, to.dtype);
      if (!Same(made, y[i])) return false;
      changed = changed || !Same(made, x[i]);
    }
  }
  return true;
}

}  // namespace

std::optional<Relation> FindCast(const TensorView& from, const TensorView& to, bool transposed) {
  if (!ComparedAsNumbers(from.dtype) || !ComparedAsNumbers(to.dtype) || to.elements() == 0) {
    return std::nullopt;
  }
  const auto neither = [&](DType dtype) { return from.dtype != dtype && to.dtype != dtype; };
  const bool wide = from.dtype == DType::kF64;
  for (const Cast cast :
       {Cast::kDirect, Cast::kThroughF16, Cast::kThroughBF16, Cast::kTruncatedToBF16}) {
    if (cast == Cast::kThroughF16 && !neither(DType::kF16)) continue;
    if (cast == Cast::kThroughBF16 && !neither(DType::kBF16)) continue;
    if (cast == Cast::kTruncatedToBF16 && (from.dtype == DType::kBF16 || wide)) continue;
    bool changed = false;
    if (!Holds(cast, from, transposed, to, changed)) continue;
    Relation relation;
    relation.id = !changed                     ? "same-numbers"
                  : cast == Cast::kDirect      ? "rounded-to-" + NameOf(to.dtype)
                  : cast == Cast::kThroughF16  ? "rounded-through-float16"
                  : cast == Cast::kThroughBF16 ? "rounded-through-bfloat16"
                                               : "truncated-to-bfloat16";
    return relation;
  }
  return std::nullopt;
}

}  // namespace samebits
