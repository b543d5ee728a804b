// `canonical` arithmetic: the scalar interpreter, which is the definition. docs/numerics/ says the
// same in words, one page an operation. Every fast kernel must give these bits.
//
// Dot products (linear, scores): 16 fp32 accumulators ("lanes"), all +0 at first, reduced at the
// end by
//   for d in 8, 4, 2, 1: lane[l] = lane[l] + lane[l ^ d]        (result: lane 0)
//   float32, float16: step j feeds elements 16 j + l to lane l:   lane = fma(x, w, lane)
//   bfloat16:         step j feeds elements 32 j + 2 l and 32 j + 2 l + 1 to lane l, odd first:
//                     lane = fma(x[odd], w[odd], lane); lane = fma(x[even], w[even], lane)
//   Elements beyond the end count as +0. Then bias: one fp32 addition. Then one rounding to dtype.
// RMSNorm: sum of squares in the float32 order above; v = sum / size + eps; r = 1 / sqrt(v);
//   h = round(x r); y = round(w h).
// Rotary: angle = position inv_freq, its cosine and sine, the product of each with the scaling:
// each
//   rounded to fp32; then to dtype. (The inverse frequencies: rope.h.)
// Softmax over the n visible keys: m = max; e_j = Exp(s_j - m); sum in 16 lanes, key j to lane
//   j mod 16, plain additions, reduced as above; p_j = e_j * (1 / sum).
// Context, for every d: one chain over keys in order: acc = fma(p_j, v_jd, acc); bfloat16: keys in
//   pairs (2i, 2i+1), odd first, then even; a key of a pair that is missing or hidden counts as +0.
//   Keys are numbered from the beginning of the text, whatever a window hides.
// Denormals: Linear and Attention in bfloat16 run with denormal inputs and results flushed to zero
//   from beginning to end (VDPBF16PS can not do otherwise); everything else keeps them.
// SiLU: x / (1 + Exp(-x)) in fp32, then one rounding.
// Only + - * / sqrt fma of IEEE 754; Exp, the cosine and the sine are polynomials of ours (math.h).
// NaN and infinities follow from these rules; the payload and sign of a NaN are not part of them.
#pragma once

#include "samebits/numerics/ops.h"

namespace samebits::canonical {

// Each computes the outputs of the given half-open range only.
void Linear(const LinearArgs& args, int64_t row_begin, int64_t row_end, int64_t out_begin,
            int64_t out_end);
void RmsNorm(const RmsNormArgs& args, int64_t row_begin, int64_t row_end);
void Rotary(const RotaryArgs& args, int64_t row_begin, int64_t row_end);
void Rope(const RopeArgs& args, int64_t row_begin, int64_t row_end);
void Attention(const AttentionArgs& args, int64_t head_begin, int64_t head_end, int64_t row_begin,
               int64_t row_end);
// Elementwise on n values of dtype; y may be an input.
void Add(DType dtype, const void* a, const void* b, void* y, int64_t n);
void Multiply(DType dtype, const void* a, const void* b, void* y, int64_t n);
void Silu(DType dtype, const void* x, void* y, int64_t n);

}  // namespace samebits::canonical
