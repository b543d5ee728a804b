// Choosing the next token from logits, and how probable it was. The generator is counter-based
// (SplitMix64 of seed and step), all arithmetic is IEEE and ours: the same seed gives the same
// tokens on any machine. The filters and their order are those of transformers' generate.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "samebits/tensor/tensor.h"

namespace samebits {

struct SamplingOptions {
  double temperature = 0;         // 0: greedy
  int64_t top_k = 0;              // 0: all
  double top_p = 1;               // smallest set of likeliest tokens that reaches this probability
  double min_p = 0;               // at least this share of the likeliest token's probability
  double repetition_penalty = 1;  // above 1: tokens of the context become less likely
  uint64_t seed = 0;
};

// `step` counts the tokens chosen so far; `context` is prompt and output so far, which only the
// repetition penalty reads. First the penalty (in fp32: a logit below 0 times it, another one
// divided by it), then temperature, top-k, top-p, min-p. The first of equal logits wins; a NaN
// never does (all NaN: Error). logits: [1, V].
int64_t SampleToken(const TensorView& logits, const SamplingOptions& options, int64_t step,
                    std::span<const int64_t> context = {});

// The seed of the `index`-th of many independent draws: SplitMix64(SplitMix64(seed) + index).
uint64_t DerivedSeed(uint64_t seed, uint64_t index);

struct LogProb {
  int64_t id;
  double value;  // natural logarithm
};

struct LogProbs {
  double chosen = 0;
  std::vector<LogProb> top;  // the likeliest first
};

// log softmax of the logits as the model gave them (before any penalty or temperature), of `chosen`
// and of the `top` likeliest, in fp64 but for e^x. Absolute error below 1e-6: 2^-23 of Exp, and
// 2^-24 d for the fp32 argument -d, which averaged over the probabilities is at most
// 2^-24 ln(vocabulary). A NaN counts as minus infinity. logits: [1, V].
LogProbs TokenLogProbs(const TensorView& logits, int64_t chosen, int64_t top);

}  // namespace samebits
