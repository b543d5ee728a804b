// How one tensor of a pair came from the other: the mistakes and habits of converters, each
// verified on all elements. Knows shapes and dtypes, and no names and no model.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "samebits/tensor/tensor.h"

namespace samebits {

// The ids, in the order in which they are tried; the first that holds is the answer.
//   reshaped                   the same elements in the same order, another shape
//   transposed                 [n, m] and [m, n]
//   rotary-pairs-to-halves     within each head row 2i went to i, row 2i + 1 to D/2 + i: from
//   Meta's
//                              layout of q and k to Hugging Face's
//   rotary-halves-to-pairs     the reverse
//   heads-permuted             blocks of head_dim rows
//   rows-permuted              a row: all elements of one index of the first axis
//   head-columns-permuted      blocks of head_dim columns (of two axes)
//   columns-permuted
//   same-numbers               another dtype that holds them all, or NaNs of other bits
//   rounded-to-DTYPE           to nearest, ties to even
//   rounded-through-DTYPE      float16 or bfloat16 on the way, to nearest
//   truncated-to-bfloat16      the low bits cut off
//   scaled                     round(constant * x); at least half of the elements change
//   shifted                    round(x + constant); likewise, or only signs of zeros do
struct Relation {
  std::string id;
  bool from_a = true;          // b was made of a; false: a of b
  std::vector<int64_t> order;  // of a permutation: line i of b is line order[i] of a
  double constant = 0;         // of scaled and shifted
  // scaled, shifted: the result was rounded to fp32 before it was rounded to the dtype, with the
  // constant in fp32, as kernels for 16-bit dtypes do. Otherwise rounded once.
  bool through_fp32 = false;
};

// The steps from one tensor to the other, which has not the same bytes: none (no known relation),
// one, or `transposed` and a rounding. `head_dim` 0: heads are not looked for. Memory is bounded by
// the number of rows and columns; permutations of more than 2^22 lines are not looked for. Elements
// that can not be compared as numbers (metrics.h) are only moved, never computed; shifts and scales
// are of F32, BF16, F16.
std::vector<Relation> FindRelation(const TensorView& a, const TensorView& b, int64_t head_dim);

// For people: "transposed", "scaled by 0.125", "heads permuted: 1 0 2 3".
std::string DescribeRelation(const Relation& relation);

}  // namespace samebits
