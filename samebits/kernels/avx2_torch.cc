// PyTorch's operations with AVX2, FMA and F16C. PyTorch's own kernels have 8 or 16 lanes: one or
// two registers here. Each function is its interpreter (numerics/torch_ops.cc, torch_flash.cc)
// written with vectors; what is left over goes to the interpreter or its scalar function.
#include <immintrin.h>

#include <algorithm>
#include <cstring>
#include <limits>

#include "samebits/kernels/torch_ops.h"

namespace samebits {
namespace {

using torch_math::Exp;

__m256 Set(float v) { return _mm256_set1_ps(v); }
__m256 SetBits(int32_t v) { return _mm256_castsi256_ps(_mm256_set1_epi32(v)); }

// 8 elements of dtype.
template <DType dtype>
__m256 Load(const void* data, int64_t i) {
  if constexpr (dtype == DType::kF32) {
    return _mm256_loadu_ps(static_cast<const float*>(data) + i);
  } else {
    const auto* p = static_cast<const uint16_t*>(data) + i;
    const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    if constexpr (dtype == DType::kF16) return _mm256_cvtph_ps(half);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
  }
}

__m128i ToBF16(__m256 v) {
  const __m256i bits = _mm256_castps_si256(v);
  const __m256i lsb = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(lsb, _mm256_set1_epi32(0x7fff)));
  const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
  const __m256i high = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, nan), 16);
  const __m256i packed = _mm256_packus_epi32(high, high);
  return _mm256_castsi256_si128(_mm256_permute4x64_epi64(packed, 0x08));
}

template <DType dtype>
void Store(void* data, int64_t i, __m256 v) {
  if constexpr (dtype == DType::kF32) {
    _mm256_storeu_ps(static_cast<float*>(data) + i, v);
  } else {
    constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    auto* p = reinterpret_cast<__m128i*>(static_cast<uint16_t*>(data) + i);
    _mm_storeu_si128(p, dtype == DType::kF16 ? _mm256_cvtps_ph(v, kNearest) : ToBF16(v));
  }
}

template <DType dtype>
__m256 Round(__m256 v) {
  alignas(32) std::byte buffer[32];
  Store<dtype>(buffer, 0, v);
  return Load<dtype>(buffer, 0);
}

// One element of dtype, by the way of the vectors.
template <DType dtype>
constexpr int64_t kSize = dtype == DType::kF32 ? 4 : 2;

template <DType dtype>
float LoadOne(const void* data, int64_t i) {
  alignas(32) std::byte buffer[32] = {};
  std::memcpy(buffer, static_cast<const std::byte*>(data) + i * kSize<dtype>,
              static_cast<size_t>(kSize<dtype>));
  return _mm256_cvtss_f32(Load<dtype>(buffer, 0));
}

template <DType dtype>
void StoreOne(void* data, int64_t i, float v) {
  alignas(32) std::byte buffer[32];
  Store<dtype>(buffer, 0, Set(v));
  std::memcpy(static_cast<std::byte*>(data) + i * kSize<dtype>, buffer,
              static_cast<size_t>(kSize<dtype>));
}

template <typename Fn>
auto WithDType(DType dtype, Fn&& fn) {
  switch (dtype) {
    case DType::kBF16:
      return fn.template operator()<DType::kBF16>();
    case DType::kF16:
      return fn.template operator()<DType::kF16>();
    default:
      return fn.template operator()<DType::kF32>();
  }
}

// torch_math::ExpSleefU10, operation for operation.
__m256 ExpSleefU10(__m256 x) {
  const __m256 low = Set(-104.0F), high = Set(100.0F);
  const __m256 inside = _mm256_min_ps(_mm256_max_ps(x, low), high);
  const __m256 q = _mm256_round_ps(_mm256_mul_ps(inside, Set(1.442695040888963407F)),
                                   _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  __m256 s = _mm256_fmadd_ps(q, Set(-0.693145751953125F), inside);
  s = _mm256_fmadd_ps(q, Set(-1.428606765330187045e-06F), s);
  __m256 u = Set(0.000198527617612853646278381F);
  for (const float c : {0.00139304355252534151077271F, 0.00833336077630519866943359F,
                        0.0416664853692054748535156F, 0.166666671633720397949219F, 0.5F}) {
    u = _mm256_fmadd_ps(u, s, Set(c));
  }
  u = _mm256_add_ps(Set(1.0F), _mm256_fmadd_ps(_mm256_mul_ps(s, s), u, s));
  const __m256i k = _mm256_cvtps_epi32(q), half = _mm256_srai_epi32(k, 1);
  const __m256i bias = _mm256_set1_epi32(127);
  const __m256i a = _mm256_slli_epi32(_mm256_add_epi32(half, bias), 23);
  const __m256i b = _mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(k, half), bias), 23);
  u = _mm256_mul_ps(_mm256_mul_ps(u, _mm256_castsi256_ps(a)), _mm256_castsi256_ps(b));
  u = _mm256_andnot_ps(_mm256_cmp_ps(x, low, _CMP_LT_OQ), u);
  const __m256 inf = Set(std::numeric_limits<float>::infinity());
  u = _mm256_blendv_ps(u, inf, _mm256_cmp_ps(x, high, _CMP_GT_OQ));
  return _mm256_blendv_ps(u, x, _mm256_cmp_ps(x, x, _CMP_UNORD_Q));
}

// torch_math::ExpU20.
__m256 ExpU20(__m256 x) {
  const __m256 low = SetBits(static_cast<int32_t>(0xc2aeac50U)), high = SetBits(0x42b17218);
  const __m256 v = _mm256_max_ps(_mm256_min_ps(x, high), low);
  const __m256 fx = _mm256_floor_ps(_mm256_fmadd_ps(v, SetBits(0x3fb8aa3b), Set(0.5F)));
  const __m256 r = _mm256_fnmadd_ps(fx, SetBits(0x3f317218), v);
  __m256 p = Set(0.00828929059F);
  for (const float c : {0.0418978221F, 0.166676521F, 0.499991506F, 0.999999701F, 1.0F}) {
    p = _mm256_fmadd_ps(r, p, Set(c));
  }
  const __m256i n = _mm256_cvtps_epi32(_mm256_sub_ps(fx, Set(1.0F)));
  const __m256i power = _mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23);
  const __m256 less = _mm256_cmp_ps(x, low, _CMP_LT_OQ);
  const __m256 scale = _mm256_andnot_ps(less, _mm256_castsi256_ps(power));
  return _mm256_mul_ps(_mm256_mul_ps(p, scale), Set(2.0F));
}

// torch_math::FexpU20.
__m256 FexpU20(__m256 x) {
  const __m256 s = _mm256_mul_ps(x, SetBits(0x3fb8aa3b));
  const __m256 f = _mm256_sub_ps(s, _mm256_floor_ps(s));
  __m256 c = Set(-0.079204240219773236F);
  for (const float a : {-0.22433836478672356F, 0.30354260500649682F, 0.00010703434948458272F}) {
    c = _mm256_fmadd_ps(f, c, Set(a));
  }
  const __m256 bits = _mm256_fmadd_ps(Set(8388608.0F), _mm256_sub_ps(s, c), Set(1065353216.0F));
  const __m256 value = _mm256_castsi256_ps(_mm256_cvttps_epi32(bits));
  const __m256 low = SetBits(static_cast<int32_t>(0xc2aeac50U)), high = SetBits(0x42b17218);
  const __m256 inf = Set(std::numeric_limits<float>::infinity());
  const __m256 kept = _mm256_andnot_ps(_mm256_cmp_ps(x, low, _CMP_LT_OQ), value);
  return _mm256_blendv_ps(kept, inf, _mm256_cmp_ps(x, high, _CMP_GT_OQ));
}

// Lanes by halves: 4, 2, 1.
float Reduce(__m256 v) {
  const __m128 a = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  const __m128 b = _mm_add_ps(a, _mm_movehl_ps(a, a));
  return _mm_cvtss_f32(_mm_add_ss(b, _mm_shuffle_ps(b, b, 1)));
}

float Max(__m256 v) {
  const __m128 a = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  const __m128 b = _mm_max_ps(a, _mm_movehl_ps(a, a));
  return _mm_cvtss_f32(_mm_max_ss(b, _mm_shuffle_ps(b, b, 1)));
}

// ------------------------------------------------------------------------------------- RMSNorm

int64_t LevelPower(int64_t groups) {
  int64_t log2 = 1;
  while ((int64_t{1} << log2) < groups) ++log2;
  return std::max<int64_t>(4, log2 / 4);
}

// torch_ops::CascadeSum of x^2 for 8 lanes and n >= 8.
template <DType dtype>
float SumOfSquares(const void* x, int64_t n) {
  const int64_t vectors = n / 8, groups = vectors / 4;
  const int64_t power = LevelPower(groups), step = int64_t{1} << power, mask = step - 1;
  __m256 level[4][4];
  for (auto& l : level) {
    for (__m256& a : l) a = _mm256_setzero_ps();
  }
  const auto square = [x](int64_t vector) {
    const __m256 v = Load<dtype>(x, vector * 8);
    return _mm256_mul_ps(v, v);
  };
  const auto take = [&](int64_t i) {
    for (int64_t k = 0; k < 4; ++k) {
      level[0][k] = _mm256_add_ps(level[0][k], square(4 * i + k));
    }
  };
  int64_t i = 0;
  while (i + step <= groups) {
    for (const int64_t end = i + step; i < end; ++i) take(i);
    for (int64_t j = 1; j < 4; ++j) {
      for (int64_t k = 0; k < 4; ++k) {
        level[j][k] = _mm256_add_ps(level[j][k], level[j - 1][k]);
        level[j - 1][k] = _mm256_setzero_ps();
      }
      if ((i & (mask << (j * power))) != 0) break;
    }
  }
  for (; i < groups; ++i) take(i);
  for (int64_t j = 1; j < 4; ++j) {
    for (int64_t k = 0; k < 4; ++k) level[0][k] = _mm256_add_ps(level[0][k], level[j][k]);
  }
  for (int64_t t = 4 * groups; t < vectors; ++t)
    level[0][0] = _mm256_add_ps(level[0][0], square(t));
  for (int64_t k = 1; k < 4; ++k) level[0][0] = _mm256_add_ps(level[0][0], level[0][k]);

  float sum = 0;
  for (int64_t t = 8 * vectors; t < n; ++t) {
    const float v = LoadOne<dtype>(x, t);
    sum += v * v;
  }
  alignas(32) float lanes[8];
  _mm256_store_ps(lanes, level[0][0]);
  for (const float lane : lanes) sum += lane;
  return sum;
}

template <DType dtype>
void RmsNormRow(const RmsNormArgs& args, int64_t row) {
  const auto* x = static_cast<const std::byte*>(args.x) + row * args.size * kSize<dtype>;
  auto* y = static_cast<std::byte*>(args.y) + row * args.size * kSize<dtype>;
  const float v = SumOfSquares<dtype>(x, args.size) / static_cast<float>(args.size);
  const float root = _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(v + args.eps)));
  const __m256 r = Set(1.0F / root);
  int64_t i = 0;
  for (; i + 8 <= args.size; i += 8) {
    // round: transformers casts the normalised values to dtype before it multiplies
    const __m256 h = Round<dtype>(_mm256_mul_ps(Load<dtype>(x, i), r));
    Store<dtype>(y, i, _mm256_mul_ps(Load<dtype>(args.w, i), h));
  }
  for (; i < args.size; ++i) {
    const float h = _mm256_cvtss_f32(Round<dtype>(Set(LoadOne<dtype>(x, i) * _mm256_cvtss_f32(r))));
    StoreOne<dtype>(y, i, LoadOne<dtype>(args.w, i) * h);
  }
}

void RmsNorm(const SumFunction& function, const RmsNormArgs& args, int64_t row_begin,
             int64_t row_end) {
  if (function.lanes != 8 || args.size < 8 || args.weight_dtype != args.dtype) {
    return torch_ops::RmsNorm(function, args, row_begin, row_end);
  }
  WithDType(args.dtype, [&]<DType dtype>() {
    for (int64_t row = row_begin; row < row_end; ++row) RmsNormRow<dtype>(args, row);
  });
}

// ---------------------------------------------------------------------------------- elementwise

template <DType dtype>
void SiluVectors(const void* x, void* y, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; i += 8) {
    const __m256 v = Load<dtype>(x, i);
    const __m256 e = ExpSleefU10(_mm256_xor_ps(v, Set(-0.0F)));
    Store<dtype>(y, i, _mm256_div_ps(v, _mm256_add_ps(Set(1.0F), e)));
  }
}

void Silu(const SiluFunction& function, DType dtype, const void* x, void* y, int64_t begin,
          int64_t end, int64_t numel, int64_t threads) {
  const int64_t part = torch_ops::SiluPartSize(function, numel, threads);
  while (begin < end) {
    // Up to the end of this part's vectors, or of the range; what is left to the interpreter.
    const int64_t first = begin / part * part, size = std::min(part, numel - first);
    const int64_t body_end = std::min(end, first + size / function.block * function.block);
    const int64_t part_end = std::min(end, first + size);
    int64_t done = begin;
    if (function.exp == Exp::kSleefU10 && begin < body_end) {
      done += (body_end - begin) / 8 * 8;
      WithDType(dtype, [&]<DType type>() { SiluVectors<type>(x, y, begin, done); });
    }
    if (done < part_end) {
      torch_ops::Silu(function, dtype, x, y, done, part_end, numel, threads);
    }
    begin = part_end;
  }
}

template <DType dtype>
void Scale(const void* x, float factor, void* y, int64_t n) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) Store<dtype>(y, i, _mm256_mul_ps(Load<dtype>(x, i), Set(factor)));
  for (; i < n; ++i) StoreOne<dtype>(y, i, LoadOne<dtype>(x, i) * factor);
}

void MultiplyByNumber(DType dtype, const void* x, double number, void* y, int64_t n) {
  WithDType(dtype, [&]<DType type>() { Scale<type>(x, static_cast<float>(number), y, n); });
}

// -------------------------------------------------------------------------------------- softmax

__m256 LoadMask(const uint8_t* keep) {
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(keep));
  const __m256i words = _mm256_cvtepu8_epi32(bytes);
  return _mm256_castsi256_ps(_mm256_cmpgt_epi32(words, _mm256_setzero_si256()));
}

// wide = x + mask, rounded to dtype and widened again; the largest.
template <DType dtype>
float MaskAndMax(const void* x, const uint8_t* keep, float* wide, int64_t n) {
  const float lowest = dtype == DType::kF32    ? std::numeric_limits<float>::lowest()
                       : dtype == DType::kBF16 ? -0x1.fep127F
                                               : -65504.0F;
  __m256 largest = Set(-std::numeric_limits<float>::infinity());
  int64_t j = 0;
  for (; j + 8 <= n; j += 8) {
    const __m256 mask = _mm256_andnot_ps(LoadMask(keep + j), Set(lowest));
    const __m256 v = Round<dtype>(_mm256_add_ps(Load<dtype>(x, j), mask));
    _mm256_storeu_ps(wide + j, v);
    largest = _mm256_max_ps(largest, v);
  }
  float max = Max(largest);
  for (; j < n; ++j) {
    const float v = LoadOne<dtype>(x, j) + (keep[j] != 0 ? 0.0F : lowest);
    wide[j] = _mm256_cvtss_f32(Round<dtype>(Set(v)));
    max = std::max(max, wide[j]);
  }
  return max;
}

// e^(x - max) in place, and its sum in 8 or 16 lanes.
template <int64_t lanes>
float ExpAndSumInLanes(float* x, float max, int64_t n) {
  constexpr int64_t kRegisters = lanes / 8;
  int64_t j = 0;
  for (; j + 8 <= n; j += 8) {
    _mm256_storeu_ps(x + j, ExpSleefU10(_mm256_sub_ps(_mm256_loadu_ps(x + j), Set(max))));
  }
  for (; j < n; ++j) x[j] = _mm256_cvtss_f32(ExpSleefU10(Set(x[j] - max)));
  if (n < lanes) {
    float sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += x[i];
    return sum;
  }
  __m256 sums[kRegisters];
  for (int64_t r = 0; r < kRegisters; ++r) sums[r] = _mm256_loadu_ps(x + 8 * r);
  j = lanes;
  for (; j + lanes <= n; j += lanes) {
    for (int64_t r = 0; r < kRegisters; ++r) {
      sums[r] = _mm256_add_ps(sums[r], _mm256_loadu_ps(x + j + 8 * r));
    }
  }
  alignas(32) float lane[lanes];
  for (int64_t r = 0; r < kRegisters; ++r) _mm256_store_ps(lane + 8 * r, sums[r]);
  for (int64_t l = 0; j < n; ++j, ++l) lane[l] += x[j];
  __m256 total = _mm256_load_ps(lane);
  for (int64_t r = 1; r < kRegisters; ++r) {
    total = _mm256_add_ps(total, _mm256_load_ps(lane + 8 * r));
  }
  return Reduce(total);
}

void MaskedSoftmaxRow(const SoftmaxFunction& function, DType dtype, const void* scores,
                      const uint8_t* keep, void* probs, float* wide, int64_t n) {
  if (function.exp != Exp::kSleefU10 || (function.lanes != 8 && function.lanes != 16)) {
    return torch_ops::MaskedSoftmaxRow(function, dtype, scores, keep, probs, wide, n);
  }
  WithDType(dtype, [&]<DType type>() {
    const float max = MaskAndMax<type>(scores, keep, wide, n);
    const float sum = function.lanes == 8 ? ExpAndSumInLanes<8>(wide, max, n)
                                          : ExpAndSumInLanes<16>(wide, max, n);
    const float inverse = 1.0F / sum;
    int64_t j = 0;
    for (; j + 8 <= n; j += 8) {
      Store<type>(probs, j, _mm256_mul_ps(_mm256_loadu_ps(wide + j), Set(inverse)));
    }
    for (; j < n; ++j) StoreOne<type>(probs, j, wide[j] * inverse);
  });
}

// ---------------------------------------------------------------------------- the flash kernel

float ScaleAndMax(float* qk, const uint8_t* mask, float scale, int64_t n) {
  const float minus_infinity = -std::numeric_limits<float>::infinity();
  const int64_t vectors = n / 8 * 8;
  __m256 largest = Set(minus_infinity);
  for (int64_t j = 0; j < vectors; j += 8) {
    __m256 a = _mm256_loadu_ps(qk + j);
    if (mask == nullptr) {
      a = _mm256_mul_ps(a, Set(scale));
    } else {
      a = _mm256_fmadd_ps(a, Set(scale), _mm256_andnot_ps(LoadMask(mask + j), Set(minus_infinity)));
    }
    _mm256_storeu_ps(qk + j, a);
    largest = _mm256_max_ps(largest, a);
  }
  if (vectors == n) return Max(largest);
  const uint8_t* rest = mask == nullptr ? nullptr : mask + vectors;
  return std::max(Max(largest),
                  kScalarFlashRow.scale_and_max(qk + vectors, rest, scale, n - vectors));
}

// The vector part of a row: `sums` accumulators of `lanes` lanes, then a third one for the rest.
template <DType dtype, int64_t lanes, bool fast>
float ExpVectors(const float* a, float max, void* p, int64_t sums, int64_t n) {
  constexpr int64_t kRegisters = lanes / 8;
  __m256 sum[3][kRegisters];
  for (auto& s : sum) {
    for (__m256& v : s) v = _mm256_setzero_ps();
  }
  const auto take = [&](int64_t j, __m256(&into)[kRegisters]) {
    for (int64_t r = 0; r < kRegisters; ++r) {
      const __m256 x = _mm256_sub_ps(_mm256_loadu_ps(a + j + 8 * r), Set(max));
      const __m256 e = fast ? FexpU20(x) : ExpU20(x);
      into[r] = _mm256_add_ps(into[r], e);
      Store<dtype>(p, j + 8 * r, e);  // round: dtype, for the product
    }
  };
  int64_t j = 0;
  for (; j + sums * lanes <= n; j += sums * lanes) {
    take(j, sum[0]);
    if (sums == 2) take(j + lanes, sum[1]);
  }
  for (; j + lanes <= n; j += lanes) take(j, sum[2]);
  for (int64_t r = 0; r < kRegisters; ++r) {
    sum[0][r] = _mm256_add_ps(_mm256_add_ps(sum[0][r], sum[2][r]), sum[1][r]);
  }
  if constexpr (kRegisters == 2) return Reduce(_mm256_add_ps(sum[0][0], sum[0][1]));
  return Reduce(sum[0][0]);
}

float ExpAndSum(const SdpaFunction& function, DType dtype, const float* a, float max, void* p,
                int64_t n) {
  const bool fast = function.exp == Exp::kFexpU20;
  if ((!fast && function.exp != Exp::kU20) || (function.lanes != 8 && function.lanes != 16)) {
    return kScalarFlashRow.exp_and_sum(function, dtype, a, max, p, n);
  }
  const int64_t vectors = n / function.lanes * function.lanes;
  return WithDType(dtype, [&]<DType type>() {
    const int64_t k = function.sums;
    float sum = 0;
    if (function.lanes == 8) {
      sum = fast ? ExpVectors<type, 8, true>(a, max, p, k, vectors)
                 : ExpVectors<type, 8, false>(a, max, p, k, vectors);
    } else {
      sum = fast ? ExpVectors<type, 16, true>(a, max, p, k, vectors)
                 : ExpVectors<type, 16, false>(a, max, p, k, vectors);
    }
    for (int64_t j = vectors; j < n; ++j) {
      const float e = torch_math::Evaluate(function.tail_exp, a[j] - max);
      sum += e;
      StoreOne<type>(p, j, e);
    }
    return sum;
  });
}

void Rescale(float* x, float factor, int64_t n) { Scale<DType::kF32>(x, factor, x, n); }

void Finish(DType dtype, const float* x, float factor, void* y, int64_t n) {
  WithDType(dtype, [&]<DType type>() {
    int64_t d = 0;
    for (; d + 8 <= n; d += 8) {
      Store<type>(y, d, _mm256_mul_ps(_mm256_loadu_ps(x + d), Set(factor)));
    }
    for (; d < n; ++d) StoreOne<type>(y, d, x[d] * factor);
  });
}

}  // namespace

extern const TorchKernels kAvx2TorchKernels;
const TorchKernels kAvx2TorchKernels = {
    Isa::kAvx2,        &RmsNorm,          &Silu,
    &MultiplyByNumber, &MaskedSoftmaxRow, {&ScaleAndMax, &ExpAndSum, &Rescale, &Finish}};

}  // namespace samebits
