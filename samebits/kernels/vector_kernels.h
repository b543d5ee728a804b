// The kernels of canonical arithmetic, written once over 16 fp32 lanes. Each instruction set's
// source file defines `V` (the lanes) in an unnamed namespace and then includes this file, so that
// no code built for one instruction set can be linked into another.
//
// V gives: F (16 floats), P (16 pairs of bf16), Zero, Set, First, Load<dtype>(p), Load<dtype>(p, n)
// and Store<dtype>(p, F, n) (n of 16 elements, the others 0), LoadPairs(p), LoadPairs(p, n) (n of
// 32 bf16), BroadcastPair(p) (two bf16 at p), InterleavePairs(even, odd, n) (null: zeros), Add,
// Mul, Div, Fma, Negate, Max(a, b) (a > b ? a : b), Largest (of the lanes), LoadOver(p, n, other)
// (n floats, the rest `other`), AnyDenormal where an instruction rounds to bf16, Round<dtype>,
// Reduce, ReduceAll (of kScoreSums registers), Exp, MulAdd(acc, x, w) (of F, and of P: odd, then
// even), kDecodeOuts (weight rows at once for few rows), and what vector_attention.h,
// packed_linear.h and packed_attention.h ask for. No include guard: it is meant to be included once
// a source file, behind V.

template <DType dtype>
using Element = std::conditional_t<dtype == DType::kF32, float, uint16_t>;

// Scratch of this thread, grown and kept, aligned to 64 bytes.
struct Buffer {
  std::byte* data = nullptr;
  size_t size = 0;
  ~Buffer() { std::free(data); }
};

template <int slot>
Buffer& ThreadBuffer() {  // apart, or clang 14 takes the thread's end for that of a call
  thread_local Buffer buffer;
  return buffer;
}

template <int slot>
std::byte* Scratch(size_t bytes) {
  Buffer& buffer = ThreadBuffer<slot>();
  if (buffer.size < bytes) {
    std::free(buffer.data);
    buffer.data = nullptr;
    buffer.size = (bytes + 4095) / 4096 * 4096;
    buffer.data = AllocateScratch(buffer.size);
  }
  return buffer.data;
}

// Calls fn.template operator()<dtype>() for a run-time dtype.
template <typename Fn>
void WithDType(DType dtype, Fn&& fn) {
  switch (dtype) {
    case DType::kBF16:
      return fn.template operator()<DType::kBF16>();
    case DType::kF16:
      return fn.template operator()<DType::kF16>();
    default:
      return fn.template operator()<DType::kF32>();
  }
}

// V::Round and V::Store of what is not denormal: to bf16 some V have an instruction for that.
template <DType dtype, typename Lanes = V>
inline __attribute__((always_inline)) typename V::F RoundNormal(typename V::F v) {
  if constexpr (dtype == DType::kBF16 && requires { Lanes::RoundNormalToBF16(v); }) {
    return Lanes::RoundNormalToBF16(v);
  } else {
    return Lanes::template Round<dtype>(v);
  }
}
template <DType dtype, typename Lanes = V>
inline __attribute__((always_inline)) void StoreNormal(void* p, typename V::F v) {
  if constexpr (dtype == DType::kBF16 && requires { Lanes::StoreNormalAsBF16(p, v); }) {
    Lanes::StoreNormalAsBF16(p, v);
  } else {
    Lanes::template Store<dtype>(p, v);
  }
}

// V::Round of what hardly ever is denormal.
template <DType dtype, typename Lanes = V>
inline __attribute__((always_inline)) typename V::F RoundMostlyNormal(typename V::F v) {
  if constexpr (dtype == DType::kBF16 && requires { Lanes::AnyDenormal(v); }) {
    if (!Lanes::AnyDenormal(v)) [[likely]]
      return RoundNormal<dtype>(v);
  }
  return Lanes::template Round<dtype>(v);
}

// fn(i) for every 16 of n elements, fn(i, count) for what is left of them.
template <typename Fn>
inline __attribute__((always_inline)) void ForSixteens(int64_t n, const Fn& fn) {
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) fn(i);
  if (i < n) fn(i, n - i);
}
// Stores all 16, or so many.
template <DType dtype, typename Lanes = V>
inline __attribute__((always_inline)) void StoreAt(Element<dtype>* p, typename V::F v) {
  if constexpr (dtype == DType::kBF16 && requires { Lanes::AnyDenormal(v); }) {
    if (!Lanes::AnyDenormal(v)) [[likely]]
      return StoreNormal<dtype>(p, v);
  }
  Lanes::template Store<dtype>(p, v);
}
template <DType dtype>
inline __attribute__((always_inline)) void StoreAt(Element<dtype>* p, typename V::F v, int64_t n) {
  V::template Store<dtype>(p, v, n);
}

template <DType from, DType to>
void Convert(const void* source, void* target, int64_t n) {
  const auto* s = static_cast<const Element<from>*>(source);
  auto* t = static_cast<Element<to>*>(target);
  ForSixteens(
      n, [&](int64_t i, auto... count) __attribute__((always_inline)) {
        StoreAt<to>(t + i, V::template Load<from>(s + i, count...), count...);
      });
}

// ---------------------------------------------------------------------------------------- linear

// Dot products of one row with `outs` weight rows, every one in the order of canonical.h; the
// weight rows are `pitch` apart, in another dtype only where that is widened to float32. `near`:
// what comes next is fetched into the first cache, around the second.
template <DType dtype, DType weights, int outs, bool near>
inline __attribute__((always_inline)) void DotBlock(const Element<dtype>* x,
                                                    const Element<weights>* w, int64_t pitch,
                                                    int64_t size, float (&sums)[outs]) {
  static_assert(weights == dtype || dtype == DType::kF32);
  typename V::F acc[outs];
  for (auto& v : acc) v = V::Zero();
  constexpr int64_t kStep = dtype == DType::kBF16 ? 32 : 16;
  const int64_t whole = size / kStep * kStep;
  const auto step = [&](int64_t k, auto load) __attribute__((always_inline)) {
    const auto row = load.template operator()<dtype>(x + k);
    for (int o = 0; o < outs; ++o) {
      acc[o] = V::MulAdd(acc[o], row, load.template operator()<weights>(w + o * pitch + k));
    }
  };
  for (int64_t k = 0; k < whole; k += kStep) {
    // What comes next: rows lie one after the other, so each stream goes on in the next row.
    // Addresses beyond the end are harmless.
    constexpr int64_t kAhead = 1024 / static_cast<int64_t>(sizeof(Element<weights>));
    for (int o = 0; o < outs; ++o) {
      __builtin_prefetch(w + o * pitch + k + kAhead, 0, near ? 0 : 2);
    }
    step(
        k, []<DType type>(const Element<type>* p) __attribute__((always_inline)) {
          if constexpr (dtype == DType::kBF16) {
            return V::LoadPairs(p);
          } else {
            return V::template Load<type>(p);
          }
        });
  }
  if (whole < size) {
    const int64_t rest = size - whole;
    step(
        whole, [rest]<DType type>(const Element<type>* p) __attribute__((always_inline)) {
          if constexpr (dtype == DType::kBF16) {
            return V::LoadPairs(p, rest);
          } else {
            return V::template Load<type>(p, rest);
          }
        });
  }
  for (int o = 0; o < outs; ++o) sums[o] = V::Reduce(acc[o]);
}

template <DType dtype>
float BiasAt(const LinearArgs& a, int64_t n) {
  Element<dtype> rounded[16];  // one is used: g++ does not see that the others are not
  WithDType(a.weight_dtype, [&]<DType from>() {
    Convert<from, dtype>(static_cast<const Element<from>*>(a.bias) + n, rounded, 1);
  });
  return V::First(V::template Load<dtype>(rounded, 1));
}

// `outs` outputs of one row from `out` on, out_pitch apart; their weight rows at w, as far apart
// times the size of a row.
template <DType dtype, DType weights, int outs, bool near>
void LinearBlock(const LinearArgs& a, const Element<weights>* w, int64_t row, int64_t out,
                 int64_t out_pitch) {
  float sums[outs];
  DotBlock<dtype, weights, outs, near>(
      static_cast<const Element<dtype>*>(a.x) + row * a.in_features, w, out_pitch * a.in_features,
      a.in_features, sums);
  auto* y = static_cast<Element<dtype>*>(a.y) + row * a.out_features;
  for (int o = 0; o < outs; ++o) {
    const int64_t at = out + o * out_pitch;
    const float sum = a.bias == nullptr ? sums[o] : sums[o] + BiasAt<dtype>(a, at);
    V::template Store<dtype>(y + at, V::Set(sum), 1);
  }
}

// Few rows: bound by memory. The weights are read as kDecodeOuts streams, each a part of the rows
// from its beginning to its end, however short a row is; with so few rows there is nothing to keep
// in registers but sums.
template <DType dtype, DType weights, bool near>
__attribute__((noinline)) void LinearStreams(const LinearArgs& a, int64_t row_begin,
                                             int64_t row_end, int64_t out_begin, int64_t out_end) {
  constexpr int kStreams = V::kDecodeOuts;
  const auto block = [&]<int outs>(int64_t out, int64_t pitch) {
    const auto* w = static_cast<const Element<weights>*>(a.w) + out * a.in_features;
    for (int64_t row = row_begin; row < row_end; ++row) {
      LinearBlock<dtype, weights, outs, near>(a, w, row, out, pitch);
    }
  };
  // Streams at whole pages from one another meet in the same sets of the caches.
  constexpr int64_t kPage = 4096;
  const int64_t row_bytes = a.in_features * static_cast<int64_t>(sizeof(Element<weights>));
  int64_t part = (out_end - out_begin) / kStreams;
  if (part > 1 && part * row_bytes % kPage == 0) --part;
  for (int64_t out = out_begin; out < out_begin + part; ++out) {
    block.template operator()<kStreams>(out, part);
  }
  int64_t out = out_begin + part * kStreams;
  for (; out + kStreams <= out_end; out += kStreams) block.template operator()<kStreams>(out, 1);
  for (; out < out_end; ++out) block.template operator()<1>(out, 1);
}

// The same with weights that are rounded to the model's dtype first, kDecodeOuts rows at a time.
template <DType dtype>
__attribute__((noinline)) void LinearRounded(const LinearArgs& a, int64_t row_begin,
                                             int64_t row_end, int64_t out_begin, int64_t out_end) {
  constexpr int kOuts = V::kDecodeOuts;
  auto* panel = reinterpret_cast<Element<dtype>*>(
      Scratch<0>(static_cast<size_t>(kOuts * a.in_features) * sizeof(Element<dtype>)));
  const auto block = [&]<int outs>(int64_t out) {
    WithDType(a.weight_dtype, [&]<DType from>() {
      Convert<from, dtype>(static_cast<const Element<from>*>(a.w) + out * a.in_features, panel,
                           outs * a.in_features);
    });
    for (int64_t row = row_begin; row < row_end; ++row) {
      LinearBlock<dtype, dtype, outs, false>(a, panel, row, out, 1);
    }
  };
  int64_t out = out_begin;
  for (; out + kOuts <= out_end; out += kOuts) block.template operator()<kOuts>(out);
  for (; out < out_end; ++out) block.template operator()<1>(out);
}

template <DType dtype>
void LinearFewRows(const LinearArgs& a, int64_t row_begin, int64_t row_end, int64_t out_begin,
                   int64_t out_end) {
  WithDType(a.weight_dtype, [&]<DType weights>() {
    if constexpr (weights == dtype || dtype == DType::kF32) {
      // Weights that several rows read need the second cache.
      const bool near = row_end - row_begin == 1 && WeightsGoNear();
      const auto streams =
          near ? LinearStreams<dtype, weights, true> : LinearStreams<dtype, weights, false>;
      streams(a, row_begin, row_end, out_begin, out_end);
    } else {
      LinearRounded<dtype>(a, row_begin, row_end, out_begin, out_end);
    }
  });
}

// -------------------------------------------------------------------------------------- the norm

template <DType dtype, DType weight_dtype>
void RmsNormRow(const RmsNormArgs& a, int64_t t) {
  const auto* x = static_cast<const Element<dtype>*>(a.x) + t * a.size;
  const auto* w = static_cast<const Element<weight_dtype>*>(a.w);
  auto* y = static_cast<Element<dtype>*>(a.y) + t * a.size;
  typename V::F acc = V::Zero();
  ForSixteens(
      a.size, [&](int64_t k, auto... n) __attribute__((always_inline)) {
        const typename V::F v = V::template Load<dtype>(x + k, n...);
        acc = V::Fma(v, v, acc);
      });
  const float mean = V::Reduce(acc) / static_cast<float>(a.size);
  const typename V::F r = V::Set(1.0F / std::sqrt(mean + a.eps));
  ForSixteens(
      a.size, [&](int64_t k, auto... n) __attribute__((always_inline)) {
        const typename V::F v = V::Mul(V::template Load<dtype>(x + k, n...), r);
        const typename V::F h = RoundMostlyNormal<dtype>(v);
        typename V::F weight = V::template Load<weight_dtype>(w + k, n...);
        if constexpr (weight_dtype != dtype) weight = V::template Round<dtype>(weight);
        StoreAt<dtype>(y + k, V::Mul(weight, h), n...);
      });
}

void RmsNorm(const RmsNormArgs& a, int64_t row_begin, int64_t row_end) {
  WithDType(a.dtype, [&]<DType dtype>() {
    WithDType(a.weight_dtype, [&]<DType weight_dtype>() {
      for (int64_t t = row_begin; t < row_end; ++t) RmsNormRow<dtype, weight_dtype>(a, t);
    });
  });
}

// ------------------------------------------------------------------------------------------ rope

template <DType dtype>
void RopeRows(const RopeArgs& a, int64_t row_begin, int64_t row_end) {
  const int64_t d = a.head_dim, half = d / 2;
  for (int64_t row = row_begin * a.heads; row < row_end * a.heads; ++row) {
    const auto* x = static_cast<const Element<dtype>*>(a.x) + row * d;
    const auto* c = static_cast<const Element<dtype>*>(a.cos) + row / a.heads * d;
    const auto* s = static_cast<const Element<dtype>*>(a.sin) + row / a.heads * d;
    auto* y = static_cast<Element<dtype>*>(a.y) + row * d;
    ForSixteens(
        half, [&](int64_t i, auto... n) __attribute__((always_inline)) {
          const auto load = [&](const Element<dtype>* p) __attribute__((always_inline)) {
            return V::template Load<dtype>(p, n...);
          };
          const auto product = [](typename V::F u, typename V::F v) __attribute__((always_inline)) {
            return RoundMostlyNormal<dtype>(V::Mul(u, v));
          };
          const typename V::F x1 = load(x + i), x2 = load(x + half + i);
          const typename V::F y1 =
              V::Add(product(x1, load(c + i)), product(V::Negate(x2), load(s + i)));
          const typename V::F y2 =
              V::Add(product(x2, load(c + half + i)), product(x1, load(s + half + i)));
          StoreAt<dtype>(y + i, y1, n...);
          StoreAt<dtype>(y + half + i, y2, n...);
        });
  }
}

void Rope(const RopeArgs& a, int64_t row_begin, int64_t row_end) {
  WithDType(a.dtype, [&]<DType dtype>() { RopeRows<dtype>(a, row_begin, row_end); });
}

// ----------------------------------------------------------------------------------- elementwise

template <typename Fn>
void Elementwise(DType dtype, const void* a, const void* b, void* y, int64_t n, Fn&& fn) {
  WithDType(dtype, [&]<DType type>() {
    using E = Element<type>;
    ForSixteens(
        n, [&](int64_t i, auto... count) __attribute__((always_inline)) {
          const typename V::F u = V::template Load<type>(static_cast<const E*>(a) + i, count...);
          const typename V::F v = V::template Load<type>(static_cast<const E*>(b) + i, count...);
          StoreAt<type>(static_cast<E*>(y) + i, fn(u, v), count...);
        });
  });
}

void Add(DType dtype, const void* a, const void* b, void* y, int64_t n) {
  Elementwise(dtype, a, b, y, n, [](typename V::F u, typename V::F v) { return V::Add(u, v); });
}

void Multiply(DType dtype, const void* a, const void* b, void* y, int64_t n) {
  Elementwise(dtype, a, b, y, n, [](typename V::F u, typename V::F v) { return V::Mul(u, v); });
}

void Silu(DType dtype, const void* x, void* y, int64_t n) {
  const typename V::F one = V::Set(1.0F);
  Elementwise(dtype, x, x, y, n, [one](typename V::F u, typename V::F) {
    return V::Div(u, V::Add(one, V::Exp(V::Negate(u))));
  });
}
