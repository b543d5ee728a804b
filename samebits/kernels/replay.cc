#include "samebits/kernels/replay.h"

namespace samebits {

void ReplayProduct(Isa /*isa*/, const ProductArgs& args, const SumRule& rule, int64_t row_begin,
                   int64_t row_end, int64_t out_begin, int64_t out_end) {
  Product(args, rule, row_begin, row_end, out_begin, out_end);
}

void ReplayLinear(Isa isa, const LinearArgs& args, const SumRule& rule, int32_t weight_alignment,
                  int64_t row_begin, int64_t row_end, int64_t out_begin, int64_t out_end) {
  ReplayProduct(isa, ProductOf(args, {0, weight_alignment, 0}), rule, row_begin, row_end, out_begin,
                out_end);
}

}  // namespace samebits
