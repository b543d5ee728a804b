// Linear layers of many rows of bf16 in pairs; included behind lane_panels.h, by an instruction set
// that multiplies pairs, for operands that are whole words where they lie.
//
// Weights are laid out as columns (lane_panels.h), a panel of kOuts outputs at a time:
// [place][step][output]. Words of x are read where they lie, each one for all outputs of a panel. A
// tile of kRows x kOuts sums runs over one lane after the other: the lane's products, then those
// additions of the tree that it completes. Sums that wait for their neighbour wait in the first
// cache, as do the rows of a tile; longer rows are cut into blocks, between which all lanes of the
// sums wait in the second. While a panel is multiplied, the weights of the next one are fetched
// there.

struct PanelLinear {
  static constexpr int kRows = 6, kRegisters = 4, kLanes = V::kPartLanes;
  static constexpr int64_t kOuts = kRegisters * kLanes;
  static constexpr int64_t kTileSize = kRows * kOuts;  // floats
  static constexpr int64_t kStepSize = 32;             // elements
  static constexpr int64_t kSteps = 64;                // of kRows rows in the first cache
  static constexpr int64_t kBlockRows = 258;           // whose lanes wait in the second cache
  static constexpr int64_t kFewestRows = 48;           // fewer do not pay for laying out weights

  // Whether it pays to multiply so many of the rows this way, and can be done.
  static bool Takes(const LinearArgs& a, int64_t rows) {
    return FirstCacheHoldsPanels() && rows >= kFewestRows && a.dtype == DType::kBF16 &&
           a.weight_dtype == DType::kBF16 && a.in_features % kStepSize == 0;
  }

  // Cache lines of weights to be fetched into the second cache, some a lane.
  struct Fetch {
    const std::byte* at;
    int64_t pitch, lines_of_row, lines, a_lane;
    int64_t line = 0;  // of the row

    void Some() {
      const int64_t end = std::max<int64_t>(0, lines - a_lane);
      for (; lines > end; --lines) {
        __builtin_prefetch(at + line * 64, 0, 2);
        if (++line < lines_of_row) continue;
        line = 0;
        at += pitch;
      }
    }
  };

  // Floats of a place: places do not all begin in the same sets of the caches.
  static constexpr int64_t PlaceSize(int64_t steps) { return steps * kOuts + 16; }

  // Words of a tile over the steps of a block. All lanes of its sums, [place][row][output]: as they
  // were before this block (null: it is the first), and room for them behind it (null: it is the
  // last). totals: [row][output], of the last. waiting: room for 4 tiles.
  static __attribute__((noinline)) void RunTile(const float* const (&rows)[kRows],
                                                const float* panel, int64_t steps,
                                                const float* before, float* behind, float* waiting,
                                                float* totals, Fetch& fetch) {
    Unroll<16>([&](auto place) __attribute__((always_inline)) {
      fetch.Some();
      typename V::Register acc[kRows][kRegisters];
      UnrollGrid<kRows, kRegisters>([&](auto r, auto o) __attribute__((always_inline)) {
        acc[r][o] = V::ZeroRegister();
      });
      if (before != nullptr) {
        UnrollGrid<kRows, kRegisters>([&](auto r, auto o) __attribute__((always_inline)) {
          acc[r][o] = V::LoadRegister(before + place * kTileSize + (r * kRegisters + o) * kLanes);
        });
      }
      const float* w = panel + place * PlaceSize(steps);
      constexpr int kLane = LanePanels::LaneAt(place);
      for (int64_t at = kLane; at < steps * 16; at += 16, w += kOuts) {
        typename V::Register held[kRegisters];
        Unroll<kRegisters>([&](auto o) __attribute__((always_inline)) {
          auto words = V::LoadRegister(w + o * kLanes);
          asm("" : "+v"(words));  // read once
          held[o] = words;
        });
        Unroll<kRows>([&](auto r) __attribute__((always_inline)) {
          const auto x = V::Broadcast(rows[r] + at);
          Unroll<kRegisters>([&](auto o) __attribute__((always_inline)) {
            acc[r][o] = V::template Step<true>(acc[r][o], x, held[o]);
          });
        });
      }
      if (behind != nullptr) {
        UnrollGrid<kRows, kRegisters>([&](auto r, auto o) __attribute__((always_inline)) {
          V::StoreRegister(behind + place * kTileSize + (r * kRegisters + o) * kLanes, acc[r][o]);
        });
      } else {
        constexpr int kWaiting = std::popcount(static_cast<unsigned>(place()));
        constexpr int kEnding = std::countr_one(static_cast<unsigned>(place()));
        UnrollGrid<kRows, kRegisters>([&](auto r, auto o) __attribute__((always_inline)) {
          const int64_t at = (r * kRegisters + o) * kLanes;
          typename V::Register sum = acc[r][o];
          Unroll<kEnding>([&](auto i) __attribute__((always_inline)) {
            const auto other = V::LoadRegister(waiting + (kWaiting - 1 - i) * kTileSize + at);
            sum = V::AddRegisters(other, sum);
          });
          V::StoreRegister(
              place == 15 ? totals + at : waiting + (kWaiting - kEnding) * kTileSize + at, sum);
        });
      }
      asm volatile("" : : : "memory");  // one lane behind the other
    });
  }

  // What a panel has: outputs, and inputs of them.
  struct Part {
    int64_t out, outs, k, count;
    int64_t steps() const { return count / kStepSize; }
  };

  const LinearArgs& a;
  int64_t row_begin, row_end, out_begin, out_end;
  int64_t block = 0, blocks = 0, row = 0, rows = 0;
  float *panel = nullptr, *sums = nullptr, *waiting = nullptr, *totals = nullptr, *bias = nullptr;

  // The part of that number; behind the last one those of the outputs that follow: most likely
  // whoever is through here goes on with them.
  Part PartAt(int64_t index) const {
    const int64_t out = out_begin + index / blocks * kOuts, k = index % blocks * block;
    const int64_t end = out < out_end ? out_end : a.out_features;
    return {out, std::clamp<int64_t>(end - out, 0, kOuts), k, std::min(block, a.in_features - k)};
  }
  const uint16_t* WeightsAt(int64_t out, int64_t k) const {
    return static_cast<const uint16_t*>(a.w) + out * a.in_features + k;
  }
  const float* WordsAt(int64_t r, int64_t k) const {
    return reinterpret_cast<const float*>(static_cast<const uint16_t*>(a.x) +
                                          (row + r) * a.in_features + k);
  }

  void PackPanel(const Part& part) const {
    for (int64_t first = 0; first < kOuts; first += kLanes) {
      const uint16_t* of_outs[kLanes] = {};
      for (int64_t i = 0; i < std::min<int64_t>(kLanes, part.outs - first); ++i) {
        of_outs[i] = WeightsAt(part.out + first + i, part.k);
      }
      LanePanels::Pack<DType::kBF16, true>(of_outs, part.count, PlaceSize(part.steps()), kOuts,
                                           panel + first);
    }
  }

  void RunPart(int64_t index) const {
    const Part part = PartAt(index), next = PartAt(index + 1);
    const bool first = part.k == 0, last = part.k + part.count == a.in_features;
    PackPanel(part);
    uint16_t halves[kOuts];
    const float* const biases =
        last ? PackedLinear::Biases<DType::kBF16>(a, part.out, part.outs, halves, bias) : nullptr;
    const int64_t tiles = (rows + kRows - 1) / kRows, lines = (next.count * 2 + 63) / 64;
    Fetch fetch = {reinterpret_cast<const std::byte*>(WeightsAt(next.out, next.k)),
                   a.in_features * 2, lines, next.outs * lines,
                   (next.outs * lines + tiles * 16 - 1) / (tiles * 16)};
    for (int64_t tile = 0; tile < tiles; ++tile) {
      const float* of_tile[kRows];  // behind the last row that again: not looked at
      for (int64_t r = 0; r < kRows; ++r) {
        of_tile[r] = WordsAt(std::min(rows - 1, tile * kRows + r), part.k);
      }
      float* const of_sums = blocks > 1 ? sums + tile * 16 * kTileSize : nullptr;
      RunTile(of_tile, panel, part.steps(), first ? nullptr : of_sums, last ? nullptr : of_sums,
              waiting, totals, fetch);
      if (!last) continue;
      for (int64_t r = 0; r < std::min<int64_t>(kRows, rows - tile * kRows); ++r) {
        PackedLinear::StoreRow<DType::kBF16>(
            totals + r * kOuts, biases, part.outs,
            static_cast<uint16_t*>(a.y) + (row + tile * kRows + r) * a.out_features + part.out);
      }
    }
  }

  __attribute__((noinline)) void Run() {
    const FlushDenormals flush(true);
    block = PackedLinear::Even(a.in_features, kSteps * kStepSize, kStepSize);
    blocks = (a.in_features + block - 1) / block;
    const int64_t row_block = PackedLinear::Even(row_end - row_begin, kBlockRows, kRows);
    const auto room = [&]<int slot>(int64_t n) {
      return reinterpret_cast<float*>(Scratch<slot>(static_cast<size_t>(n) * sizeof(float)));
    };
    panel = room.template operator()<5>(16 * PlaceSize(block / kStepSize));
    if (blocks > 1) sums = room.template operator()<6>(row_block / kRows * 16 * kTileSize);
    waiting = room.template operator()<7>(5 * kTileSize);
    totals = waiting + 4 * kTileSize;
    bias = room.template operator()<8>(kOuts);
    const int64_t parts = (out_end - out_begin + kOuts - 1) / kOuts * blocks;
    for (row = row_begin; row < row_end; row += row_block) {
      rows = std::min(row_block, row_end - row);
      for (int64_t index = 0; index < parts; ++index) RunPart(index);
    }
  }
};
