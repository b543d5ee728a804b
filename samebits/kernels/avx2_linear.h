// Linear layers of many rows on AVX2; included by avx2.cc behind vector_kernels.h.
//
// With 16 registers the 16 lanes of a sum, two registers each, leave room for four sums only, and
// then loading takes longer than multiplying. But lanes never meet before the end: so the lower
// eight lanes of twelve sums (4 rows by 3 weight rows) run over a block of the products first, then
// the upper eight, with 7 loads for 12 multiplications. Both operands are laid out for that once a
// block, as floats: [half of the lanes][step][row][8]. What is left after a block waits in memory
// until the next block of the same sums; each lane still adds its products in the order of
// canonical.h.

struct PackedLinear {
  static constexpr int kRows = 4, kOuts = 3, kTile = kRows * kOuts;
  static constexpr int kLanes = 8;          // of a half
  static constexpr int64_t kBlock = 1024;   // products of a block at most
  static constexpr int64_t kRowBlock = 48;  // rows that stay in the second-level cache
  static constexpr int64_t kQuadSize = kRows * kBlock, kPanelSize = kOuts * kBlock;
  // Multiplications of one row by one weight row in one block, in steps of 16.
  template <DType dtype>
  static int64_t Steps(int64_t count) {
    return dtype == DType::kBF16 ? (count + 31) / 32 * 2 : (count + 15) / 16;
  }

  // Eight lanes of one step go to `to`, those of the next step `stride` floats behind; the upper
  // lanes `half` floats behind the lower ones. bfloat16: the odd elements of 32, then the even
  // ones. Missing elements are 0.
  template <DType dtype>
  static void PackRow(const Element<dtype>* from, int64_t count, int64_t stride, int64_t half,
                      float* to) {
    if constexpr (dtype == DType::kBF16) {
      const __m256i mask = _mm256_set1_epi32(INT32_C(-65536));
      for (int64_t k = 0; k < count; k += 32, to += 2 * stride) {
        const V::P pairs =
            k + 32 <= count ? V::LoadPairs(from + k) : V::LoadPairs(from + k, count - k);
        const auto odd = [mask](__m256i v) {
          return _mm256_castsi256_ps(_mm256_and_si256(v, mask));
        };
        const auto even = [](__m256i v) { return _mm256_castsi256_ps(_mm256_slli_epi32(v, 16)); };
        _mm256_store_ps(to, odd(pairs.a));
        _mm256_store_ps(to + stride, even(pairs.a));
        _mm256_store_ps(to + half, odd(pairs.b));
        _mm256_store_ps(to + half + stride, even(pairs.b));
      }
    } else {
      for (int64_t k = 0; k < count; k += 16, to += stride) {
        const V::F v =
            k + 16 <= count ? V::Load<dtype>(from + k) : V::Load<dtype>(from + k, count - k);
        _mm256_store_ps(to, v.a);
        _mm256_store_ps(to + half, v.b);
      }
    }
  }

  // `rows` of `tile` rows at `from`, `pitch` elements apart; the others are 0.
  template <DType dtype, int tile>
  static void PackTile(const Element<dtype>* from, int64_t pitch, int64_t rows, int64_t count,
                       float* to) {
    const int64_t stride = tile * kLanes, half = tile * kBlock / 2;
    for (int64_t r = 0; r < tile; ++r) {
      if (r < rows) {
        PackRow<dtype>(from + r * pitch, count, stride, half, to + r * kLanes);
        continue;
      }
      const __m256 zero = _mm256_setzero_ps();
      for (int64_t s = 0; s < Steps<dtype>(count); ++s) {
        _mm256_store_ps(to + r * kLanes + s * stride, zero);
        _mm256_store_ps(to + r * kLanes + s * stride + half, zero);
      }
    }
  }

  // One half of the lanes of 4 x 3 sums over the steps of a block; `sums`: [4][3][8].
  static __attribute__((noinline)) void RunHalf(const float* x, const float* w, int64_t steps,
                                                bool first, float* sums) {
    __m256 acc[kRows][kOuts];
    for (int r = 0; r < kRows; ++r) {
      for (int o = 0; o < kOuts; ++o) {
        acc[r][o] = first ? _mm256_setzero_ps() : _mm256_load_ps(sums + (r * kOuts + o) * kLanes);
      }
    }
    const auto step = [&](const float* xs, const float* ws) __attribute__((always_inline)) {
      __m256 held[kOuts];
      for (int o = 0; o < kOuts; ++o) held[o] = _mm256_load_ps(ws + o * kLanes);
      for (int r = 0; r < kRows; ++r) {
        const __m256 passing = _mm256_load_ps(xs + r * kLanes);
        for (int o = 0; o < kOuts; ++o) acc[r][o] = _mm256_fmadd_ps(passing, held[o], acc[r][o]);
      }
    };
    constexpr int kUnroll = 4;
    for (; steps >= kUnroll;
         steps -= kUnroll, x += kUnroll * kRows * kLanes, w += kUnroll * kOuts * kLanes) {
      for (int i = 0; i < kUnroll; ++i) step(x + i * kRows * kLanes, w + i * kOuts * kLanes);
    }
    for (; steps > 0; --steps, x += kRows * kLanes, w += kOuts * kLanes) step(x, w);
    for (int r = 0; r < kRows; ++r) {
      for (int o = 0; o < kOuts; ++o) {
        _mm256_store_ps(sums + (r * kOuts + o) * kLanes, acc[r][o]);
      }
    }
  }

  static __attribute__((noinline)) void RunTile(const float* x, const float* w, int64_t steps,
                                                bool first, float* sums) {
    RunHalf(x, w, steps, first, sums);
    RunHalf(x + kQuadSize / 2, w + kPanelSize / 2, steps, first, sums + kTile * kLanes);
  }

  // The trees of canonical.h for a tile: four rows of one output side by side. `to`: sums of one
  // row lie `pitch` floats before those of the next.
  static void ReduceTile(const float* sums, int64_t pitch, float* to) {
    for (int o = 0; o < kOuts; ++o) {
      V::F v[kRows];
      for (int r = 0; r < kRows; ++r) {
        const float* at = sums + (r * kOuts + o) * kLanes;
        v[r] = {_mm256_load_ps(at), _mm256_load_ps(at + kTile * kLanes)};
      }
      float four[kRows];
      V::ReduceAll(v, four);
      for (int r = 0; r < kRows; ++r) to[r * pitch + o] = four[r];
    }
  }

  // Scratch of this thread, in floats.
  struct Space {
    float *x, *w;        // packed blocks: of kRowBlock rows, of kOuts weight rows
    float* sums;         // lanes of all sums of a row block: [panel][quad][2][4][3][8]
    float* totals;       // [row][out]
    std::byte* rounded;  // a block of weight rows, or biases, in the model's dtype
  };

  template <DType dtype>
  struct Call {
    const LinearArgs& a;
    int64_t row_begin, row_end, out_begin, out_end;
    Space space{};
    int64_t quads = 0, outs = 0;  // of the row block; outs: a multiple of kOuts
    int64_t block = 0;            // products of a block: all blocks alike, but for the last

    void Prepare() {
      const int64_t most = std::min(kRowBlock, (row_end - row_begin + kRows - 1) / kRows * kRows);
      const int64_t blocks = (a.in_features + kBlock - 1) / kBlock;
      block = ((a.in_features + blocks - 1) / blocks + 31) / 32 * 32;
      outs = (out_end - out_begin + kOuts - 1) / kOuts * kOuts;
      const auto floats = [](int64_t n) { return static_cast<size_t>(n) * sizeof(float); };
      space.x = reinterpret_cast<float*>(Scratch<4>(floats(most * kBlock)));
      space.w = reinterpret_cast<float*>(Scratch<5>(floats(kOuts * kBlock)));
      space.sums = reinterpret_cast<float*>(Scratch<6>(floats(most * outs * 16)));
      space.totals = reinterpret_cast<float*>(Scratch<7>(floats(most * outs + 16)));
      space.rounded = Scratch<0>(floats(kOuts * kBlock + outs + 16));
    }

    void PackWeights(int64_t out, int64_t k, int64_t count) {
      const int64_t rows = std::min<int64_t>(out_end - out, kOuts);
      if (a.weight_dtype == dtype) {
        const auto* w = static_cast<const Element<dtype>*>(a.w) + out * a.in_features + k;
        return PackTile<dtype, kOuts>(w, a.in_features, rows, count, space.w);
      }
      auto* rounded = reinterpret_cast<Element<dtype>*>(space.rounded);
      WithDType(a.weight_dtype, [&]<DType from>() {
        const auto* w = static_cast<const Element<from>*>(a.w) + out * a.in_features + k;
        for (int64_t r = 0; r < rows; ++r) {
          Convert<from, dtype>(w + r * a.in_features, rounded + r * count, count);
        }
      });
      PackTile<dtype, kOuts>(rounded, count, rows, count, space.w);
    }

    // The weights that come next, on their way into the second-level cache.
    struct Ahead {
      const std::byte* row;  // of the block, in the first of the rows that are left
      int64_t pitch, lines;  // bytes from row to row; cache lines of the block in a row
      int64_t rows, line = 0;
      void Fetch(int64_t count) {
        for (; count > 0 && rows > 0; --count) {
          __builtin_prefetch(row + line * 64, 0, 2);
          if (++line < lines) continue;
          line = 0;
          row += pitch;
          --rows;
        }
      }
    };
    Ahead LookAhead(int64_t out, int64_t k) const {
      const int64_t size = DTypeSize(a.weight_dtype), count = std::min(block, a.in_features - k);
      return {static_cast<const std::byte*>(a.w) + (out * a.in_features + k) * size,
              a.in_features * size, (count * size + 63) / 64,
              std::min<int64_t>(kOuts, out_end - out)};
    }

    void Block(int64_t row, int64_t rows, int64_t k) {
      const int64_t count = std::min(block, a.in_features - k), steps = Steps<dtype>(count);
      const auto* x = static_cast<const Element<dtype>*>(a.x) + row * a.in_features + k;
      for (int64_t q = 0; q < quads; ++q) {
        PackTile<dtype, kRows>(x + q * kRows * a.in_features, a.in_features,
                               std::min<int64_t>(kRows, rows - q * kRows), count,
                               space.x + q * kQuadSize);
      }
      const bool last = k + block >= a.in_features;
      float* sums = space.sums;
      for (int64_t o = 0; o < outs; o += kOuts) {
        PackWeights(out_begin + o, k, count);
        const bool ends = o + kOuts >= outs;
        const int64_t next_k = !ends ? k : last ? 0 : k + block;
        Ahead ahead = LookAhead(out_begin + (ends ? 0 : o + kOuts), next_k);
        const int64_t lines = (ahead.rows * ahead.lines + quads - 1) / quads;
        for (int64_t q = 0; q < quads; ++q) {
          ahead.Fetch(lines);
          RunTile(space.x + q * kQuadSize, space.w, steps, k == 0, sums);
          if (last) ReduceTile(sums, outs, space.totals + q * kRows * outs + o);
          sums += 2 * kTile * kLanes;
        }
      }
    }

    void Store(int64_t row, int64_t rows) const {
      const int64_t count = out_end - out_begin;
      float* bias = nullptr;
      if (a.bias != nullptr) {
        auto* rounded = reinterpret_cast<Element<dtype>*>(space.rounded);
        WithDType(a.weight_dtype, [&]<DType from>() {
          Convert<from, dtype>(static_cast<const Element<from>*>(a.bias) + out_begin, rounded,
                               count);
        });
        bias = space.w;  // the packed weights have done their work
        Convert<dtype, DType::kF32>(rounded, bias, count);
      }
      auto* y = static_cast<Element<dtype>*>(a.y);
      for (int64_t r = 0; r < rows; ++r) {
        const float* totals = space.totals + r * outs;
        Element<dtype>* to = y + (row + r) * a.out_features + out_begin;
        for (int64_t o = 0; o < count; o += 16) {
          const int64_t n = std::min<int64_t>(16, count - o);
          V::F v = V::Load<DType::kF32>(totals + o, n);
          if (bias != nullptr) v = V::Add(v, V::Load<DType::kF32>(bias + o, n));
          V::Store<dtype>(to + o, v, n);
        }
      }
    }

    __attribute__((noinline)) void Run() {
      Prepare();
      for (int64_t row = row_begin; row < row_end; row += kRowBlock) {
        const int64_t rows = std::min(kRowBlock, row_end - row);
        quads = (rows + kRows - 1) / kRows;
        for (int64_t k = 0; k < a.in_features; k += block) Block(row, rows, k);
        Store(row, rows);
      }
    }
  };

  static void Linear(const LinearArgs& a, int64_t row_begin, int64_t row_end, int64_t out_begin,
                     int64_t out_end) {
    const FlushDenormals flush(a.dtype == DType::kBF16);
    // A piece of outputs whose sums fit into the caches.
    constexpr int64_t kPiece = 192;
    WithDType(a.dtype, [&]<DType dtype>() {
      for (int64_t out = out_begin; out < out_end; out += kPiece) {
        Call<dtype>{a, row_begin, row_end, out, std::min(out_end, out + kPiece)}.Run();
      }
    });
  }
};

void LinearRows(const LinearArgs& a, int64_t row_begin, int64_t row_end, int64_t out_begin,
                int64_t out_end) {
  const bool many = row_end - row_begin > 1;
  (many ? &PackedLinear::Linear : &Linear)(a, row_begin, row_end, out_begin, out_end);
}
