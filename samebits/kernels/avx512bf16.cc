// AVX-512 with BF16: a step over pairs is VDPBF16PS (odd element first, then even, both fused,
// denormals flushed).
#include <immintrin.h>

#include "samebits/kernels/tables.h"

namespace samebits {
namespace {

#include "samebits/kernels/lanes_avx512.h"

struct V : LanesAvx512 {
  using LanesAvx512::MulAdd;
  static F MulAdd(F acc, P x, P w) {
    return _mm512_dpbf16_ps(acc, std::bit_cast<__m512bh>(x.bits), std::bit_cast<__m512bh>(w.bits));
  }
};

#include "samebits/kernels/vector_kernels.h"
//
#include "samebits/kernels/vector_attention.h"

}  // namespace

const Kernels kAvx512Bf16Kernels = {
    Isa::kAvx512Bf16, &Linear, &RmsNorm, &canonical::Rotary, &Rope, &Attention, &Add,
    &Multiply,        &Silu};

}  // namespace samebits
