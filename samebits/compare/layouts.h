// The same elements in other places, bit for bit.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "samebits/compare/relations.h"
#include "samebits/tensor/tensor.h"

namespace samebits {

// a and b of one dtype, with as many elements each. The first of Relation's ids from reshaped to
// columns-permuted that holds for all elements.
std::optional<Relation> FindLayout(const TensorView& a, const TensorView& b, int64_t head_dim);

// [n, m] and [m, n].
bool ShapesAreTransposed(const Shape& a, const Shape& b);

// Rows [begin, begin + count) of the transpose of `view` [n, m], which has rows of n elements.
void TransposedRows(const TensorView& view, int64_t begin, int64_t count, std::byte* rows);

}  // namespace samebits
