// PyTorch's CPU operations that are not matrix products, to the bit, as the scalar interpreter that
// every faster version must equal. What is measured and how: docs/numerics/torch-ops.md.
// The flash kernel of scaled_dot_product_attention: torch_flash.h.
//
// Not here because `canonical` is the same operation by operation (proven beside PyTorch by
// tests/live/test_torch_ops.py): embedding, canonical::Add and Multiply (residuals, gate times up),
// canonical::Rope (three rounded operations).
//
// Whole tensors matter in one place only: SiLU, whose tails depend on the size of the whole tensor
// and on the number of threads. All the other operations go row by row: neither the number of rows
// nor the threads matter.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "samebits/numerics/ops.h"
#include "samebits/numerics/torch_functions.h"

namespace samebits::torch_ops {

// The sum of n contiguous floats along the last dimension.
//   W = lanes (1 below `lanes` elements); the n / W vectors go in turn to four accumulators; each
//   accumulator is a cascade: after 16 (or more, for n above 128 W times 16) of its vectors it is
//   added to the next level and starts at 0 again. Then the levels are added, the left-over
//   vectors go to accumulator 0, the four accumulators are added in order; last come the elements
//   behind the last vector, one by one, and then the lanes, one by one.
float CascadeSum(const SumFunction& function, const float* x, int64_t n);

// v = sum(x^2) / size; r = 1 / sqrt(v + eps); h = round(x r); y = round(w h).
void RmsNorm(const SumFunction& function, const RmsNormArgs& args, int64_t row_begin,
             int64_t row_end);

// y = softmax(x) of one row in fp32 (the caller casts: transformers asks for dtype=float32); y may
// be x. Elements of -infinity are allowed, not all of them.
//   m = max; e = exp(x - m); sum in `lanes` lanes, reduced by halves; y = e (1 / sum)
void SoftmaxRow(const SoftmaxFunction& function, const float* x, float* y, int64_t n);

// The parts of a tensor of numel elements that PyTorch's threads work on: part t is
// [t size, min((t + 1) size, numel)).
int64_t SiluPartSize(const SiluFunction& function, int64_t numel, int64_t threads);

// y = round(x / (1 + exp(-x))), elements [begin, end) of a contiguous tensor of numel elements:
// [batch, tokens, intermediate] as one. y may be x.
void Silu(const SiluFunction& function, DType dtype, const void* x, void* y, int64_t begin,
          int64_t end, int64_t numel, int64_t threads);

// y = round(x number): a tensor times a Python float, which is rounded to fp32 and not to dtype.
// The scaling of eager attention's scores. y may be x.
void MultiplyByNumber(DType dtype, const void* x, double number, void* y, int64_t n);

// y = round(x + mask), mask_j = 0 where keep[j] != 0, the lowest finite value of dtype elsewhere:
// eager attention's mask as transformers adds it. y may be x.
void AddMask(DType dtype, const void* x, const uint8_t* keep, void* y, int64_t n);

// One row of eager attention's probabilities from its scaled scores: AddMask, widened to fp32,
// SoftmaxRow, rounded to dtype. probs may be scores; `wide` is scratch of n floats.
void MaskedSoftmaxRow(const SoftmaxFunction& function, DType dtype, const void* scores,
                      const uint8_t* keep, void* probs, float* wide, int64_t n);

// The fp32 angles position inv_freq, their cosines and sines (correctly rounded, moved by the
// differences of `function`), the product of each with its scaling rounded to fp32, then to
// args.dtype; both halves of a row alike. Frequencies and scaling are those of `function`: args
// gives neither. Throws Error(kUnsupported) for a position that is not covered.
void Rotary(const RotaryFunction& function, const RotaryArgs& args, int64_t row_begin,
            int64_t row_end);

}  // namespace samebits::torch_ops
