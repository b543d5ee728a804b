// Rules: which output of a matrix product has which order of summation, and how a bias enters. One
// entry of a profile names one rule. Product() is the scalar interpreter, kernels/replay.h the fast
// one. JSON: docs/profile-format.md.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "samebits/numerics/ops.h"
#include "samebits/numerics/sum_order.h"

namespace samebits {

// c of sum_order.h is the bias (or the old output, when accumulating).
enum class BiasRule : uint8_t {
  kFirst,    // c enters the order: Dot(order, ..., c)
  kLast,     // y = round(c + Dot(order, ...)); the same as kFirst for orders that add c last
  kRounded,  // y = round(round(Dot(order, ...)) + c): a bias that is added by another operation
};

enum class ColumnKind : uint8_t {
  kAll,
  kComplete,   // n < count * floor(N / count)
  kRest,       // the N mod count last ones, or of these only the one with index `at`
  kInPeel,     // n < peel
  kAfterPeel,  // n >= peel
};
struct ColumnClass {
  ColumnKind kind = ColumnKind::kAll;
  int64_t count = 1;
  int64_t at = -1;  // kRest; -1: all
  Peel peel;        // kInPeel, kAfterPeel
  bool operator==(const ColumnClass&) const = default;
};

struct OrderClass {
  int64_t row_begin = 0;
  int64_t row_end = -1;  // -1: to the last row
  ColumnClass columns;
  SumOrder order;
  bool operator==(const OrderClass&) const = default;
};

struct SumRule {
  BiasRule bias = BiasRule::kLast;
  std::vector<OrderClass> classes;  // every output is in exactly one
  std::string place;                // where it was read, for messages
};

// Position of the first element inside 16 bytes, in elements of 4 bytes: (address / 4) mod 4 in the
// framework's process, where the operand is fp32. 0 for what the framework allocated itself.
struct Alignment {
  int32_t x = 0, w = 0, y = 0;
};

// y[m, n] = round(sum_k x[m, k] w[n, k] + c)
struct ProductArgs {
  DType dtype;              // of x; weights and bias are rounded to it where they are used
  DType weight_dtype;       // of w and bias
  DType y_dtype;            // dtype, or kF32
  const void* x;            // element (m, k) at m * x_row_stride + k
  const void* w;            // element (n, k) at n * w_out_stride + k * w_in_stride
  const void* bias;         // [out_features], or null
  void* y;                  // element (m, n) at m * y_row_stride + n
  bool accumulate = false;  // c is the old y (which is fp32 then); no bias
  int64_t rows, in_features, out_features;
  int64_t x_row_stride, w_out_stride, w_in_stride, y_row_stride;
  Alignment alignment;
};
ProductArgs ProductOf(const LinearArgs& args, const Alignment& alignment);

// A rectangle of outputs that share an order.
struct OrderRegion {
  int64_t row_begin, row_end, out_begin, out_end;
  const SumOrder* order;  // into the rule
  int32_t peel;
};
// All outputs of the product, split into regions. Throws Error(kBadInput) starting with the rule's
// place where its classes overlap or leave outputs out, or where a tree is for another size.
std::vector<OrderRegion> Regions(const SumRule& rule, const ProductArgs& args);

// The interpreter: outputs of the half-open ranges only.
void Product(const ProductArgs& args, const SumRule& rule, int64_t row_begin, int64_t row_end,
             int64_t out_begin, int64_t out_end);

// Throws Error(kBadInput) that starts with `place`.
SumRule ReadSumRule(const Json& json, const std::string& place);

}  // namespace samebits
