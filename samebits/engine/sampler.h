// Choosing the next token from logits. The generator is counter-based (SplitMix64 of seed and
// step), all arithmetic is IEEE and ours: the same seed gives the same tokens on any machine.
#pragma once

#include <cstdint>
#include <vector>

#include "samebits/tensor/tensor.h"

namespace samebits {

struct SamplingOptions {
  double temperature = 0;  // 0: greedy
  int64_t top_k = 0;       // 0: all
  double top_p = 1;        // smallest set of likeliest tokens that reaches this probability
  uint64_t seed = 0;
};

// `step` counts the tokens chosen so far. The first of equal logits wins; a NaN never does (all
// NaN: Error). logits: [1, V].
int64_t SampleToken(const TensorView& logits, const SamplingOptions& options, int64_t step);

}  // namespace samebits
