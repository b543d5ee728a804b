// `exact` arithmetic, the judge's: for every operation the exact value y of its uncertain stage in
// fp64, and B, a bound on the error of any fp32 evaluation of that stage in any order of summation.
// What follows the stage is a Tail. Tables and derivations: docs/numerics/bounds.md.
// fp64 itself errs by at most K 2^-53 times the same sums, which the constants leave room for.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "samebits/numerics/rope.h"
#include "samebits/tensor/tensor.h"

namespace samebits::exact {

// How a product of two fp32 operands is formed. Apart from kFull the operands lose bits first,
// which is deterministic: the sums of what is left err like any other fp32 sums.
enum class Products {
  kFull,
  kTf32Even,  // 11 significant bits each, to nearest even; kTf32Away: ties away from zero,
  kTf32Away,
  kTf32Cut,  // cut off
  kBf16,     // 8 significant bits each, to nearest even
  kBf16x3,   // high and low parts of 8 bits each; low times low is left out
};
// In place; kBf16x3 leaves high part plus low part, and the low parts in `low`, which is empty
// otherwise.
void RoundOperands(Products products, std::vector<double>& values, std::vector<double>& low);

// y[r, n] = sum_k x[r, k] w[n, k] and magnitude[r, n] = sum_k |x[r, k] w[n, k]| for n in the
// half-open range. x: [rows, size] fp64. w: [outs, size] as stored, each value rounded to `dtype`
// (cut off when `truncate`); transposed: w is read as [size, outs], y = x W.
// y and magnitude have row stride `outs`.
struct DotArgs {
  const double* x;
  TensorView w;
  DType dtype;
  bool transposed = false;
  bool truncate = false;
  int64_t rows, size, outs;
  double* y;
  double* magnitude;
  std::optional<DType> through = std::nullopt;  // the weights were rounded to this dtype before
  Products products = Products::kFull;
};
void Dots(const DotArgs& args, int64_t out_begin, int64_t out_end);

// B of a sum of n products and m further additions whose magnitudes sum to `magnitude`.
double SumBound(int64_t n, double magnitude);

// x / sqrt(mean(x^2) + eps) for one row; *bound is relative: B = *relative |y|.
void RmsNormRow(const double* x, int64_t size, double eps, double* y, double* relative);

// The same of x - mean(x) (LayerNorm without a bias); bound per element.
void LayerNormRow(const double* x, int64_t size, double eps, double* y, double* bound);

// Softmax over the entries with visible[j] != 0; hidden ones get y = 0. bound per element.
void SoftmaxRow(const double* s, const uint8_t* visible, int64_t keys, double* y, double* bound);

// scaling cos(angle) and scaling sin(angle) with angle = position * frequency; *bound for both:
// error of an fp32 angle, of an fp32 cosine or sine, and of the product.
void Rotary(int64_t position, const Frequency& frequency, double scaling, double* cosine,
            double* sine, double* bound);

// One activation: y and its bound. `name`: silu, gelu, gelu_tanh, relu, quick_gelu, identity.
void Activation(std::string_view name, double x, double* y, double* bound);

}  // namespace samebits::exact
