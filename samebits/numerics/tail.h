// The deterministic steps that follow the uncertain sum of an operation: roundings, multiplications
// by a weight or a constant, additions of a bias. As data, since where a port rounds is what ports
// do differently. Every step is monotone in its argument, so the outcomes of an interval are the
// outcomes of its ends (up to their order).
#pragma once

#include <cstdint>
#include <vector>

#include "samebits/tensor/dtype.h"

namespace samebits {

struct TailStep {
  enum class Kind {
    kRound,     // to dtype, nearest even
    kTruncate,  // first to fp32, nearest even, then the surplus bits are cut off
    kMultiply,  // by the factor of the column, rounded to fp32
    kAdd,       // the summand of the column, rounded to fp32
  };
  Kind kind;
  DType dtype = DType::kF32;    // kRound, kTruncate
  std::vector<double> columns;  // kMultiply, kAdd: one value a column (last axis), or a single one

  double Column(int64_t column) const {
    return columns.size() == 1 ? columns[0] : columns[static_cast<size_t>(column)];
  }
};

using Tail = std::vector<TailStep>;

TailStep RoundStep(DType dtype, bool truncate = false);
TailStep MultiplyStep(std::vector<double> columns);
TailStep AddStep(std::vector<double> columns);

// What becomes of `value` in column `column`.
double ApplyTail(const Tail& tail, double value, int64_t column);

// Cuts the surplus bits of an fp32 value off (towards zero).
double TruncateToDType(double value, DType dtype);

// Without any rounding: the value after multiplications and additions, and how far a legitimate
// outcome may lie from it when it entered with an error of at most `error`: the distance bound, for
// display (the interval test is sharper).
struct Distance {
  double value, limit;
};
Distance PropagateDistance(const Tail& tail, double value, double error, int64_t column);

}  // namespace samebits
