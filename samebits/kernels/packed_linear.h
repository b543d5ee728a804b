// Linear layers of many rows; included behind vector_kernels.h, once a source file.
//
// A tile of kRows x kOuts sums stays in registers while both operands pass by, in words of 32 bits:
// a float, or a pair of bf16 where one instruction multiplies pairs. What is stored so is read
// where it lies; rows of several blocks, and everything else, are laid out for it once a block.
// Where panels are longer than the first cache holds while rows pass by, and it is worth it
// (LinearSteps), they are cut into stretches: all rows of a block pass one before the next.
// Where 16 lanes take two registers (AVX2), a tile of whole sums would be too small: lanes
// never meet before the end, so the lower eight of all sums run over the block first, then the
// upper eight. The layout is [part of the lanes][step][row][lane]. What a tile has summed up
// waits in memory until the next block of the same sums; each lane adds its products in the order
// of canonical.h.
//
// V gives: Register (kPartLanes words), ZeroRegister, LoadRegister, StoreRegister (aligned),
// Step<pairs>(acc, x, w), Odd and Even (of P, as F), kRows x kOuts (a tile), kPackedFrom (rows;
// fewer are read as streams), kSteps, kPiece.

struct PackedLinear {
  static constexpr int kRows = V::kRows, kOuts = V::kOuts, kTile = kRows * kOuts;
  static constexpr int kLanes = V::kPartLanes, kParts = 16 / kLanes;
  static constexpr int64_t kSteps = V::kSteps;  // of a block that is packed
  static constexpr int64_t kPiece = V::kPiece;  // outputs whose sums wait in a cache
  static constexpr int64_t kTileSize = kTile * 16;
  static constexpr int64_t kFewestCut = 8 * kRows;  // rows: fewer do not pay for sums that wait

  // `count` in as few equal times of at most `most` as do, each a multiple of `unit`.
  static int64_t Even(int64_t count, int64_t most, int64_t unit) {
    const int64_t times = (count + most - 1) / most;
    return ((count + times - 1) / times + unit - 1) / unit * unit;
  }

  // Steps of `count` elements.
  template <DType dtype, bool pairs>
  static int64_t Steps(int64_t count) {
    if constexpr (pairs) return (count + 31) / 32;
    return dtype == DType::kBF16 ? (count + 31) / 32 * 2 : (count + 15) / 16;
  }

  static void StoreParts(float* to, int64_t part, const typename V::F& v) {
    typename V::Register registers[kParts];
    std::memcpy(&registers, &v, sizeof(v));
    for (int p = 0; p < kParts; ++p) V::StoreRegister(to + p * part, registers[p]);
  }
  static typename V::F LoadParts(const float* sums) {  // of a tile
    typename V::Register registers[kParts];
    for (int p = 0; p < kParts; ++p) {
      registers[p] = V::LoadRegister(sums + p * (kTileSize / kParts));
    }
    typename V::F v;
    std::memcpy(&v, &registers, sizeof(v));
    return v;
  }

  // The words of one row; a step's lie `stride` words behind those of the step before, those of
  // the next part of the lanes `part` words behind. bfloat16 as floats: the odd elements of 32,
  // then the even ones. Missing elements are 0.
  template <DType dtype, bool as_pairs, DType from_dtype = dtype>
  static void PackRow(const Element<from_dtype>* from, int64_t count, int64_t stride, int64_t part,
                      float* to) {
    static_assert(from_dtype == dtype || dtype == DType::kF32);
    if constexpr (dtype == DType::kBF16) {
      for (int64_t k = 0; k < count; k += 32) {
        const typename V::P pairs =
            k + 32 <= count ? V::LoadPairs(from + k) : V::LoadPairs(from + k, count - k);
        if constexpr (as_pairs) {
          StoreParts(to, part, std::bit_cast<typename V::F>(pairs));
          to += stride;
        } else {
          StoreParts(to, part, V::Odd(pairs));
          StoreParts(to + stride, part, V::Even(pairs));
          to += 2 * stride;
        }
      }
    } else {
      for (int64_t k = 0; k < count; k += 16, to += stride) {
        StoreParts(to, part,
                   k + 16 <= count ? V::template Load<from_dtype>(from + k)
                                   : V::template Load<from_dtype>(from + k, count - k));
      }
    }
  }

  // `rows` of `tile` rows at `from`, `pitch` elements apart; the others are 0.
  template <DType dtype, bool pairs, int tile, DType from_dtype = dtype>
  static void PackTile(const Element<from_dtype>* from, int64_t pitch, int64_t rows, int64_t count,
                       float* to) {
    const int64_t steps = Steps<dtype, pairs>(count);
    const int64_t stride = tile * kLanes, part = steps * stride;
    for (int64_t r = 0; r < tile; ++r) {
      if (r < rows) {
        PackRow<dtype, pairs, from_dtype>(from + r * pitch, count, stride, part, to + r * kLanes);
        continue;
      }
      for (int64_t s = 0; s < steps; ++s) {
        StoreParts(to + r * kLanes + s * stride, part, V::Zero());
      }
    }
  }

  // Cache lines to be fetched, some a step, into the second cache: where they lie from `base` on.
  static constexpr int kNear = -1;  // one a step, into the first cache
  struct Lines {
    const std::byte* base = nullptr;
    const int32_t* offsets = nullptr;
  };

  // What is packed, and what is multiplied where it is stored: words already, row behind row.
  enum Layout { kAllPacked, kRowsPacked, kStored };

  // One part of the lanes of a tile over the steps of a block; `sums`: [row][out][lane]. At the
  // end of whole sums (totals not null): totals[row * totals_pitch + out]. `first`: of new sums.
  // pitch: words from a stored row to the next one, of x as of w.
  template <bool pairs, Layout layout, int fetch, bool first, typename Lanes = V>
  static __attribute__((noinline)) void RunPart(const float* x, const float* w, int64_t pitch,
                                                int64_t steps, float* sums, float* totals,
                                                int64_t totals_pitch, Lines lines) {
    typename V::Register acc[kRows][kOuts];
    Unroll<kTile>([&](auto i) __attribute__((always_inline)) {
      acc[i / kOuts][i % kOuts] = first ? V::ZeroRegister() : V::LoadRegister(sums + i * kLanes);
    });
    // The rows of x that come next on their way into the first cache: some tens of cycles.
    constexpr int kAhead = 2;
    const int64_t row_pitch = layout == kStored ? pitch : kLanes;
    const int64_t out_pitch = layout == kAllPacked ? kLanes : pitch;
    constexpr int kX = layout == kStored ? 16 : kRows * kLanes;  // words of a step
    constexpr int kW = layout == kAllPacked ? kOuts * kLanes : 16;
    const auto step = [&](const float* xs, const float* ws) __attribute__((always_inline)) {
      if constexpr (fetch == kNear) __builtin_prefetch(lines.base + *lines.offsets++);
      for (int i = 0; i < fetch; ++i) __builtin_prefetch(lines.base + *lines.offsets++, 0, 2);
      typename V::Register held[kOuts];
      Unroll<kOuts>([&](auto o) __attribute__((always_inline)) {
        held[o] = V::LoadRegister(ws + o * out_pitch);
      });
      Unroll<kRows>([&](auto r) __attribute__((always_inline)) {
        if (layout == kStored || r * kLanes % 16 == 0) {
          __builtin_prefetch(xs + kAhead * kX + r * row_pitch);
        }
        const typename V::Register passing = V::LoadRegister(xs + r * row_pitch);
        Unroll<kOuts>([&](auto o) __attribute__((always_inline)) {
          acc[r][o] = V::template Step<pairs>(acc[r][o], passing, held[o]);
        });
      });
    };
    constexpr int kUnroll = 4;
    for (; steps >= kUnroll; steps -= kUnroll, x += kUnroll * kX, w += kUnroll * kW) {
      for (int i = 0; i < kUnroll; ++i) step(x + i * kX, w + i * kW);
    }
    for (; steps > 0; --steps, x += kX, w += kW) step(x, w);
    if constexpr (kParts == 1) {
      if (totals != nullptr) return Lanes::StoreTotals(acc, totals, totals_pitch);
    }
    Unroll<kTile>([&](auto i) __attribute__((always_inline)) {
      V::StoreRegister(sums + i * kLanes, acc[i / kOuts][i % kOuts]);
    });
  }

  // The trees of canonical.h for a tile whose lanes lie in several parts: likewise.
  static void ReduceTile(const float* sums, float* totals, int64_t pitch) {
    static_assert(kParts == 1 || kRows == V::kScoreSums);
    for (int o = 0; o < kOuts; ++o) {
      typename V::F v[V::kScoreSums];
      for (int r = 0; r < kRows; ++r) v[r] = LoadParts(sums + (r * kOuts + o) * kLanes);
      float of_rows[V::kScoreSums];
      V::ReduceAll(v, of_rows);
      for (int r = 0; r < kRows; ++r) totals[r * pitch + o] = of_rows[r];
    }
  }

  // The biases of `count` outputs from `out` on as floats, in `to`; null where there are none.
  template <DType dtype>
  static const float* Biases(const LinearArgs& a, int64_t out, int64_t count,
                             Element<dtype>* rounded, float* to) {
    if (a.bias == nullptr) return nullptr;
    WithDType(a.weight_dtype, [&]<DType from>() {
      Convert<from, dtype>(static_cast<const Element<from>*>(a.bias) + out, rounded, count);
    });
    Convert<dtype, DType::kF32>(rounded, to, count);
    return to;
  }

  // Outputs of a row: its sums and the biases, rounded.
  template <DType dtype>
  static void StoreRow(const float* totals, const float* bias, int64_t count, Element<dtype>* to) {
    ForSixteens(
        count, [&](int64_t o, auto... n) __attribute__((always_inline)) {
          typename V::F v = V::template Load<DType::kF32>(totals + o, n...);
          if (bias != nullptr) v = V::Add(v, V::template Load<DType::kF32>(bias + o, n...));
          if constexpr (sizeof...(n) == 0) {
            StoreNormal<dtype>(to + o, v);  // bf16 flushes denormals
          } else {
            V::template Store<dtype>(to + o, v, n...);
          }
        });
  }

  // Scratch of this thread, in floats.
  struct Space {
    float* x;        // packed rows of a row block: [block][quad]; or what is left of stored ones
    float* w;        // packed block of kOuts weight rows
    float* sums;     // lanes of all sums: [panel][quad][part][row][out][lane]
    float* totals;   // [row][piece]
    float* bias;     // of the piece
    int32_t* ahead;  // where the cache lines of a block of weights lie, from its first on
    std::byte* rounded;  // a block of weight rows, or biases, in the model's dtype
  };

  template <DType dtype, bool pairs>
  struct Call {
    const LinearArgs& a;
    int64_t row_begin, row_end, out_begin, out_end;
    Space space{};
    int64_t row_block = 0, rows = 0;  // rows at a time: all times alike, but for the last
    int64_t block = 0;                // products of a block: likewise
    int64_t stretch = 0;              // steps of a block at a time: likewise
    int64_t piece = 0;                // outputs at a time: likewise
    int64_t lines = 0;                // cache lines of a panel's stretch
    int64_t quads = 0;                // of the row block
    int64_t first_out = 0, last_out = 0, panels = 0;  // of the piece
    bool weights_stored = false;                      // they are words: whole panels are not packed
    bool stored = false;                              // nor is x, nor are panels that are not whole

    static constexpr bool kWords = pairs || dtype == DType::kF32;
    static constexpr int64_t kStepSize = pairs ? 32 : 16, kStepBytes = 64;

    void Prepare() {
      weights_stored = kWords && a.weight_dtype == dtype && a.in_features % kStepSize == 0;
      // Where the second cache holds rows as they are, they are not cut into blocks. Not so where
      // lanes have parts: each would fetch all cache lines.
      const bool whole = kParts == 1 && weights_stored;
      const int64_t all_rows = row_end - row_begin;
      const int64_t most = whole ? std::max(kSteps, LinearRowBytes(all_rows) / kStepBytes) : kSteps;
      block = Even(a.in_features, most * kStepSize, 32);
      const int64_t steps = Steps<dtype, pairs>(block);
      // Of whole panels as much at a time as the first cache holds while rows pass by. Such rows
      // come faster from one place, if there are outputs enough to pay for packing them.
      const bool cut = whole && all_rows >= kFewestCut;
      stretch = cut ? Even(steps, LinearSteps(kRows, kOuts), 4) : steps;
      const bool packing_pays = stretch < steps && out_end - out_begin >= 128;
      stored = whole && block >= a.in_features && !packing_pays;
      row_block = Even(all_rows, LinearRows(steps * kStepBytes), kRows);
      piece = Even(out_end - out_begin, kPiece, kOuts);
      const int64_t blocks = (a.in_features + block - 1) / block;
      const int64_t packed_rows = stored ? kRows : row_block;
      const int64_t tiles = piece / kOuts * (row_block / kRows);
      // Of a panel's block, as float32, and of one more tile.
      const int64_t most_lines = kOuts * (block / 16 + 1 + steps);
      const auto floats = [](int64_t n) { return static_cast<size_t>(n) * sizeof(float); };
      space.x = reinterpret_cast<float*>(Scratch<4>(floats(blocks * packed_rows * steps * 16)));
      space.w = reinterpret_cast<float*>(Scratch<5>(floats(kOuts * steps * 16)));
      space.sums = reinterpret_cast<float*>(Scratch<6>(floats(tiles * kTileSize)));
      space.totals = reinterpret_cast<float*>(Scratch<7>(floats(tiles * kTile)));
      space.bias = reinterpret_cast<float*>(Scratch<8>(floats(piece)));
      space.ahead = reinterpret_cast<int32_t*>(Scratch<9>(floats(most_lines)));
      space.rounded = Scratch<0>(floats(kOuts * block + piece + 16));
      PlanFetches(most_lines);
    }

    float* PackedRows(int64_t k) const { return space.x + k / block * quads * QuadSize(block); }

    // Words of a packed quad, one part of them behind the other: no more than its steps take, so
    // that quads do not all begin in the same sets of the caches.
    static int64_t QuadSize(int64_t count) { return kRows * Steps<dtype, pairs>(count) * 16; }

    // Whole quads or panels of stored rows stay where they are, the rest gets rows of zeros.
    static const float* Padded(const Element<dtype>* from, int64_t size, int64_t count,
                               int64_t wanted, float* to) {
      if (count >= wanted) return reinterpret_cast<const float*>(from);
      const size_t bytes = static_cast<size_t>(size) * sizeof(*from);
      std::memcpy(to, from, static_cast<size_t>(count) * bytes);
      std::memset(reinterpret_cast<std::byte*>(to) + static_cast<size_t>(count) * bytes, 0,
                  static_cast<size_t>(wanted - count) * bytes);
      return to;
    }

    const Element<dtype>* RowAt(int64_t row) const {
      return static_cast<const Element<dtype>*>(a.x) + row * a.in_features;
    }

    void PackRows(int64_t row) const {
      const Element<dtype>* x = RowAt(row);
      if (stored) {
        const int64_t whole = rows / kRows * kRows;
        if (whole < rows)
          Padded(x + whole * a.in_features, a.in_features, rows - whole, kRows, space.x);
        return;
      }
      for (int64_t k = 0; k < a.in_features; k += block) {
        const int64_t count = std::min(block, a.in_features - k);
        for (int64_t q = 0; q < quads; ++q) {
          PackTile<dtype, pairs, kRows>(x + q * kRows * a.in_features + k, a.in_features,
                                        std::min<int64_t>(kRows, rows - q * kRows), count,
                                        PackedRows(k) + q * QuadSize(count));
        }
      }
    }

    void PackWeights(int64_t out, int64_t k, int64_t count) const {
      const int64_t outs = std::min<int64_t>(last_out - out, kOuts);
      WithDType(a.weight_dtype, [&]<DType from>() {
        const auto* w = static_cast<const Element<from>*>(a.w) + out * a.in_features + k;
        if constexpr (from == dtype || dtype == DType::kF32) {  // widened, or as it is
          return PackTile<dtype, pairs, kOuts, from>(w, a.in_features, outs, count, space.w);
        }
        auto* rounded = reinterpret_cast<Element<dtype>*>(space.rounded);
        for (int64_t o = 0; o < outs; ++o) {
          Convert<from, dtype>(w + o * a.in_features, rounded + o * count, count);
        }
        PackTile<dtype, pairs, kOuts>(rounded, count, outs, count, space.w);
      });
    }

    // Where the cache lines of a panel's stretch lie, one a step.
    void PlanFetches(int64_t most_lines) {
      const int64_t size = DTypeSize(a.weight_dtype);
      const int64_t row_lines = (std::min(stretch * kStepSize, a.in_features) * size + 63) / 64;
      for (int64_t o = 0; o < kOuts; ++o) {
        for (int64_t i = 0; i < row_lines; ++i) {
          space.ahead[lines++] = static_cast<int32_t>(o * a.in_features * size + i * 64);
        }
      }
      std::fill(space.ahead + lines, space.ahead + most_lines, 0);
    }
    const std::byte* WeightsAt(int64_t out, int64_t k) const {
      return static_cast<const std::byte*>(a.w) +
             (out * a.in_features + k) * DTypeSize(a.weight_dtype);
    }

    // The panel of weights from `out` on: where it lies, and how.
    struct Panel {
      const float* at;
      Layout layout;
    };
    Panel PanelAt(int64_t out, int64_t k, int64_t count) const {
      const int64_t outs = std::min<int64_t>(last_out - out, kOuts);
      if constexpr (kWords) {
        const auto* from = reinterpret_cast<const Element<dtype>*>(WeightsAt(out, k));
        if (stored) return {Padded(from, a.in_features, outs, kOuts, space.w), kStored};
        if (weights_stored && outs == kOuts) {
          return {reinterpret_cast<const float*>(from), kRowsPacked};
        }
      }
      PackWeights(out, k, count);
      return {space.w, kAllPacked};
    }

    // The rows of the quad q, which begins at `row`.
    const float* QuadAt(int64_t row, int64_t q, int64_t k, int64_t count) const {
      if (!stored) return PackedRows(k) + q * QuadSize(count);
      if ((q + 1) * kRows > rows) return space.x;
      return reinterpret_cast<const float*>(RowAt(row + q * kRows));
    }

    void Block(int64_t row, int64_t k) const {
      const int64_t count = std::min(block, a.in_features - k);
      const int64_t steps = Steps<dtype, pairs>(count);
      const bool last = k + block >= a.in_features;
      for (int64_t p = 0; p < panels; ++p) {
        const int64_t out = first_out + p * kOuts;
        const Panel panel = PanelAt(out, k, count);
        // Sums that are complete at once need no place of their own.
        float* const sums = space.sums + (k == 0 && last ? 0 : p * quads * kTileSize);
        for (int64_t s = 0; s < steps; s += stretch) {
          const bool ends = s + stretch >= steps, all_end = ends && p + 1 == panels;
          const std::byte* next = !ends      ? WeightsAt(out, k + (s + stretch) * kStepSize)
                                  : !all_end ? WeightsAt(out + kOuts, k)
                                             : WeightsAt(first_out, last ? 0 : k + block);
          Stretch(row, k, count, s, panel, next, sums,
                  last && ends ? space.totals + p * kOuts : nullptr);
        }
      }
    }

    // The steps of a panel's block from `begin` on, for all rows. `next`: the weights of the next
    // one. totals not null: the sums end here.
    inline __attribute__((always_inline)) void Stretch(int64_t row, int64_t k, int64_t count,
                                                       int64_t begin, const Panel& panel,
                                                       const std::byte* next, float* sums,
                                                       float* totals) const {
      const int64_t block_steps = Steps<dtype, pairs>(count);
      const int64_t steps = std::min(stretch, block_steps - begin);
      const int64_t pitch = a.in_features * DTypeSize(dtype) / int64_t{sizeof(float)};
      const int64_t of_row = panel.layout == kStored ? kLanes : kRows * block_steps * kLanes;
      const int64_t of_out = panel.layout == kAllPacked ? kOuts * block_steps * kLanes : kLanes;
      const float* const w = panel.at + begin * (panel.layout == kAllPacked ? kOuts * kLanes : 16);
      const int64_t x_begin = begin * (panel.layout == kStored ? 16 : kRows * kLanes);
      // The first tiles fetch the next weights into the second cache: one line a step, or more
      // where there are too few tiles for that. Until they are needed some are gone again, so the
      // last tiles fetch them once more, into the first cache.
      const int64_t all_steps = quads * kParts * steps;
      const int64_t a_step = all_steps >= lines ? 1 : 2 * all_steps >= lines ? 2 : kOuts;
      const int64_t again = all_steps >= 2 * lines ? all_steps - lines : all_steps;
      int64_t done = 0;  // steps
      // Lanes in several parts: a tile is reduced while the next one is summed up.
      const auto reduce = [&](int64_t q) {
        if (kParts == 1 || totals == nullptr || q < 0) return;
        ReduceTile(sums + q * kTileSize, totals + q * kRows * piece, piece);
      };
      for (int64_t q = 0; q < quads; ++q) {
        const float* const x = QuadAt(row, q, k, count) + x_begin;
        float* const tile = sums + q * kTileSize;
        float* const to = totals == nullptr ? nullptr : totals + q * kRows * piece;
        for (int64_t part = 0; part < kParts; ++part, done += steps) {
          int64_t fetches = 0, line = 0;
          if (done >= again) {
            fetches = kNear;
            line = done - again;
          } else if (done * a_step < lines) {
            fetches = a_step;
            line = done * a_step;
          }
          Part(panel.layout, k == 0 && begin == 0, fetches)(
              x + part * of_row, w + part * of_out, pitch, steps,
              tile + part * (kTileSize / kParts), to, piece, {next, space.ahead + line});
          if (part == 0) reduce(q - 1);
        }
      }
      reduce(quads - 1);
    }

    static auto Part(Layout layout, bool first, int64_t fetches) {
      const auto chosen = [&]<Layout of, int fetch>() {
        return first ? RunPart<pairs, of, fetch, true> : RunPart<pairs, of, fetch, false>;
      };
      const auto with = [&]<int fetch>() {
        if constexpr (kWords) {
          if (layout == kStored) return chosen.template operator()<kStored, fetch>();
          if (layout == kRowsPacked) return chosen.template operator()<kRowsPacked, fetch>();
        }
        return chosen.template operator()<kAllPacked, fetch>();
      };
      if (fetches == kNear) return with.template operator()<kNear>();
      if (fetches == 0) return with.template operator()<0>();
      if (fetches == 1) return with.template operator()<1>();
      if (fetches == 2) return with.template operator()<2>();
      return with.template operator()<kOuts>();
    }

    void Store(int64_t row) const {
      const int64_t count = last_out - first_out;
      const float* const bias = Biases<dtype>(
          a, first_out, count, reinterpret_cast<Element<dtype>*>(space.rounded), space.bias);
      for (int64_t r = 0; r < rows; ++r) {
        StoreRow<dtype>(space.totals + r * piece, bias, count,
                        static_cast<Element<dtype>*>(a.y) + (row + r) * a.out_features + first_out);
      }
    }

    __attribute__((noinline)) void Run() {
      Prepare();
      for (int64_t row = row_begin; row < row_end; row += row_block) {
        rows = std::min(row_block, row_end - row);
        quads = (rows + kRows - 1) / kRows;
        PackRows(row);
        for (first_out = out_begin; first_out < out_end; first_out = last_out) {
          last_out = std::min(out_end, first_out + piece);
          panels = (last_out - first_out + kOuts - 1) / kOuts;
          for (int64_t k = 0; k < a.in_features; k += block) Block(row, k);
          Store(row);
        }
      }
    }
  };
};

// pairs: bf16 stays in pairs, and one instruction multiplies two.
template <bool pairs>
void Linear(const LinearArgs& a, int64_t row_begin, int64_t row_end, int64_t out_begin,
            int64_t out_end) {
  if (row_begin >= row_end || out_begin >= out_end) return;
  const FlushDenormals flush(a.dtype == DType::kBF16);
  WithDType(a.dtype, [&]<DType dtype>() {
    if (row_end - row_begin < V::kPackedFrom) {
      return LinearFewRows<dtype>(a, row_begin, row_end, out_begin, out_end);
    }
    constexpr bool kPairs = pairs && dtype == DType::kBF16;
    PackedLinear::Call<dtype, kPairs>{a, row_begin, row_end, out_begin, out_end}.Run();
  });
}
