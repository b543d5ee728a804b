// The forms in which ports compute softmax, SiLU and RMSNorm in the model's own low precision.
// Each gives for every element the lowest, the middle and the highest outcome of legitimate fp32
// evaluations of its steps.
#pragma once

#include <cstdint>

#include "samebits/diagnose/replay.h"

namespace samebits {

struct Outcomes {
  double low, middle, high;
};

// form 1: e = rn(exp(-x)), d = rn(1 + e), y = rn(x * rn(1 / d))      jax.nn.silu on bfloat16
// form 2: the same e and d, y = rn(x / d)
// form 3: y = rn(x * rn(sigmoid(x)))
Outcomes SiluLowPrecision(LowPrecisionForm form, double x, DType dtype);

// e_j = rn(exp(rn(s_j - max))), then the sum
//   form 1: exact, rounded once (fp32 accumulator)       p = rn(e / sum)
//   form 2: a chain over the keys in the model's dtype   p = rn(e / sum)
//   form 3: as 1, p = rn(e * rn(1 / sum))
//   form 4: as 2, p = rn(e * rn(1 / sum))
//   form 5: any order in the model's dtype: an interval that is as wide as that needs
// for one row; outcomes of hidden keys are 0.
void SoftmaxLowPrecision(LowPrecisionForm form, const double* s, const uint8_t* visible,
                         int64_t keys, DType dtype, Outcomes* outcomes);

// The normalised row before the weight: outcomes of rn(x * r) with the mean of squares as
// `precision` says.
void RmsNormLowPrecision(const NormPrecision& precision, const double* x, int64_t size, double eps,
                         DType dtype, Outcomes* outcomes);

}  // namespace samebits
