// Attention of many queries over the same keys; included behind packed_linear.h, once a source
// file. What the queries of a call read is laid out once for all of them, in words of 32 bits as in
// packed_linear.h:
//
// - Keys: a register holds one word of kPartLanes keys, so that the lanes of canonical.h are sums
//   of their own and its tree is plain additions, in the order in which it adds: no shuffles, and
//   few sums wait. [block of kPartLanes keys][lane in the order of the tree][step][key]
// - Values: words of pairs of keys, or floats. [pair, or key][column]
//
// V gives besides: kPackedQueries and kPackedBlocks (sums at once: queries by blocks of keys, a
// multiple of 16 keys), Broadcast, AddRegisters.

// pairs: bf16 stays in pairs, and one instruction multiplies two.
template <DType dtype, bool pairs>
struct PackedKeys {
  static_assert(!pairs || dtype == DType::kBF16);
  static constexpr int kLanes = V::kPartLanes, kBlocks = V::kPackedBlocks;
  static constexpr int kKeys = kLanes * kBlocks;  // at once
  static_assert(kKeys % 16 == 0);

  int64_t base = 0;  // the first key, a multiple of 32
  int64_t steps = 0, padded_d = 0;
  const float* keys = nullptr;
  const float* values = nullptr;
  float* queries = nullptr;  // of a tile, [query][step][lane]

  // Keys and values of a kv head from `first` to `end` - 1, with zeros behind them.
  void Pack(const AttentionArgs& a, const Element<dtype>* k, const Element<dtype>* v, int64_t first,
            int64_t end, int64_t queries_at_once) {
    const int64_t d = a.head_dim;
    base = first / 32 * 32;
    steps = PackedLinear::Steps<dtype, pairs>(d);
    padded_d = (d + 15) / 16 * 16;
    const int64_t blocks = (end - base + kKeys - 1) / kKeys * kBlocks;
    const int64_t row_words = steps * 16, pack_words = blocks * kLanes * row_words;
    auto* words = reinterpret_cast<float*>(Scratch<4>(
        static_cast<size_t>((pack_words + queries_at_once * row_words) * int64_t{sizeof(float)})));
    queries = words + pack_words;
    keys = words;
    for (int64_t block = 0; block < blocks; ++block) {
      const Element<dtype>* rows[kLanes] = {};
      const int64_t key = base + block * kLanes;
      for (int64_t i = 0; i < std::min<int64_t>(kLanes, end - key); ++i) {
        rows[i] = k + (key + i) * a.kv_row_stride;
      }
      LanePanels::Pack<dtype, pairs>(rows, d, steps * kLanes, kLanes,
                                     words + block * kLanes * row_words);
    }
    PackValues(a, v, end);
  }

  void PackValues(const AttentionArgs& a, const Element<dtype>* v, int64_t end) {
    const int64_t d = a.head_dim, unit = pairs ? 2 : 1;
    const int64_t rows = (end - base + unit - 1) / unit;
    auto* to = reinterpret_cast<float*>(
        Scratch<5>(static_cast<size_t>(rows * padded_d * int64_t{sizeof(float)})));
    values = to;
    for (int64_t key = base; key < end; key += unit) {
      const Element<dtype>* row = v + key * a.kv_row_stride;
      for (int64_t i = 0; i < d; i += 16, to += 16) {
        const int64_t n = std::min<int64_t>(16, d - i);
        if constexpr (pairs) {
          const auto* odd = key + 1 < end ? row + a.kv_row_stride + i : nullptr;
          const typename V::P words = V::InterleavePairs(row + i, odd, n);
          V::template Store<DType::kF32>(to, std::bit_cast<typename V::F>(words));
        } else {
          V::template Store<DType::kF32>(to, V::template Load<dtype>(row + i, n));
        }
      }
    }
  }

  // A row's words: [step][lane].
  static void PackRow(const Element<dtype>* from, int64_t d, float* to) {
    PackedLinear::PackRow<dtype, pairs>(from, d, 16, kLanes, to);
  }

  // Scores of nq queries with kKeys keys. kSteps: 0 where their number is not known.
  template <int nq, int kSteps>
  __attribute__((noinline)) void ScoreQueries(const AttentionArgs& a, const Tile<dtype>& tile,
                                              int64_t first, int64_t at) const {
    const int64_t n = kSteps > 0 ? kSteps : steps;
    const float* const of_queries = queries + first * n * 16;
    const float* const of_keys = keys + (tile.base + at - base) * n * 16;
    // Sums that wait for their neighbour in the tree, one a level.
    typename V::Register sums[5][nq][kBlocks];
    Unroll<16>([&](auto place) __attribute__((always_inline)) {
      constexpr int kWaiting = std::popcount(static_cast<unsigned>(place()));
      auto& lane = sums[kWaiting];
      UnrollGrid<nq, kBlocks>([&](auto q, auto b) __attribute__((always_inline)) {
        lane[q][b] = V::ZeroRegister();
      });
      const auto step = [&](int64_t s) __attribute__((always_inline)) {
        typename V::Register held[kBlocks];
        Unroll<kBlocks>([&](auto b) __attribute__((always_inline)) {
          auto words = V::LoadRegister(of_keys + ((b * 16 + place) * n + s) * kLanes);
          asm("" : "+v"(words));  // read once
          held[b] = words;
        });
        Unroll<nq>([&](auto q) __attribute__((always_inline)) {
          const auto x = V::Broadcast(of_queries + (q * n + s) * 16 + LanePanels::LaneAt(place));
          Unroll<kBlocks>([&](auto b) __attribute__((always_inline)) {
            lane[q][b] = V::template Step<pairs>(lane[q][b], x, held[b]);
          });
        });
      };
      for (int64_t s = 0; s < n; ++s) step(s);
      Unroll<std::countr_one(static_cast<unsigned>(place()))>([&](
          auto i) __attribute__((always_inline)) {
        UnrollGrid<nq, kBlocks>([&](auto q, auto b) __attribute__((always_inline)) {
          sums[kWaiting - 1 - i][q][b] =
              V::AddRegisters(sums[kWaiting - 1 - i][q][b], sums[kWaiting - i][q][b]);
        });
      });
      // Here and not later: g++ would keep all sixteen lanes waiting, in memory.
      constexpr int kDone = std::popcount(static_cast<unsigned>(place() + 1)) - 1;
      UnrollGrid<nq, kBlocks>([&](auto q, auto b) __attribute__((always_inline)) {
        auto& sum = sums[kDone][q][b];
        asm volatile("" : "+v"(sum));
      });
    });
    const typename V::F scale = V::Set(a.scale);
    constexpr int kWide = 16 / kLanes;  // registers of 16 keys
    Unroll<nq>([&](auto q) __attribute__((always_inline)) {
      Unroll<kBlocks / kWide>([&](auto i) __attribute__((always_inline)) {
        typename V::F dots;
        std::memcpy(&dots, &sums[0][q][i * kWide], sizeof(dots));
        dots = RoundNormal<dtype>(V::Mul(RoundNormal<dtype>(dots), scale));
        V::template Store<DType::kF32>(tile.queries[first + q].scores + at + i * 16, dots);
      });
    });
  }

  template <int kSteps>
  void ScoreTile(const AttentionArgs& a, const Tile<dtype>& tile) const {
    constexpr int kQueries = V::kPackedQueries;
    for (int64_t q = 0; q < tile.count; ++q) {
      PackRow(tile.queries[q].q, a.head_dim, queries + q * steps * 16);
    }
    for (int64_t at = 0; at < tile.end - tile.base; at += kKeys) {
      int64_t q = 0;
      for (; q + kQueries <= tile.count; q += kQueries) {
        ScoreQueries<kQueries, kSteps>(a, tile, q, at);
      }
      for (; q < tile.count; ++q) ScoreQueries<1, 0>(a, tile, q, at);
    }
  }

  // Scores of a tile, scaled and rounded. Those of hidden keys are numbers of no meaning.
  void Score(const AttentionArgs& a, const Tile<dtype>& tile) const {
    if (steps == 2) return ScoreTile<2>(a, tile);
    if (steps == 4) return ScoreTile<4>(a, tile);
    return ScoreTile<0>(a, tile);
  }

  static const float* Weights(const Query<dtype>& query) {
    if constexpr (dtype == DType::kBF16) return query.scores;  // SoftmaxKeys leaves them there
    if constexpr (dtype != DType::kBF16) return query.probs;
  }

  // AddValues for queries that see all keys from `from` to `to` - 1, both even.
  template <int nq, int chunks>
  __attribute__((noinline)) void AddValues(const Tile<dtype>& tile, int64_t first, int64_t from,
                                           int64_t to, int64_t column) const {
    const Query<dtype>* const of = tile.queries + first;
    typename V::F acc[nq][chunks];
    UnrollGrid<nq, chunks>([&](auto q, auto c) __attribute__((always_inline)) {
      acc[q][c] = V::template Load<DType::kF32>(of[q].sums + column + c * 16);
    });
    const auto load = [&](int64_t row, auto c) __attribute__((always_inline)) {
      return V::template Load<DType::kF32>(values + row * padded_d + column + c * 16);
    };
    // A key's floats.
    const auto key = [&](int64_t j) __attribute__((always_inline)) {
      typename V::F held[chunks];
      Unroll<chunks>([&](auto c) __attribute__((always_inline)) { held[c] = load(j - base, c); });
      Unroll<nq>([&](auto q) __attribute__((always_inline)) {
        const typename V::F weight = V::Set(Weights(of[q])[j - tile.base]);
        Unroll<chunks>([&](auto c) __attribute__((always_inline)) {
          acc[q][c] = V::Fma(weight, held[c], acc[q][c]);
        });
      });
    };
    for (int64_t j = from; j < to; j += 2) {
      if constexpr (pairs) {
        typename V::P held[chunks];
        Unroll<chunks>([&](auto c) __attribute__((always_inline)) {
          held[c] = std::bit_cast<typename V::P>(load((j - base) / 2, c));
        });
        Unroll<nq>([&](auto q) __attribute__((always_inline)) {
          const typename V::P weight = V::BroadcastPair(of[q].probs + (j - tile.base));
          Unroll<chunks>([&](auto c) __attribute__((always_inline)) {
            acc[q][c] = V::MulAdd(acc[q][c], weight, held[c]);
          });
        });
      } else {
        constexpr int kOddFirst = dtype == DType::kBF16 ? 1 : 0;
        key(j + kOddFirst);
        key(j + 1 - kOddFirst);
      }
    }
    UnrollGrid<nq, chunks>([&](auto q, auto c) __attribute__((always_inline)) {
      V::template Store<DType::kF32>(of[q].sums + column + c * 16, acc[q][c]);
    });
  }

  template <int nq, int chunks>
  void AddValuesOfAll(const Tile<dtype>& tile, int64_t first, int64_t from, int64_t to,
                      int64_t column) const {
    for (; first + nq <= tile.count; first += nq) {
      AddValues<nq, chunks>(tile, first, from, to, column);
    }
    if constexpr (nq > 1) AddValuesOfAll<nq / 2, chunks>(tile, first, from, to, column);
  }
};
