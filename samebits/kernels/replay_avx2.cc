// Replayed orders on AVX2 with FMA: lanes of an order are lanes of a register; chains run side by
// side, one output a lane.
#include <immintrin.h>

#include "samebits/kernels/replay_tiles.h"
#include "samebits/numerics/flush.h"

namespace samebits {
namespace {

struct Eight {
  using F = __m256;
  static constexpr int64_t kLanes = 8;
  static F Load(const float* p) { return _mm256_loadu_ps(p); }
  static F Zero() { return _mm256_setzero_ps(); }
  static F First(float v) { return _mm256_set_ps(0, 0, 0, 0, 0, 0, 0, v); }
  static F Add(F a, F b) { return _mm256_add_ps(a, b); }
  static F Mul(F a, F b) { return _mm256_mul_ps(a, b); }
  static F Fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
  static float Reduce(F v) {
    const __m128 a = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    const __m128 b = _mm_add_ps(a, _mm_movehl_ps(a, a));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_shuffle_ps(b, b, 1)));
  }
  // Four at a time: the same additions.
  static __m128 Reduce4(F v0, F v1, F v2, F v3) {
    const __m256 a =
        _mm256_add_ps(_mm256_permute2f128_ps(v0, v1, 0x20), _mm256_permute2f128_ps(v0, v1, 0x31));
    const __m256 b =
        _mm256_add_ps(_mm256_permute2f128_ps(v2, v3, 0x20), _mm256_permute2f128_ps(v2, v3, 0x31));
    const __m256 c = _mm256_add_ps(_mm256_shuffle_ps(a, b, 0x44), _mm256_shuffle_ps(a, b, 0xee));
    const __m128 low = _mm256_castps256_ps128(c), high = _mm256_extractf128_ps(c, 1);
    // low: 0 0 2 2, high: 1 1 3 3
    const __m128 d = _mm_add_ps(_mm_shuffle_ps(low, high, 0x88), _mm_shuffle_ps(low, high, 0xdd));
    return _mm_shuffle_ps(d, d, 0xd8);  // 0 2 1 3 to 0 1 2 3
  }
};

struct Four {
  using F = __m128;
  static constexpr int64_t kLanes = 4;
  static F Load(const float* p) { return _mm_loadu_ps(p); }
  static F Zero() { return _mm_setzero_ps(); }
  static F First(float v) { return _mm_set_ss(v); }
  static F Add(F a, F b) { return _mm_add_ps(a, b); }
  static F Mul(F a, F b) { return _mm_mul_ps(a, b); }
  static F Fma(F a, F b, F c) { return _mm_fmadd_ps(a, b, c); }
  static float Reduce(F v) {
    const __m128 b = _mm_add_ps(v, _mm_movehl_ps(v, v));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_shuffle_ps(b, b, 1)));
  }
  static __m128 Reduce4(F v0, F v1, F v2, F v3) {
    const __m128 a = _mm_add_ps(_mm_shuffle_ps(v0, v1, 0x44), _mm_shuffle_ps(v0, v1, 0xee));
    const __m128 b = _mm_add_ps(_mm_shuffle_ps(v2, v3, 0x44), _mm_shuffle_ps(v2, v3, 0xee));
    return _mm_add_ps(_mm_shuffle_ps(a, b, 0x88), _mm_shuffle_ps(a, b, 0xdd));
  }
};

// Two registers.
struct Sixteen {
  struct F {
    __m256 low, high;
  };
  static constexpr int64_t kLanes = 16;
  static F Load(const float* p) { return {Eight::Load(p), Eight::Load(p + 8)}; }
  static void Store(float* p, F v) {
    _mm256_storeu_ps(p, v.low);
    _mm256_storeu_ps(p + 8, v.high);
  }
  static F Zero() { return {Eight::Zero(), Eight::Zero()}; }
  static F First(float v) { return {Eight::First(v), Eight::Zero()}; }
  static F Add(F a, F b) { return {Eight::Add(a.low, b.low), Eight::Add(a.high, b.high)}; }
  static F Mul(F a, F b) { return {Eight::Mul(a.low, b.low), Eight::Mul(a.high, b.high)}; }
  static F Fma(F a, F b, F c) {
    return {Eight::Fma(a.low, b.low, c.low), Eight::Fma(a.high, b.high, c.high)};
  }
  static float Reduce(F v) { return Eight::Reduce(Eight::Add(v.low, v.high)); }
  static __m128 Reduce4(F v0, F v1, F v2, F v3) {
    return Eight::Reduce4(Eight::Add(v0.low, v0.high), Eight::Add(v1.low, v1.high),
                          Eight::Add(v2.low, v2.high), Eight::Add(v3.low, v3.high));
  }
  static float ReduceQuarters(F v) {
    const __m128 two = _mm_add_ps(_mm256_castps256_ps128(v.low), _mm256_extractf128_ps(v.low, 1));
    const __m128 three = _mm_add_ps(two, _mm256_castps256_ps128(v.high));
    const __m128 four = _mm_add_ps(three, _mm256_extractf128_ps(v.high, 1));
    const __m128 pairs = _mm_hadd_ps(four, four);
    return _mm_cvtss_f32(_mm_hadd_ps(pairs, pairs));
  }
  // The first `count` lanes are loaded; Select takes them from a, the others from b.
  static F Mask(int64_t count) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const auto below = [&](int64_t n) {
      return _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), lane));
    };
    return {below(count), below(count - 8)};
  }
  static F LoadMasked(const float* p, F mask) {
    return {_mm256_maskload_ps(p, _mm256_castps_si256(mask.low)),
            _mm256_maskload_ps(p + 8, _mm256_castps_si256(mask.high))};
  }
  static F Select(F mask, F a, F b) {
    return {_mm256_blendv_ps(b.low, a.low, mask.low), _mm256_blendv_ps(b.high, a.high, mask.high)};
  }
};

template <typename V, bool kFused>
typename V::F Joined(typename V::F x, typename V::F w, typename V::F sum) {
  if constexpr (kFused) return V::Fma(x, w, sum);
  return V::Add(sum, V::Mul(x, w));
}

// The elements after the turns; only with one accumulator.
template <bool kFused, int kRows, int kOuts>
void MaskedTail(const LaneTile& t, const float* x, const float* w, Sixteen::F* sums) {
  const Sixteen::F mask = Sixteen::Mask(t.tail);
  for (int i = 0; i < kRows * kOuts; ++i) {
    const Sixteen::F xs = Sixteen::LoadMasked(x + i / kOuts * t.x_stride, mask);
    const Sixteen::F ws = Sixteen::LoadMasked(w + i % kOuts * t.w_stride, mask);
    sums[i] = Sixteen::Select(mask, Joined<Sixteen, kFused>(xs, ws, sums[i]), sums[i]);
  }
}

// kRows x kOuts outputs. An accumulator sees every accumulators-th vector of all turns.
template <typename V, bool kFused, int kRows, int kOuts>
void LaneBlock(const LaneTile& t, int64_t row, int64_t out) {
  using F = typename V::F;
  constexpr int kSums = kRows * kOuts;
  F parts[kMaxTileAccumulators][kSums];
  for (F& part : parts[0]) part = V::Zero();  // g++ does not see that there is an accumulator
  const int64_t step = t.accumulators * V::kLanes;
  const int64_t count = t.turns * (t.vectors / t.accumulators);
  const float* x0 = t.x + row * t.x_stride;
  const float* w0 = t.w + out * t.w_stride;
  for (int64_t a = 0; a < t.accumulators; ++a) {
    F sums[kSums];
    for (int i = 0; i < kSums; ++i) {
      sums[i] = a == 0 && t.start != nullptr
                    ? V::First(t.start[(row + i / kOuts) * t.sums_stride + out + i % kOuts])
                    : V::Zero();
      if constexpr (V::kLanes == 16) {
        if (a == 0 && t.start_lanes != nullptr) {
          const int64_t at = (row + i / kOuts) * t.sums_stride + out + i % kOuts;
          sums[i] = V::Load(t.start_lanes + at * V::kLanes);
        }
      }
    }
    const float* x = x0 + a * V::kLanes;
    const float* w = w0 + a * V::kLanes;
    for (int64_t j = 0; j < count; ++j, x += step, w += step) {
      F ws[kOuts];
      for (int c = 0; c < kOuts; ++c) ws[c] = V::Load(w + c * t.w_stride);
      for (int r = 0; r < kRows; ++r) {
        const F xs = V::Load(x + r * t.x_stride);
        for (int c = 0; c < kOuts; ++c) {
          sums[r * kOuts + c] = Joined<V, kFused>(xs, ws[c], sums[r * kOuts + c]);
        }
      }
    }
    if constexpr (V::kLanes == 16) {
      const int64_t done = t.turns * t.vectors * V::kLanes;
      if (a == 0 && t.tail > 0) MaskedTail<kFused, kRows, kOuts>(t, x0 + done, w0 + done, sums);
    }
    for (int i = 0; i < kSums; ++i) parts[a][i] = sums[i];
  }
  if (t.accumulators_in_sequence) {
    for (int64_t a = 1; a < t.accumulators; ++a) {
      for (int i = 0; i < kSums; ++i) parts[0][i] = V::Add(parts[0][i], parts[a][i]);
    }
  } else {
    for (int64_t d = t.accumulators / 2; d >= 1; d /= 2) {
      for (int64_t a = 0; a < d; ++a) {
        for (int i = 0; i < kSums; ++i) parts[a][i] = V::Add(parts[a][i], parts[a + d][i]);
      }
    }
  }
  for (int r = 0; r < kRows; ++r) {
    float* to = t.sums + (row + r) * t.sums_stride + out;
    const F* p = parts[0] + r * kOuts;
    if constexpr (V::kLanes == 16) {
      if (t.joined_lanes != nullptr) {
        float* lanes = t.joined_lanes + ((row + r) * t.sums_stride + out) * V::kLanes;
        for (int c = 0; c < kOuts; ++c) V::Store(lanes + c * V::kLanes, p[c]);
        continue;
      }
      if (t.quarters) {
        for (int c = 0; c < kOuts; ++c) to[c] = V::ReduceQuarters(p[c]);
        continue;
      }
    }
    if constexpr (kOuts == 4) {
      _mm_storeu_ps(to, V::Reduce4(p[0], p[1], p[2], p[3]));
    } else {
      for (int c = 0; c < kOuts; ++c) to[c] = V::Reduce(p[c]);
    }
  }
}

template <typename V, bool kFused, int kRows>
void LaneRows(const LaneTile& t, int64_t row) {
  constexpr int kOuts = V::kLanes == 16 && kRows > 1 ? 2 : 4;  // sums that fit the registers
  int64_t out = 0;
  for (; out + kOuts <= t.outs; out += kOuts) LaneBlock<V, kFused, kRows, kOuts>(t, row, out);
  for (; out < t.outs; ++out) LaneBlock<V, kFused, kRows, 1>(t, row, out);
}

template <typename V, bool kFused>
void Lanes(const LaneTile& t) {
  int64_t row = 0;
  if constexpr (V::kLanes == 16) {
    for (; row + 2 <= t.rows; row += 2) LaneRows<V, kFused, 2>(t, row);
  } else {
    for (; row + 3 <= t.rows; row += 3) LaneRows<V, kFused, 3>(t, row);
  }
  if (row + 2 <= t.rows) {
    LaneRows<V, kFused, 2>(t, row);
  } else if (row < t.rows) {
    LaneRows<V, kFused, 1>(t, row);
  }
}

// kRows rows times 16 outputs, kLanes sums each.
template <bool kFused, int kRows, int kLanes>
void ChainRows(const ChainTile& t, int64_t row) {
  constexpr int64_t kVectors = kChainTileOuts / 8;
  __m256 sums[kRows * kLanes][kVectors];
  float* to = t.sums + row * kLanes * kChainTileOuts;
  for (int i = 0; i < kRows * kLanes; ++i) {
    for (int v = 0; v < kVectors; ++v) {
      sums[i][v] = _mm256_loadu_ps(to + i * kChainTileOuts + v * 8);
    }
  }
  const float* x = t.x + row * t.x_stride;
  const float* w = t.w;
  const auto join = [&](int lane, int64_t k) {
    for (int r = 0; r < kRows; ++r) {
      const __m256 xs = _mm256_broadcast_ss(x + r * t.x_stride + k);
      for (int v = 0; v < kVectors; ++v) {
        __m256& sum = sums[r * kLanes + lane][v];
        sum = Joined<Eight, kFused>(xs, _mm256_loadu_ps(w + k * kChainTileOuts + v * 8), sum);
      }
    }
  };
  int64_t k = 0;
  for (; k + kLanes <= t.size; k += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) join(lane, k + lane);
  }
  for (; k < t.size; ++k) join(0, k);
  for (int i = 0; i < kRows * kLanes; ++i) {
    for (int v = 0; v < kVectors; ++v) {
      _mm256_storeu_ps(to + i * kChainTileOuts + v * 8, sums[i][v]);
    }
  }
}

// kRows rows times 16 outputs, tile after tile.
template <bool kFused, int kRows>
void TiledRows(const ChainTile& t, int64_t row) {
  constexpr int64_t kVectors = kChainTileOuts / 8;
  const float* x = t.x + row * t.x_stride;
  float* to = t.sums + row * kChainTileOuts;
  for (int64_t begin = 0; begin < t.size; begin += t.tile) {
    const int64_t end = begin + t.tile < t.size ? begin + t.tile : t.size;
    __m256 sums[2][kRows][kVectors];
    for (auto& chain : sums) {
      for (auto& r : chain) {
        for (__m256& sum : r) sum = _mm256_setzero_ps();
      }
    }
    const auto join = [&](int chain, int64_t k) {
      for (int r = 0; r < kRows; ++r) {
        const __m256 xs = _mm256_broadcast_ss(x + r * t.x_stride + k);
        for (int v = 0; v < kVectors; ++v) {
          __m256& sum = sums[chain][r][v];
          sum = Joined<Eight, kFused>(xs, _mm256_loadu_ps(t.w + k * kChainTileOuts + v * 8), sum);
        }
      }
    };
    int64_t k = begin;
    for (; k + 2 <= end; k += 2) {
      join(0, k);
      join(1, k + 1);
    }
    if (k < end) join(0, k);
    for (int r = 0; r < kRows; ++r) {
      for (int v = 0; v < kVectors; ++v) {
        float* sum = to + r * kChainTileOuts + v * 8;
        const __m256 joined = _mm256_add_ps(sums[0][r][v], sums[1][r][v]);
        _mm256_storeu_ps(sum, _mm256_add_ps(_mm256_loadu_ps(sum), joined));
      }
    }
  }
}

template <bool kFused>
__attribute__((noinline)) void Chains(const ChainTile& t) {
  int64_t row = 0;
  if (t.tile > 0) {
    for (; row + 3 <= t.rows; row += 3) TiledRows<kFused, 3>(t, row);
    for (; row < t.rows; ++row) TiledRows<kFused, 1>(t, row);
    return;
  }
  if (t.lanes == 4) {
    for (; row < t.rows; ++row) ChainRows<kFused, 1, 4>(t, row);
    return;
  }
  for (; row + 6 <= t.rows; row += 6) ChainRows<kFused, 6, 1>(t, row);
  for (; row + 2 <= t.rows; row += 2) ChainRows<kFused, 2, 1>(t, row);
  for (; row < t.rows; ++row) ChainRows<kFused, 1, 1>(t, row);
}

// The same for 8 x 8 values.
void Transpose8(const float* from, int64_t stride, float* to, int64_t to_stride) {
  __m256 r[8], t[8];
  for (int i = 0; i < 8; ++i) r[i] = _mm256_loadu_ps(from + i * stride);
  for (int i = 0; i < 8; i += 2) {
    t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
  }
  for (int i = 0; i < 8; i += 4) {
    r[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
    r[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
    r[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
    r[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
  }
  for (int i = 0; i < 4; ++i) {
    _mm256_storeu_ps(to + i * to_stride, _mm256_permute2f128_ps(r[i], r[i + 4], 0x20));
    _mm256_storeu_ps(to + (i + 4) * to_stride, _mm256_permute2f128_ps(r[i], r[i + 4], 0x31));
  }
}

}  // namespace

void LaneTileAvx2(const LaneTile& t) {
  if (t.lanes == 16) {
    t.fused ? Lanes<Sixteen, true>(t) : Lanes<Sixteen, false>(t);
  } else if (t.lanes == 8) {
    t.fused ? Lanes<Eight, true>(t) : Lanes<Eight, false>(t);
  } else {
    t.fused ? Lanes<Four, true>(t) : Lanes<Four, false>(t);
  }
}

void TailTileAvx2(const TailTile& t) {
  for (int64_t r = 0; r < t.rows; ++r) {
    for (int64_t c = 0; c < t.outs; ++c) {
      const float* x = t.x + r * t.x_stride;
      const float* w = t.w + c * t.w_stride;
      float& to = t.sums[r * t.sums_stride + c];
      __m128 sum = _mm_set_ss(to);
      for (int64_t k = 0; k < t.size; ++k) {
        const __m128 xs = _mm_load_ss(x + k), ws = _mm_load_ss(w + k);
        sum = t.fused ? _mm_fmadd_ss(xs, ws, sum) : _mm_add_ss(sum, _mm_mul_ss(xs, ws));
      }
      to = _mm_cvtss_f32(sum);
    }
  }
}

void ChainTileAvx2(const ChainTile& t) {
  const FlushDenormals flush(t.flush);
  t.fused ? Chains<true>(t) : Chains<false>(t);
}

void WidenBF16Avx2(const uint16_t* from, float* to, int64_t count) {
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i));
    const __m256i wide = _mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16);
    _mm256_storeu_ps(to + i, _mm256_castsi256_ps(wide));
  }
  for (; i < count; ++i) {
    const uint32_t bits = static_cast<uint32_t>(from[i]) << 16;
    to[i] = __builtin_bit_cast(float, bits);
  }
}

void WidenF16Avx2(const uint16_t* from, float* to, int64_t count) {
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i));
    _mm256_storeu_ps(to + i, _mm256_cvtph_ps(half));
  }
  for (; i < count; ++i) to[i] = _cvtsh_ss(from[i]);
}

void TransposeAvx2(const float* from, int64_t stride, float* to, int64_t size) {
  int64_t k = 0;
  for (; k + 8 <= size; k += 8) {
    for (int64_t c = 0; c < kChainTileOuts; c += 8) {
      Transpose8(from + c * stride + k, stride, to + k * kChainTileOuts + c, kChainTileOuts);
    }
  }
  for (; k < size; ++k) {
    for (int64_t c = 0; c < kChainTileOuts; ++c) to[k * kChainTileOuts + c] = from[c * stride + k];
  }
}

}  // namespace samebits
