// AVX-512 (F, BW, DQ, VL) without BF16 instructions: a step over pairs is two fused operations on
// the shifted halves.
#include <immintrin.h>

#include "samebits/kernels/tables.h"

namespace samebits {
namespace {

#include "samebits/kernels/lanes_avx512.h"

struct V : LanesAvx512 {
  using LanesAvx512::MulAdd;
  static F Odd(P p) {
    return _mm512_castsi512_ps(_mm512_and_si512(p.bits, _mm512_set1_epi32(INT32_C(-65536))));
  }
  static F Even(P p) { return _mm512_castsi512_ps(_mm512_slli_epi32(p.bits, 16)); }
  static F MulAdd(F acc, P x, P w) { return Fma(Even(x), Even(w), Fma(Odd(x), Odd(w), acc)); }
};

#include "samebits/kernels/vector_kernels.h"
//
#include "samebits/kernels/vector_attention.h"

}  // namespace

const Kernels kAvx512Kernels = {
    Isa::kAvx512, &Linear, &RmsNorm, &canonical::Rotary, &Rope, &Attention, &Add, &Multiply, &Silu};

}  // namespace samebits
