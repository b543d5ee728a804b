// What each operation of a graph is given: the one set of argument structs that the scalar
// interpreter (canonical.h), and every fast kernel (kernels/) take. Ranges split outputs and never
// a sum, so any split gives the same bits.
//
// dtype is the model's dtype (kF32, kBF16, kF16): of all activations, and of the arithmetic's
// rounding points. Weights may be stored in another dtype; they are rounded (or widened) to dtype
// where they are used.
#pragma once

#include <cstdint>

#include "samebits/tensor/dtype.h"

namespace samebits {

// y[t, n] = round(sum_k x[t, k] w[n, k] + bias[n])
struct LinearArgs {
  DType dtype;
  DType weight_dtype;  // of w and bias
  const void* x;       // [rows, in_features] dtype
  const void* w;       // [out_features, in_features] weight_dtype, as stored
  const void* bias;    // [out_features] weight_dtype, or null
  void* y;             // [rows, out_features] dtype
  int64_t rows, in_features, out_features;
};

// h = round(x / sqrt(mean(x^2) + eps)); y = round(w h)      (float32: no round in between)
struct RmsNormArgs {
  DType dtype;
  DType weight_dtype;
  const void* x;  // [rows, size] dtype
  const void* w;  // [size] weight_dtype
  void* y;        // [rows, size] dtype
  int64_t rows, size;
  float eps;
};

// cos = round(scaling cos(angle)), sin likewise, with the angle positions[t] * inv_freq[i]; both
// halves of a row alike. Row t takes its head_dim / 2 frequencies from inv_freq + t *
// inv_freq_stride (numerics/rope.h makes them).
struct RotaryArgs {
  DType dtype;
  const int64_t* positions;  // [rows]
  const float* inv_freq;
  int64_t inv_freq_stride;  // 0: all rows have the same frequencies
  float scaling;
  void* cos;  // [rows, head_dim] dtype
  void* sin;  // [rows, head_dim] dtype
  int64_t rows, head_dim;
};

// y = round(round(x cos) + round(rotate_half(x) sin)), rotate_half(x) = (-x2, x1)
struct RopeArgs {
  DType dtype;
  const void* x;    // [rows, heads, head_dim] dtype
  const void* cos;  // [rows, head_dim] dtype
  const void* sin;  // [rows, head_dim] dtype
  void* y;          // [rows, heads, head_dim] dtype
  int64_t rows, heads, head_dim;
};

// Causal attention of `rows` new tokens on a cache that already holds theirs: row t sees the keys
// 0 .. first_key_count + t - 1, that is first_key_count for the first row; with a window only the
// last `window` of these.
// scores = round(round(q . k) scale); probs = round(softmax in fp32); context = round(sum probs v)
struct AttentionArgs {
  DType dtype;
  const void* q;  // [rows, heads, head_dim] dtype
  const void* k;  // key j of kv head g starts at element g * kv_head_stride + j * kv_row_stride
  const void* v;  // as k
  int64_t kv_head_stride, kv_row_stride;
  void* context;  // [rows, heads * head_dim] dtype
  void* scores;   // null, or [heads, rows, keys] dtype with keys = first_key_count + rows - 1;
  void* probs;    //   places that the mask hides are set to 0 in both
  int64_t rows, heads, kv_heads, head_dim;
  int64_t first_key_count;
  float scale;
  int64_t window;  // 0: none
};

}  // namespace samebits
