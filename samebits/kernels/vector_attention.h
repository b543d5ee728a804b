// Attention of canonical arithmetic over 16 fp32 lanes; included behind vector_kernels.h, once a
// source file. Queries that look at the same keys and values (the heads of a group, and rows next
// to one another) form a tile and share what is read. Where a call has many, keys and values are
// laid out for them first (packed_attention.h). Scratch is a few floats a key for each thread: the
// scores of a tile, never those of a whole prompt, and the keys and values of one head. Left out:
// how rows are shared between threads.

template <DType dtype, bool pairs>
struct PackedKeys;

// Probabilities wait in bf16 where they are broadcast in pairs, and as rounded floats otherwise.
template <DType dtype>
using Prob = std::conditional_t<dtype == DType::kBF16, uint16_t, float>;

template <DType dtype>
struct Query {
  const Element<dtype>* q;
  int64_t row, head;
  int64_t begin, end;  // sees the keys begin .. end - 1
  float* scores;       // of the keys from the tile's base on, room for a multiple of 16
  Prob<dtype>* probs;  // likewise
  float* sums;         // of the context, [head_dim], room for a multiple of 16
};

// What a tile reads. base: a multiple of 16, so that lanes are those of the keys' numbers.
template <DType dtype>
struct Tile {
  static constexpr int64_t kQueries = 32;
  Query<dtype> queries[kQueries];
  int64_t count = 0;
  int64_t base = 0, end = 0;
  const Element<dtype>* k = nullptr;
  const Element<dtype>* v = nullptr;
};

// nq x nk dot products in the order of canonical.h.
template <DType dtype, int nq, int nk>
inline __attribute__((always_inline)) void ScoreDots(const Query<dtype>* queries,
                                                     const Element<dtype>* const (&keys)[nk],
                                                     int64_t d, float* sums) {
  typename V::F acc[nq * nk];
  Unroll<nq * nk>([&](auto i) __attribute__((always_inline)) { acc[i] = V::Zero(); });
  const auto step = [&](int64_t i, auto load) __attribute__((always_inline)) {
    decltype(load(keys[0])) xs[nq];
    Unroll<nq>([&](auto q) __attribute__((always_inline)) { xs[q] = load(queries[q].q + i); });
    Unroll<nk>([&](auto j) __attribute__((always_inline)) {
      const auto key = load(keys[j] + i);
      Unroll<nq>([&](auto q) __attribute__((always_inline)) {
        acc[q * nk + j] = V::MulAdd(acc[q * nk + j], xs[q], key);
      });
    });
  };
  constexpr int64_t kStep = dtype == DType::kBF16 ? 32 : 16;
  const int64_t whole = d / kStep * kStep;
  for (int64_t i = 0; i < whole; i += kStep) {
    step(
        i, [](const Element<dtype>* p) __attribute__((always_inline)) {
          if constexpr (dtype == DType::kBF16) {
            return V::LoadPairs(p);
          } else {
            return V::template Load<dtype>(p);
          }
        });
  }
  if (whole < d) {
    const int64_t rest = d - whole;
    step(
        whole, [rest](const Element<dtype>* p) __attribute__((always_inline)) {
          if constexpr (dtype == DType::kBF16) {
            return V::LoadPairs(p, rest);
          } else {
            return V::template Load<dtype>(p, rest);
          }
        });
  }
  V::ReduceAll(acc, sums);
}

// Dot products of the queries from `first` on with 16 keys, nq queries at a time.
template <DType dtype, int nq>
void ScoreQueries(const AttentionArgs& a, const Tile<dtype>& tile, int64_t first, int64_t at) {
  constexpr int nk = V::kScoreSums / nq;
  for (; first + nq <= tile.count; first += nq) {
    for (int64_t j = at; j < at + 16; j += nk) {
      const Element<dtype>* keys[nk];
      for (int i = 0; i < nk; ++i) {  // behind the last key the last one again: never looked at
        keys[i] = tile.k + std::min(tile.base + j + i, tile.end - 1) * a.kv_row_stride;
      }
      float sums[nq * nk];
      ScoreDots<dtype, nq, nk>(tile.queries + first, keys, a.head_dim, sums);
      for (int q = 0; q < nq; ++q) {
        std::memcpy(tile.queries[first + q].scores + j, sums + q * nk, nk * sizeof(float));
      }
    }
  }
  if constexpr (nq > 1) ScoreQueries<dtype, nq / 2>(a, tile, first, at);
}

// Scores of a tile, scaled and rounded. Those of hidden keys are numbers of no meaning.
template <DType dtype>
void ScoreTile(const AttentionArgs& a, const Tile<dtype>& tile) {
  const typename V::F scale = V::Set(a.scale);
  for (int64_t at = 0; at < tile.end - tile.base; at += 16) {
    ScoreQueries<dtype, V::kScoreQueries>(a, tile, 0, at);
    for (int64_t q = 0; q < tile.count; ++q) {
      float* scores = tile.queries[q].scores + at;
      const typename V::F dots = RoundNormal<dtype>(V::template Load<DType::kF32>(scores));
      V::template Store<DType::kF32>(scores, RoundNormal<dtype>(V::Mul(dots, scale)));
    }
  }
}

// The largest of the keys that a query sees; NaN is larger than nothing. The sign of a zero may
// differ from the interpreter's, which makes no difference to exp(s - max).
template <DType dtype>
float LargestScore(const Query<dtype>& query, int64_t base) {
  const float* scores = query.scores + (query.begin - base);
  const int64_t count = query.end - query.begin, whole = count / 16 * 16;
  typename V::F lanes =
      V::LoadOver(scores + whole, count - whole, -std::numeric_limits<float>::infinity());
  lanes = V::Max(lanes, V::Set(-std::numeric_limits<float>::infinity()));
  for (int64_t j = 0; j < whole; j += 16) {
    lanes = V::Max(V::template Load<DType::kF32>(scores + j), lanes);
  }
  return V::Largest(lanes);
}

// exp(score - top) in place of the scores, 0 for hidden keys of the tile before the first visible
// one; their sum.
template <DType dtype>
float ExpScores(const Query<dtype>& query, int64_t base, float top) {
  const int64_t hidden = query.begin - base, count = query.end - base;
  float* e = query.scores;
  const typename V::F shift = V::Set(-top);
  typename V::F sums = V::Zero();
  std::fill(e, e + hidden / 16 * 16, 0.0F);
  for (int64_t j = hidden / 16 * 16; j < count; j += 16) {
    typename V::F powers = V::Exp(V::Add(V::template Load<DType::kF32>(e + j), shift));
    V::template Store<DType::kF32>(e + j, powers);
    if (j < hidden || j + 16 > count) {  // some of them are not seen
      std::fill(e + j, e + std::max(j, hidden), 0.0F);
      powers = V::template Load<DType::kF32>(e + j, std::min<int64_t>(16, count - j));
    }
    sums = V::Add(sums, powers);
  }
  return V::Reduce(sums);
}

// probs = round(exps * (1 / sum)), and where bf16 is not multiplied in pairs the same in floats, in
// place of the exps. The key behind an odd last one gets 0.
template <DType dtype, bool pairs>
void NormalizeScores(const Query<dtype>& query, int64_t base, float sum) {
  const int64_t count = query.end - base;
  float* e = query.scores;
  const typename V::F inverse = V::Set(1.0F / sum);
  for (int64_t j = 0; j < count; j += 16) {
    const typename V::F p = V::Mul(V::template Load<DType::kF32>(e + j), inverse);
    if constexpr (dtype == DType::kBF16) {
      StoreNormal<dtype>(query.probs + j, p);
      if constexpr (!pairs) V::template Store<DType::kF32>(e + j, RoundNormal<dtype>(p));
    } else {
      V::template Store<DType::kF32>(query.probs + j, V::template Round<dtype>(p));
    }
  }
  std::fill(query.probs, query.probs + (query.begin - base), Prob<dtype>{0});  // even if sum is NaN
  if (count % 2 != 0) query.probs[count] = 0;
}

// The softmax of a tile's scores. Queries go through its passes together, as many as have their
// scores in the first cache, so that none waits for the reductions of another.
template <DType dtype, bool pairs>
void SoftmaxTile(const Tile<dtype>& tile) {
  constexpr int64_t kFloats = 4096;
  const int64_t at_once = std::max<int64_t>(1, kFloats / (tile.end - tile.base));
  for (int64_t first = 0; first < tile.count; first += at_once) {
    const int64_t last = std::min(tile.count, first + at_once);
    float of_query[Tile<dtype>::kQueries];
    for (int64_t q = first; q < last; ++q) {
      of_query[q] = LargestScore(tile.queries[q], tile.base);
    }
    for (int64_t q = first; q < last; ++q) {
      of_query[q] = ExpScores(tile.queries[q], tile.base, of_query[q]);
    }
    for (int64_t q = first; q < last; ++q) {
      NormalizeScores<dtype, pairs>(tile.queries[q], tile.base, of_query[q]);
    }
  }
}

// Adds probs times values of the keys from .. to - 1 to the sums of nq queries, for 16 * chunks
// columns, the last 16 of them only as far as `width`. `from` is even; with one query, keys that it
// does not see count as 0, with several all see all.
template <DType dtype, int nq, int chunks>
void AddValues(const AttentionArgs& a, const Tile<dtype>& tile, int64_t first, int64_t from,
               int64_t to, int64_t column, int64_t width) {
  const Query<dtype>* queries = tile.queries + first;
  typename V::F acc[nq][chunks];
  UnrollGrid<nq, chunks>([&](auto q, auto c) __attribute__((always_inline)) {
    acc[q][c] = V::template Load<DType::kF32>(queries[q].sums + column + c * 16);
  });
  const auto n = [width](int c) { return c + 1 == chunks ? width : int64_t{16}; };
  const int64_t stride = a.kv_row_stride;
  const Element<dtype>* v = tile.v + column;
  if constexpr (dtype == DType::kBF16) {
    for (int64_t j = from; j < to; j += 2) {
      const uint16_t* even = v + j * stride;
      const uint16_t* odd = even + stride;
      const bool has_even = nq > 1 || j >= queries[0].begin;
      const bool has_odd = nq > 1 || j + 1 < queries[0].end;
      typename V::P values[chunks];
      Unroll<chunks>([&](auto c) __attribute__((always_inline)) {
        values[c] = V::InterleavePairs(has_even ? even + c * 16 : nullptr,
                                       has_odd ? odd + c * 16 : nullptr, n(c));
      });
      UnrollGrid<nq, chunks>([&](auto q, auto c) __attribute__((always_inline)) {
        const typename V::P pair = V::BroadcastPair(queries[q].probs + (j - tile.base));
        acc[q][c] = V::MulAdd(acc[q][c], pair, values[c]);
      });
    }
  } else {
    if constexpr (nq == 1) {
      from = std::max(from, queries[0].begin);
      to = std::min(to, queries[0].end);
    }
    for (int64_t j = from; j < to; ++j) {
      typename V::F values[chunks];
      Unroll<chunks>([&](auto c) __attribute__((always_inline)) {
        values[c] = V::template Load<dtype>(v + j * stride + c * 16, n(c));
      });
      UnrollGrid<nq, chunks>([&](auto q, auto c) __attribute__((always_inline)) {
        const typename V::F weight = V::Set(queries[q].probs[j - tile.base]);
        acc[q][c] = V::Fma(weight, values[c], acc[q][c]);
      });
    }
  }
  UnrollGrid<nq, chunks>([&](auto q, auto c) __attribute__((always_inline)) {
    V::template Store<DType::kF32>(queries[q].sums + column + c * 16, acc[q][c], 16);
  });
}

// All queries from `first` on, nq at a time.
template <DType dtype, int nq, int chunks>
void AddValuesOfAll(const AttentionArgs& a, const Tile<dtype>& tile, int64_t first, int64_t from,
                    int64_t to, int64_t column, int64_t width) {
  for (; first + nq <= tile.count; first += nq) {
    AddValues<dtype, nq, chunks>(a, tile, first, from, to, column, width);
  }
  if constexpr (nq > 1) {
    AddValuesOfAll<dtype, nq / 2, chunks>(a, tile, first, from, to, column, width);
  }
}

// The chains over the keys for 16 * chunks columns: first what not all queries see, each alone,
// then what all see, together, then the rest.
template <DType dtype, bool pairs, int chunks>
void ContextColumns(const AttentionArgs& a, const Tile<dtype>& tile,
                    const PackedKeys<dtype, pairs>* packed, int64_t column, int64_t width) {
  constexpr int64_t kKeys = 128;  // values that stay in the first-level cache
  int64_t from = 0, to = tile.end;
  for (int64_t q = 0; q < tile.count; ++q) {
    from = std::max(from, (tile.queries[q].begin + 1) / 2 * 2);
    to = std::min(to, tile.queries[q].end / 2 * 2);
  }
  to = std::max(from, to);
  for (int64_t q = 0; q < tile.count; ++q) {
    const int64_t begin = tile.queries[q].begin / 2 * 2, end = std::min(from, tile.queries[q].end);
    if (begin < end) AddValues<dtype, 1, chunks>(a, tile, q, begin, end, column, width);
  }
  for (int64_t j = from; j < to; j += kKeys) {
    const int64_t end = std::min(to, j + kKeys);
    if (packed != nullptr) {
      packed->template AddValuesOfAll<V::kContextQueries, chunks>(tile, 0, j, end, column);
    } else {
      AddValuesOfAll<dtype, V::kContextQueries, chunks>(a, tile, 0, j, end, column, width);
    }
  }
  for (int64_t q = 0; q < tile.count; ++q) {
    const int64_t begin = std::max(to, tile.queries[q].begin / 2 * 2), end = tile.queries[q].end;
    if (begin < end) AddValues<dtype, 1, chunks>(a, tile, q, begin, end, column, width);
  }
}

// A row of scores or probs as the trace has it; values: those of the keys from `base` on.
template <DType dtype, typename T>
void RecordRow(const AttentionArgs& a, const Query<dtype>& query, void* target, const T* values,
               int64_t base) {
  if (target == nullptr) return;
  using E = Element<dtype>;
  const int64_t keys = a.first_key_count + a.rows - 1;
  E* to = static_cast<E*>(target) + (query.head * a.rows + query.row) * keys;
  std::memset(to, 0, static_cast<size_t>(keys) * sizeof(E));
  const int64_t count = query.end - query.begin;
  if constexpr (std::is_same_v<T, E>) {
    std::memcpy(to + query.begin, values + (query.begin - base),
                static_cast<size_t>(count) * sizeof(E));
  } else {
    Convert<DType::kF32, dtype>(values + (query.begin - base), to + query.begin, count);
  }
}

// packed: null, or what the keys of the tile are part of.
template <DType dtype, bool pairs>
__attribute__((noinline)) void AttentionTile(const AttentionArgs& a, Tile<dtype>& tile,
                                             const PackedKeys<dtype, pairs>* packed) {
  using E = Element<dtype>;
  const int64_t d = a.head_dim, padded_d = (d + 15) / 16 * 16;
  tile.base = tile.queries[0].begin;
  tile.end = 0;
  for (int64_t q = 0; q < tile.count; ++q) {
    tile.base = std::min(tile.base, tile.queries[q].begin);
    tile.end = std::max(tile.end, tile.queries[q].end);
  }
  tile.base = tile.base / 32 * 32;
  const int64_t keys = (tile.end - tile.base + 31) / 32 * 32;
  const auto bytes = [&tile](int64_t n, size_t size) {
    return static_cast<size_t>(tile.count * n) * size;
  };
  auto* scores = reinterpret_cast<float*>(Scratch<1>(bytes(keys, sizeof(float))));
  auto* probs = reinterpret_cast<Prob<dtype>*>(Scratch<2>(bytes(keys, sizeof(Prob<dtype>))));
  auto* sums = reinterpret_cast<float*>(Scratch<3>(bytes(padded_d, sizeof(float))));
  std::memset(sums, 0, bytes(padded_d, sizeof(float)));
  for (int64_t q = 0; q < tile.count; ++q) {
    tile.queries[q].scores = scores + q * keys;
    tile.queries[q].probs = probs + q * keys;
    tile.queries[q].sums = sums + q * padded_d;
  }
  if (packed != nullptr) {
    packed->Score(a, tile);
  } else {
    ScoreTile<dtype>(a, tile);
  }
  for (int64_t q = 0; q < tile.count; ++q) {
    RecordRow<dtype>(a, tile.queries[q], a.scores, tile.queries[q].scores, tile.base);
  }
  SoftmaxTile<dtype, pairs>(tile);
  for (int64_t q = 0; q < tile.count; ++q) {
    RecordRow<dtype>(a, tile.queries[q], a.probs, tile.queries[q].probs, tile.base);
  }
  int64_t i = 0;
  constexpr int kChunks = V::kContextChunks;
  for (; i + 16 * kChunks <= d; i += 16 * kChunks) {
    ContextColumns<dtype, pairs, kChunks>(a, tile, packed, i, 16);
  }
  for (; i < d; i += 16) {
    ContextColumns<dtype, pairs, 1>(a, tile, packed, i, std::min<int64_t>(16, d - i));
  }
  for (int64_t q = 0; q < tile.count; ++q) {
    const Query<dtype>& query = tile.queries[q];
    E* out = static_cast<E*>(a.context) + (query.row * a.heads + query.head) * d;
    Convert<DType::kF32, dtype>(query.sums, out, d);
  }
}

// Rows for a tile of at most `queries`: so many that none is left over where they run together.
inline int64_t RowsOfTile(int64_t heads, int64_t queries) {
  const int64_t most = std::max<int64_t>(1, queries / heads);
  for (int64_t rows = most; rows > most / 2; --rows) {
    if (rows * heads % V::kContextQueries == 0) return rows;
  }
  return most;
}

// Tiles of the heads [head_begin, head_end) of one group and rows next to one another.
template <DType dtype, bool pairs>
void AttentionGroup(const AttentionArgs& a, int64_t head_begin, int64_t head_end, int64_t row_begin,
                    int64_t row_end) {
  using E = Element<dtype>;
  constexpr int64_t kPackedFrom = 16;  // queries; for fewer it does not pay
  const int64_t heads = head_end - head_begin, d = a.head_dim;
  const int64_t kv = head_begin / (a.heads / a.kv_heads) * a.kv_head_stride;
  const E* const k = static_cast<const E*>(a.k) + kv;
  const E* const v = static_cast<const E*>(a.v) + kv;
  const auto begin_of = [&a](int64_t row) {
    return a.window > 0 ? std::max<int64_t>(0, a.first_key_count + row - a.window) : 0;
  };
  // The scores of more queries would leave the caches behind so many keys.
  constexpr int64_t kFarKeys = 16384, kFarQueries = 16;
  const bool far = a.first_key_count + row_end - begin_of(row_begin) > kFarKeys;
  const int64_t rows = RowsOfTile(heads, far ? kFarQueries : Tile<dtype>::kQueries);
  const bool many = heads * (row_end - row_begin) >= kPackedFrom;
  PackedKeys<dtype, pairs> packed;
  if (many) {
    packed.Pack(a, k, v, begin_of(row_begin), a.first_key_count + row_end - 1,
                Tile<dtype>::kQueries);
  }
  for (int64_t first = row_begin; first < row_end; first += rows) {
    Tile<dtype> tile;
    tile.k = k;
    tile.v = v;
    for (int64_t row = first; row < std::min(row_end, first + rows); ++row) {
      for (int64_t head = head_begin; head < head_end; ++head) {
        const int64_t end = a.first_key_count + row;
        tile.queries[tile.count++] = {static_cast<const E*>(a.q) + (row * a.heads + head) * d,
                                      row,
                                      head,
                                      begin_of(row),
                                      end,
                                      nullptr,
                                      nullptr,
                                      nullptr};
      }
    }
    AttentionTile<dtype, pairs>(a, tile, many ? &packed : nullptr);
  }
}

// pairs: bf16 of many queries stays in pairs, and one instruction multiplies two.
template <bool pairs>
void Attention(const AttentionArgs& a, int64_t head_begin, int64_t head_end, int64_t row_begin,
               int64_t row_end) {
  const FlushDenormals flush(a.dtype == DType::kBF16);
  const int64_t group = a.heads / a.kv_heads;
  WithDType(a.dtype, [&]<DType dtype>() {
    int64_t head = head_begin;
    while (head < head_end) {
      const int64_t last =
          std::min({head_end, (head / group + 1) * group, head + Tile<dtype>::kQueries});
      constexpr bool kPairs = pairs && dtype == DType::kBF16;
      AttentionGroup<dtype, kPairs>(a, head, last, row_begin, row_end);
      head = last;
    }
  });
}
