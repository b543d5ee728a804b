// One tensor as the other times a constant, or plus a constant, rounded to its dtype.
//
// Every element says between which two constants the one that was used must lie: that which rounds
// to the element of b. What lies in all these intervals is tried, the shortest decimal number
// first, and holds only if it gives every element of b bit for bit (NaN being NaN).
// A constant that leaves most elements as they are is no answer: where one element is a bit off, a
// tiny shift that only a tiny element feels would often be one.
#pragma once

#include <optional>

#include "samebits/compare/relations.h"
#include "samebits/tensor/tensor.h"

namespace samebits {

// b = round(constant * a), with a constant that is not 0, or b = round(a + constant); both tensors
// of one shape and dtype. Nothing for dtypes other than F32, BF16 and F16, and where no element
// limits the constant on both sides.
std::optional<Relation> FindScale(const TensorView& a, const TensorView& b);
std::optional<Relation> FindShift(const TensorView& a, const TensorView& b);

}  // namespace samebits
