// 16 fp32 lanes in one AVX-512 register. Included inside an unnamed namespace by avx512.cc and
// avx512bf16.cc, which add MulAdd(F, P, P): what a step over pairs of bf16 is.

struct LanesAvx512 {
  using F = __m512;
  static constexpr int kDecodeOuts = 4;
  static constexpr int kRows = 4, kOuts = 6, kPackedFrom = 4;
  static constexpr int64_t kSteps = 64, kPiece = 96;
  static constexpr int kScoreQueries = 4, kScoreSums = 16;
  static constexpr int kContextQueries = 4, kContextChunks = 4;
  static constexpr int kPackedQueries = 2, kPackedBlocks = 2;

  static F Zero() { return _mm512_setzero_ps(); }
  static F Set(float v) { return _mm512_set1_ps(v); }
  static float First(F v) { return _mm512_cvtss_f32(v); }
  static F Add(F a, F b) { return _mm512_add_ps(a, b); }
  static F Mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static F Max(F a, F b) { return _mm512_max_ps(a, b); }         // a > b ? a : b
  static float Largest(F v) { return _mm512_reduce_max_ps(v); }  // without NaN
  // n elements at p, `other` for the rest.
  static F LoadOver(const float* p, int64_t n, float other) {
    return _mm512_mask_loadu_ps(Set(other), Mask(n), p);
  }
  static F Div(F a, F b) { return _mm512_div_ps(a, b); }
  static F Fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  static F MulAdd(F acc, F a, F b) { return _mm512_fmadd_ps(a, b, acc); }
  static F Negate(F v) {
    return _mm512_castsi512_ps(
        _mm512_xor_si512(_mm512_castps_si512(v), _mm512_set1_epi32(INT32_MIN)));
  }
  static __mmask16 Mask(int64_t n) { return static_cast<__mmask16>((1U << n) - 1U); }

  static __m512i RoundToBF16(F v) {
    const __m512i bits = _mm512_castps_si512(v);
    const __m512i lsb = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i rounded =
        _mm512_add_epi32(bits, _mm512_add_epi32(lsb, _mm512_set1_epi32(0x7fff)));
    const __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
    const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
    return _mm512_srli_epi32(_mm512_mask_mov_epi32(rounded, nan, quiet), 16);
  }

  template <DType dtype>
  static F Load(const void* p) {
    if constexpr (dtype == DType::kF32) {
      return _mm512_loadu_ps(p);
    } else {
      const __m256i half = _mm256_loadu_si256(static_cast<const __m256i*>(p));
      if constexpr (dtype == DType::kF16) return _mm512_cvtph_ps(half);
      return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
    }
  }
  template <DType dtype>
  static F Load(const void* p, int64_t n) {
    const __mmask16 mask = Mask(n);
    if constexpr (dtype == DType::kF32) {
      return _mm512_maskz_loadu_ps(mask, p);
    } else {
      const __m256i half = _mm256_maskz_loadu_epi16(mask, p);
      if constexpr (dtype == DType::kF16) return _mm512_cvtph_ps(half);
      return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
    }
  }

  template <DType dtype>
  static __m256i Halves(F v) {
    if constexpr (dtype == DType::kBF16) return _mm512_cvtepi32_epi16(RoundToBF16(v));
    return _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }
  template <DType dtype>
  static void Store(void* p, F v) {
    if constexpr (dtype == DType::kF32) {
      _mm512_storeu_ps(p, v);
    } else {
      _mm256_storeu_si256(static_cast<__m256i*>(p), Halves<dtype>(v));
    }
  }
  template <DType dtype>
  static void Store(void* p, F v, int64_t n) {
    if (n == 16) return Store<dtype>(p, v);  // AMD's masked stores that narrow are slow
    if constexpr (dtype == DType::kF32) {
      _mm512_mask_storeu_ps(p, Mask(n), v);
    } else {
      _mm256_mask_storeu_epi16(p, Mask(n), Halves<dtype>(v));
    }
  }

  template <DType dtype>
  static F Round(F v) {
    if constexpr (dtype == DType::kF32) return v;
    if constexpr (dtype == DType::kF16) {
      return _mm512_cvtph_ps(_mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    }
    return _mm512_castsi512_ps(_mm512_slli_epi32(RoundToBF16(v), 16));
  }

  // The tree of canonical.h: 16 lanes, distance 8, 4, 2, 1.
  static float Reduce(F v) {
    const __m256 a = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    const __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    const __m128 c = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_shuffle_ps(c, c, 1)));
  }

  // samebits::Exp, to the bit.
  static F Exp(F x) {
    using C = ExpConstants;
    // Each takes its second operand where one is NaN, and where they are equal.
    const F c = _mm512_min_ps(Set(C::kHigh), _mm512_max_ps(Set(C::kLow), x));
    const F shifted = Fma(c, Set(C::kLog2E), Set(C::kMagic));
    const F n = _mm512_sub_ps(shifted, Set(C::kMagic));
    F r = Fma(n, Set(-C::kLn2High), c);
    r = Fma(n, Set(-C::kLn2Low), r);
    F p = Set(C::kP[0]);
    for (int i = 1; i < 6; ++i) p = Fma(p, r, Set(C::kP[i]));
    const F e = Add(Fma(Mul(r, r), p, r), Set(1.0F));
    return _mm512_scalef_ps(e, n);  // rounded once, where the result is denormal, as in two steps
  }

  // The tree's steps for several sums side by side: x's lanes and y's, folded at a distance.
  static F Fold8(F x, F y) {
    return Add(_mm512_shuffle_f32x4(x, y, 0x44), _mm512_shuffle_f32x4(x, y, 0xee));
  }
  static F Fold4(F x, F y) {
    return Add(_mm512_shuffle_f32x4(x, y, 0x88), _mm512_shuffle_f32x4(x, y, 0xdd));
  }
  static F Fold2(F x, F y) {
    const __m512d a = _mm512_castps_pd(x), b = _mm512_castps_pd(y);
    return Add(_mm512_castpd_ps(_mm512_shuffle_pd(a, b, 0x00)),
               _mm512_castpd_ps(_mm512_shuffle_pd(a, b, 0xff)));
  }
  static F Fold1(F x, F y) {
    return Add(_mm512_shuffle_ps(x, y, 0x88), _mm512_shuffle_ps(x, y, 0xdd));
  }
  // Reduce of 16 or 8 registers: lane i is the sum of v[i].
  static F ReduceAll(const F (&v)[16]) {
    F quads[4];  // of v[i], v[4 + i], v[8 + i], v[12 + i]: four lanes each
    for (int i = 0; i < 4; ++i) {
      quads[i] = Fold4(Fold8(v[i], v[4 + i]), Fold8(v[8 + i], v[12 + i]));
    }
    return Fold1(Fold2(quads[0], quads[1]), Fold2(quads[2], quads[3]));
  }
  static F ReduceAll(const F (&v)[8]) {
    const F even = Fold4(Fold8(v[0], v[2]), Fold8(v[4], v[6]));
    const F odd = Fold4(Fold8(v[1], v[3]), Fold8(v[5], v[7]));
    const F pairs = Fold2(even, odd);
    return _mm512_maskz_compress_ps(0x3333, Fold1(pairs, pairs));
  }
  static void ReduceAll(const F (&v)[16], float* sums) { _mm512_storeu_ps(sums, ReduceAll(v)); }

  // A register of packed_linear.h.
  using Register = __m512;
  static constexpr int kPartLanes = 16;
  static Register ZeroRegister() { return _mm512_setzero_ps(); }
  static Register LoadRegister(const float* p) { return _mm512_loadu_ps(p); }
  static void StoreRegister(float* p, Register v) { _mm512_store_ps(p, v); }
  static Register Broadcast(const float* p) {  // of a word that need not be aligned, nor a float
    float word = 0;
    std::memcpy(&word, p, sizeof(word));
    return _mm512_set1_ps(word);
  }
  static Register AddRegisters(Register a, Register b) { return _mm512_add_ps(a, b); }
  // Four words of 16 rows: columns[i] has those at rows[0] + at + i, rows[1] + at + i, ...
  static void LoadColumns(const float* const (&rows)[16], int64_t at, Register (&columns)[4]) {
    __m512 quads[4];  // of rows i, 4 + i, 8 + i, 12 + i
    Unroll<4>([&](auto i) __attribute__((always_inline)) {
      quads[i] = _mm512_castps128_ps512(_mm_loadu_ps(rows[i] + at));
      quads[i] = _mm512_insertf32x4(quads[i], _mm_loadu_ps(rows[4 + i] + at), 1);
      quads[i] = _mm512_insertf32x4(quads[i], _mm_loadu_ps(rows[8 + i] + at), 2);
      quads[i] = _mm512_insertf32x4(quads[i], _mm_loadu_ps(rows[12 + i] + at), 3);
    });
    const __m512d a = _mm512_castps_pd(_mm512_unpacklo_ps(quads[0], quads[1]));
    const __m512d b = _mm512_castps_pd(_mm512_unpacklo_ps(quads[2], quads[3]));
    const __m512d c = _mm512_castps_pd(_mm512_unpackhi_ps(quads[0], quads[1]));
    const __m512d d = _mm512_castps_pd(_mm512_unpackhi_ps(quads[2], quads[3]));
    columns[0] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
    columns[1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
    columns[2] = _mm512_castpd_ps(_mm512_unpacklo_pd(c, d));
    columns[3] = _mm512_castpd_ps(_mm512_unpackhi_pd(c, d));
  }
  // The sums of 4 x 6 registers; those of a row `pitch` behind those of the row before.
  static void StoreTotals(const Register (&v)[4][6], float* totals, int64_t pitch) {
    const F a = ReduceAll({v[0][0], v[0][1], v[0][2], v[0][3], v[0][4], v[0][5], v[1][0], v[1][1],
                           v[1][2], v[1][3], v[1][4], v[1][5], v[2][0], v[2][1], v[2][2], v[2][3]});
    const F b = ReduceAll({v[2][4], v[2][5], v[3][0], v[3][1], v[3][2], v[3][3], v[3][4], v[3][5]});
    const __m512i low = _mm512_castps_si512(a), high = _mm512_castps_si512(b);
    const auto store = [](float* to, __m512i six) {
      _mm512_mask_storeu_ps(to, 0x3f, _mm512_castsi512_ps(six));
    };
    store(totals, low);
    store(totals + pitch, _mm512_alignr_epi32(high, low, 6));
    store(totals + 2 * pitch, _mm512_alignr_epi32(high, low, 12));
    store(totals + 3 * pitch, _mm512_alignr_epi32(high, high, 2));
  }

  // Pairs of bf16 as 16 words of 32 bits, the even element in the low half.
  struct P {
    __m512i bits;
  };
  static F Odd(P p) {
    return _mm512_castsi512_ps(_mm512_and_si512(p.bits, _mm512_set1_epi32(INT32_C(-65536))));
  }
  static F Even(P p) { return _mm512_castsi512_ps(_mm512_slli_epi32(p.bits, 16)); }
  static P LoadPairs(const uint16_t* p) { return {_mm512_loadu_si512(p)}; }
  static P LoadPairs(const uint16_t* p, int64_t n) {
    return {_mm512_maskz_loadu_epi16(static_cast<__mmask32>((uint64_t{1} << n) - 1), p)};
  }
  static P BroadcastPair(const uint16_t* p) {
    int32_t pair = 0;
    std::memcpy(&pair, p, 4);
    return {_mm512_set1_epi32(pair)};
  }
  static P InterleavePairs(const uint16_t* even, const uint16_t* odd, int64_t n) {
    const __mmask16 mask = Mask(n);
    const auto load = [mask](const uint16_t* p) {
      if (p == nullptr) return _mm512_setzero_si512();
      return _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, p));
    };
    return {_mm512_or_si512(load(even), _mm512_slli_epi32(load(odd), 16))};
  }
};
