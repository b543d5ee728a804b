// One tensor as the other after a change of its dtype, or a detour through a narrower one.
#pragma once

#include <optional>

#include "samebits/compare/relations.h"
#include "samebits/tensor/tensor.h"

namespace samebits {

// The first of Relation's ids from same-numbers to truncated-to-bfloat16 that makes `to` of `from`,
// or of its transpose ([n, m] and [m, n]), on all elements; NaN is NaN, whatever its bits. Nothing
// for dtypes that are not compared as numbers.
std::optional<Relation> FindCast(const TensorView& from, const TensorView& to, bool transposed);

}  // namespace samebits
