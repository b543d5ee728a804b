// Fast kernels for orders of summation that a profile names (numerics/sum_rule.h): the bits of
// Product(), whichever instruction set this CPU has. Orders without a fast kernel are interpreted.
#pragma once

#include "samebits/kernels/kernels.h"
#include "samebits/numerics/sum_rule.h"

namespace samebits {

// Outputs of the half-open ranges only: any split over threads gives the same bits.
void ReplayProduct(Isa isa, const ProductArgs& args, const SumRule& rule, int64_t row_begin,
                   int64_t row_end, int64_t out_begin, int64_t out_end);

}  // namespace samebits
