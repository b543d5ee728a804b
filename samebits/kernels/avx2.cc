// AVX2 with FMA and F16C: the 16 lanes are two registers of eight.
#include <immintrin.h>

#include "samebits/kernels/tables.h"

namespace samebits {
namespace {

#include "samebits/kernels/unroll.h"

struct V {
  struct F {
    __m256 a, b;  // lanes 0-7, 8-15
  };
  struct P {
    __m256i a, b;
  };
  static constexpr int kDecodeOuts = 4;
  static constexpr int kRows = 4, kOuts = 3, kPackedFrom = 2;
  static constexpr int64_t kSteps = 64, kPiece = 192;
  static constexpr int kScoreQueries = 2, kScoreSums = 4, kContextQueries = 4, kContextChunks = 1;
  static constexpr int kPackedQueries = 1, kPackedBlocks = 2;

  static F Zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
  static F Set(float v) { return {_mm256_set1_ps(v), _mm256_set1_ps(v)}; }
  static float First(F v) { return _mm256_cvtss_f32(v.a); }
  static F Add(F u, F v) { return {_mm256_add_ps(u.a, v.a), _mm256_add_ps(u.b, v.b)}; }
  static F Mul(F u, F v) { return {_mm256_mul_ps(u.a, v.a), _mm256_mul_ps(u.b, v.b)}; }
  static F Max(F u, F v) { return {_mm256_max_ps(u.a, v.a), _mm256_max_ps(u.b, v.b)}; }
  static float Largest(F v) {  // without NaN
    const __m256 a = _mm256_max_ps(v.a, v.b);
    const __m128 b = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    const __m128 c = _mm_max_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_max_ss(c, _mm_shuffle_ps(c, c, 1)));
  }
  // n elements at p, `other` for the rest.
  static F LoadOver(const float* p, int64_t n, float other) {
    alignas(32) float buffer[16];
    std::fill(buffer, buffer + 16, other);
    std::memcpy(buffer, p, static_cast<size_t>(n) * sizeof(float));
    return Load<DType::kF32>(buffer);
  }
  static F Div(F u, F v) { return {_mm256_div_ps(u.a, v.a), _mm256_div_ps(u.b, v.b)}; }
  static F Fma(F u, F v, F w) {
    return {_mm256_fmadd_ps(u.a, v.a, w.a), _mm256_fmadd_ps(u.b, v.b, w.b)};
  }
  static F MulAdd(F acc, F u, F v) { return Fma(u, v, acc); }
  static F Negate(F v) {
    const __m256 sign = _mm256_set1_ps(-0.0F);
    return {_mm256_xor_ps(v.a, sign), _mm256_xor_ps(v.b, sign)};
  }

  static __m256i RoundToBF16(__m256 v) {
    const __m256i bits = _mm256_castps_si256(v);
    const __m256i lsb = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i rounded =
        _mm256_add_epi32(bits, _mm256_add_epi32(lsb, _mm256_set1_epi32(0x7fff)));
    const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
    const __m256 nan = _mm256_cmp_ps(v, v, _CMP_UNORD_Q);
    const __m256i chosen = _mm256_blendv_epi8(rounded, quiet, _mm256_castps_si256(nan));
    return _mm256_srli_epi32(chosen, 16);
  }
  static __m256 Widen(__m128i half) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
  }

  template <DType dtype>
  static F Load(const void* p) {
    if constexpr (dtype == DType::kF32) {
      const auto* f = static_cast<const float*>(p);
      return {_mm256_loadu_ps(f), _mm256_loadu_ps(f + 8)};
    } else {
      const auto* h = static_cast<const __m128i*>(p);
      const __m128i a = _mm_loadu_si128(h), b = _mm_loadu_si128(h + 1);
      if constexpr (dtype == DType::kF16) return {_mm256_cvtph_ps(a), _mm256_cvtph_ps(b)};
      return {Widen(a), Widen(b)};
    }
  }
  template <DType dtype>
  static F Load(const void* p, int64_t n) {
    if (n == 16) return Load<dtype>(p);
    alignas(32) std::byte buffer[64] = {};
    std::memcpy(buffer, p, static_cast<size_t>(n) * (dtype == DType::kF32 ? 4 : 2));
    return Load<dtype>(buffer);
  }

  static __m128i ToF16(__m256 v) {
    return _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }
  template <DType dtype>
  static void Store(void* p, F v) {
    if constexpr (dtype == DType::kF32) {
      _mm256_storeu_ps(static_cast<float*>(p), v.a);
      _mm256_storeu_ps(static_cast<float*>(p) + 8, v.b);
    } else if constexpr (dtype == DType::kF16) {
      _mm_storeu_si128(static_cast<__m128i*>(p), ToF16(v.a));
      _mm_storeu_si128(static_cast<__m128i*>(p) + 1, ToF16(v.b));
    } else {
      const __m256i packed = _mm256_packus_epi32(RoundToBF16(v.a), RoundToBF16(v.b));
      _mm256_storeu_si256(static_cast<__m256i*>(p), _mm256_permute4x64_epi64(packed, 0xd8));
    }
  }
  template <DType dtype>
  static void Store(void* p, F v, int64_t n) {
    if (n == 16) return Store<dtype>(p, v);
    alignas(32) std::byte buffer[64];
    Store<dtype>(buffer, v);
    std::memcpy(p, buffer, static_cast<size_t>(n) * (dtype == DType::kF32 ? 4 : 2));
  }

  template <DType dtype>
  static F Round(F v) {
    if constexpr (dtype == DType::kF32) return v;
    if constexpr (dtype == DType::kF16) {
      return {_mm256_cvtph_ps(ToF16(v.a)), _mm256_cvtph_ps(ToF16(v.b))};
    }
    return {_mm256_castsi256_ps(_mm256_slli_epi32(RoundToBF16(v.a), 16)),
            _mm256_castsi256_ps(_mm256_slli_epi32(RoundToBF16(v.b), 16))};
  }

  // The tree of canonical.h: 16 lanes, distance 8, 4, 2, 1.
  static float Reduce(F v) {
    const __m256 a = _mm256_add_ps(v.a, v.b);
    const __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    const __m128 c = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_shuffle_ps(c, c, 1)));
  }

  // Reduce of four sums, the trees side by side.
  static void ReduceAll(const F (&v)[4], float* sums) {
    const auto fold8 = [](F x) { return _mm256_add_ps(x.a, x.b); };
    const auto fold4 = [](__m256 x, __m256 y) {
      return _mm256_add_ps(_mm256_permute2f128_ps(x, y, 0x20), _mm256_permute2f128_ps(x, y, 0x31));
    };
    const __m256 a = fold4(fold8(v[0]), fold8(v[2])), b = fold4(fold8(v[1]), fold8(v[3]));
    const __m256 c = _mm256_add_ps(_mm256_shuffle_ps(a, b, 0x44), _mm256_shuffle_ps(a, b, 0xee));
    const __m256 d = _mm256_add_ps(_mm256_shuffle_ps(c, c, 0x88), _mm256_shuffle_ps(c, c, 0xdd));
    // Of v[0], v[1], -, -, v[2], v[3], -, -.
    _mm_storeu_ps(sums, _mm_movelh_ps(_mm256_castps256_ps128(d), _mm256_extractf128_ps(d, 1)));
  }

  // samebits::Exp, operation for operation.
  static __m256 ExpHalf(__m256 x) {
    using C = ExpConstants;
    const auto set = [](float v) { return _mm256_set1_ps(v); };
    __m256 c = _mm256_blendv_ps(x, set(C::kLow), _mm256_cmp_ps(x, set(C::kLow), _CMP_LT_OQ));
    c = _mm256_blendv_ps(c, set(C::kHigh), _mm256_cmp_ps(c, set(C::kHigh), _CMP_GT_OQ));
    const __m256 shifted = _mm256_fmadd_ps(c, set(C::kLog2E), set(C::kMagic));
    const __m256 n = _mm256_sub_ps(shifted, set(C::kMagic));
    __m256 r = _mm256_fmadd_ps(n, set(-C::kLn2High), c);
    r = _mm256_fmadd_ps(n, set(-C::kLn2Low), r);
    __m256 p = set(C::kP[0]);
    for (int i = 1; i < 6; ++i) p = _mm256_fmadd_ps(p, r, set(C::kP[i]));
    const __m256 e = _mm256_add_ps(_mm256_fmadd_ps(_mm256_mul_ps(r, r), p, r), set(1.0F));
    const __m256i k =
        _mm256_sub_epi32(_mm256_castps_si256(shifted), _mm256_castps_si256(set(C::kMagic)));
    const __m256i half = _mm256_srai_epi32(k, 1), bias = _mm256_set1_epi32(127);
    const __m256 a = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, bias), 23));
    const __m256 b = _mm256_castsi256_ps(
        _mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(k, half), bias), 23));
    return _mm256_mul_ps(_mm256_mul_ps(e, a), b);
  }
  static F Exp(F x) { return {ExpHalf(x.a), ExpHalf(x.b)}; }

  // Pairs of bf16 as 16 words of 32 bits, the even element in the low half.
  static P LoadPairs(const uint16_t* p) {
    const auto* v = reinterpret_cast<const __m256i*>(p);
    return {_mm256_loadu_si256(v), _mm256_loadu_si256(v + 1)};
  }
  static P LoadPairs(const uint16_t* p, int64_t n) {
    alignas(32) uint16_t buffer[32] = {};
    std::memcpy(buffer, p, static_cast<size_t>(n) * 2);
    return LoadPairs(buffer);
  }
  static P BroadcastPair(const uint16_t* p) {
    int32_t pair = 0;
    std::memcpy(&pair, p, 4);
    return {_mm256_set1_epi32(pair), _mm256_set1_epi32(pair)};
  }
  static P InterleavePairs(const uint16_t* even, const uint16_t* odd, int64_t n) {
    const F low = even == nullptr ? Zero() : Load<DType::kBF16>(even, n);
    const F high = odd == nullptr ? Zero() : Load<DType::kBF16>(odd, n);
    const auto join = [](__m256 l, __m256 h) {
      return _mm256_or_si256(_mm256_srli_epi32(_mm256_castps_si256(l), 16), _mm256_castps_si256(h));
    };
    return {join(low.a, high.a), join(low.b, high.b)};
  }
  static F Odd(P p) {
    const __m256i mask = _mm256_set1_epi32(INT32_C(-65536));
    const auto odd = [mask](__m256i v) { return _mm256_castsi256_ps(_mm256_and_si256(v, mask)); };
    return {odd(p.a), odd(p.b)};
  }
  static F Even(P p) {
    const auto even = [](__m256i v) { return _mm256_castsi256_ps(_mm256_slli_epi32(v, 16)); };
    return {even(p.a), even(p.b)};
  }
  static F MulAdd(F acc, P x, P w) { return Fma(Even(x), Even(w), Fma(Odd(x), Odd(w), acc)); }

  // A register of packed_linear.h.
  using Register = __m256;
  static constexpr int kPartLanes = 8;
  static Register ZeroRegister() { return _mm256_setzero_ps(); }
  static Register LoadRegister(const float* p) { return _mm256_loadu_ps(p); }
  static void StoreRegister(float* p, Register v) { _mm256_store_ps(p, v); }
  static Register Broadcast(const float* p) { return _mm256_set1_ps(*p); }
  static Register AddRegisters(Register a, Register b) { return _mm256_add_ps(a, b); }
  // Four words of 8 rows: columns[i] has those at rows[0] + at + i, rows[1] + at + i, ...
  static void LoadColumns(const float* const (&rows)[8], int64_t at, Register (&columns)[4]) {
    __m256 quads[4];  // of rows i, 4 + i
    Unroll<4>([&](auto i) __attribute__((always_inline)) {
      quads[i] = _mm256_castps128_ps256(_mm_loadu_ps(rows[i] + at));
      quads[i] = _mm256_insertf128_ps(quads[i], _mm_loadu_ps(rows[4 + i] + at), 1);
    });
    const __m256 a = _mm256_unpacklo_ps(quads[0], quads[1]);
    const __m256 b = _mm256_unpacklo_ps(quads[2], quads[3]);
    const __m256 c = _mm256_unpackhi_ps(quads[0], quads[1]);
    const __m256 d = _mm256_unpackhi_ps(quads[2], quads[3]);
    columns[0] = _mm256_shuffle_ps(a, b, 0x44);
    columns[1] = _mm256_shuffle_ps(a, b, 0xee);
    columns[2] = _mm256_shuffle_ps(c, d, 0x44);
    columns[3] = _mm256_shuffle_ps(c, d, 0xee);
  }
  template <bool pairs>
  static Register Step(Register acc, Register x, Register w) {
    return _mm256_fmadd_ps(x, w, acc);
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

const Kernels kAvx2Kernels = {Isa::kAvx2, &Linear<false>,    &RmsNorm, &canonical::Rotary,
                              &Rope,      &Attention<false>, &Add,     &Multiply,
                              &Silu,      &PackedCut};

}  // namespace samebits
