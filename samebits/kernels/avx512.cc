// AVX-512 (F, BW, DQ, VL) without BF16 instructions: a step over pairs is two fused operations on
// the shifted halves.
#include <immintrin.h>

#include "samebits/kernels/tables.h"

namespace samebits {
namespace {

#include "samebits/kernels/unroll.h"
//
#include "samebits/kernels/lanes_avx512.h"

struct V : LanesAvx512 {
  using LanesAvx512::MulAdd;
  static F MulAdd(F acc, P x, P w) { return Fma(Even(x), Even(w), Fma(Odd(x), Odd(w), acc)); }

  template <bool pairs>
  static Register Step(Register acc, Register x, Register w) {
    return _mm512_fmadd_ps(x, w, acc);
  }
};

#include "samebits/kernels/vector_kernels.h"
//
#include "samebits/kernels/vector_attention.h"
//
#include "samebits/kernels/packed_linear.h"
//
#include "samebits/kernels/lane_panels.h"
//
#include "samebits/kernels/packed_attention.h"

}  // namespace

const Kernels kAvx512Kernels = {Isa::kAvx512, &Linear<false>,    &RmsNorm, &canonical::Rotary,
                                &Rope,        &Attention<false>, &Add,     &Multiply,
                                &Silu,        &PackedCut};

}  // namespace samebits
