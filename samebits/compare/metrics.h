// Two tensors, value by value. NaN against a number is a difference and never passes; NaN against
// NaN is the same value; +0 and -0 differ in bits and by 0 steps. Knows no model.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "samebits/tensor/tensor.h"

namespace samebits {

struct Metrics {
  int64_t elements = 0;      // compared
  int64_t differing = 0;     // not the same bits (two NaNs count as the same)
  int64_t nan_mismatch = 0;  // NaN on one side only
  // Of integers and 8-bit floats only the bits are compared; these four and cosine stay as here.
  double max_abs = 0;  // infinity when one side is NaN, or infinite and the other is not
  double max_rel = 0;  // |a - b| / |a|; infinity when only a is 0, and as for max_abs
  double max_ulp = 0;  // steps of the dtype between the two; infinity as for max_abs
  double rms = 0;      // of the difference; infinity as for max_abs
  double cosine = 1;   // 1 for two zero tensors; NaN when values are not finite
  int64_t first = -1;  // index of the first differing element
  // Why nothing was compared ("shape [2, 3] against [3, 2]"); empty otherwise.
  std::string not_comparable;

  bool same() const { return not_comparable.empty() && differing == 0; }
};

// Of what kind the difference of two tensors is. Tensors of one shape in two floating-point dtypes
// are kDType, and their numbers may be the same (Metrics::differing).
enum class Difference : uint8_t { kNone, kValues, kDType, kShape };

// "none", "values", "dtype", "shape"
std::string_view DifferenceName(Difference difference);
Difference DifferenceOf(const TensorView& a, const TensorView& b, const Metrics& metrics);

// The dtypes whose elements are compared as numbers: F64, F32, BF16, F16.
bool ComparedAsNumbers(DType dtype);

// `ignore(i)`: elements that are left out; may be empty. Tensors of different dtype are compared as
// numbers (steps of the coarser one), and their bits differ where the numbers do. Needs no memory
// that grows with the tensors.
Metrics CompareTensors(const TensorView& a, const TensorView& b,
                       const std::function<bool(int64_t)>& ignore = {});

}  // namespace samebits
