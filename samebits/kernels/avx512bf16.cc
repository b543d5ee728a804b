// AVX-512 with BF16: a step over pairs is VDPBF16PS (odd element first, then even, both fused,
// denormals flushed).
#include <immintrin.h>

#include "samebits/kernels/tables.h"

namespace samebits {
namespace {

#include "samebits/kernels/unroll.h"
//
#include "samebits/kernels/lanes_avx512.h"

struct V : LanesAvx512 {
  using LanesAvx512::MulAdd;
  static F MulAdd(F acc, P x, P w) {
    return _mm512_dpbf16_ps(acc, std::bit_cast<__m512bh>(x.bits), std::bit_cast<__m512bh>(w.bits));
  }

  // The instruction that rounds to bf16 takes denormals for zeros.
  static __m256i NormalHalves(F v) { return std::bit_cast<__m256i>(_mm512_cvtneps_pbh(v)); }
  static F RoundNormalToBF16(F v) {
    const __m512i words = _mm512_cvtepu16_epi32(NormalHalves(v));
    return _mm512_castsi512_ps(_mm512_slli_epi32(words, 16));
  }
  static void StoreNormalAsBF16(void* p, F v) {
    _mm256_storeu_si256(static_cast<__m256i*>(p), NormalHalves(v));
  }

  static bool AnyDenormal(F v) { return _mm512_fpclass_ps_mask(v, 0x20) != 0; }

  template <bool pairs>
  static Register Step(Register acc, Register x, Register w) {
    if constexpr (!pairs) return _mm512_fmadd_ps(x, w, acc);
    return MulAdd(acc, std::bit_cast<P>(x), std::bit_cast<P>(w));
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
#include "samebits/kernels/panel_linear.h"
//
#include "samebits/kernels/packed_attention.h"

// Of some steps in a few chains, in clock ticks.
template <bool pairs>
uint64_t TimeOfSteps() {
  constexpr int kChains = 12;  // more than the latency
  V::Register acc[kChains], x = V::ZeroRegister();
  asm volatile("" : "+v"(x));  // unknown to the compiler
  for (auto& v : acc) v = x;
  const uint64_t start = __rdtsc();
  for (int step = 0; step < 100; ++step) {
    for (auto& v : acc) v = V::Step<pairs>(v, x, x);
  }
  for (auto& v : acc) asm volatile("" : : "v"(v));  // none is left out
  return __rdtsc() - start;
}

// Pairs do not pay on every CPU: on some Intel Xeons VDPBF16PS takes four times as long as a fused
// multiply-add of floats, and the same products take two of those.
bool PairsPay() {
  static const bool pays = [] {
    uint64_t of_pairs = std::numeric_limits<uint64_t>::max(), of_floats = of_pairs;
    for (int i = 0; i < 32; ++i) {  // the first times are those of a unit that wakes up
      of_pairs = std::min(of_pairs, TimeOfSteps<true>());
      of_floats = std::min(of_floats, TimeOfSteps<false>());
    }
    return of_pairs < 2 * of_floats;
  }();
  return pays;
}

void LinearOfPairs(const LinearArgs& a, int64_t row_begin, int64_t row_end, int64_t out_begin,
                   int64_t out_end) {
  if (PanelLinear::Takes(a, row_end - row_begin)) {
    return PanelLinear{a, row_begin, row_end, out_begin, out_end}.Run();
  }
  Linear<true>(a, row_begin, row_end, out_begin, out_end);
}

void FasterLinear(const LinearArgs& a, int64_t row_begin, int64_t row_end, int64_t out_begin,
                  int64_t out_end) {
  kAvx512Bf16Linear[PairsPay() ? 1 : 0](a, row_begin, row_end, out_begin, out_end);
}

LinearCut FasterCut(const LinearArgs& a) {
  if (!PanelLinear::Takes(a, a.rows) || !PairsPay()) return PackedCut(a);
  return {PanelLinear::kOuts, PanelLinear::kOuts, PanelLinear::kBlockRows};
}

void FasterAttention(const AttentionArgs& a, int64_t head_begin, int64_t head_end,
                     int64_t row_begin, int64_t row_end) {
  const auto attention = PairsPay() ? &Attention<true> : &Attention<false>;
  attention(a, head_begin, head_end, row_begin, row_end);
}

}  // namespace

const LinearKernel kAvx512Bf16Linear[2] = {&Linear<false>, &LinearOfPairs};

const Kernels kAvx512Bf16Kernels = {
    Isa::kAvx512Bf16, &FasterLinear, &RmsNorm,  &canonical::Rotary, &Rope, &FasterAttention, &Add,
    &Multiply,        &Silu,         &FasterCut};

}  // namespace samebits
