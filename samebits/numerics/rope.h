// The frequencies of rotary embeddings, default and scaled: what rope_parameters mean, as
// arithmetic that is written down. docs/numerics/rotary.md says the same in words.
//
// Every line is one fp32 operation, or fp64 rounded to fp32 where it says so. d = head_dim,
// i < d / 2, f_i the inverse frequency.
//   default   e = 2i / d; p = round(theta^e); f = 1 / p
//   linear    f of default, divided by factor
//   dynamic   the default with another theta, in fp64, from the length L of the text and
//             M = max_position_embeddings:
//             theta' = theta (factor max(L, M) / M - (factor - 1))^(d / (d - 2))
//   llama3    n = original_length, w = 2 pi / f:  w > n / low_freq_factor: f / factor;
//             w < n / high_freq_factor: f; else s = (n / w - low) / (high - low),
//             f' = (1 - s) f / factor + s f
//   yarn      f' = r / (factor p) + (1 - r) / p with the ramp r = (i - a) / (b - a) cut to [0, 1];
//             a and b = d ln(n / (2 pi beta)) / (2 ln theta) for beta_fast and beta_slow, in fp64,
//             rounded down and up unless truncate is false, not below 0 and not above d - 1
// yarn's cosines and sines are multiplied by the attention factor, the others' by 1.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "samebits/checkpoint/rope_parameters.h"

namespace samebits {

// f_i for i < head_dim / 2. `length`: tokens of the text, which dynamic needs.
std::vector<float> InverseFrequencies(const RopeParameters& rope, int64_t head_dim, int64_t length);

// What cosines and sines are multiplied by.
float RotaryScaling(const RopeParameters& rope);

// Whether the frequencies of a text of `length` tokens are not those of a short one. A kept prefix
// of a text can be used for another one only when it is false for both.
bool RopeDependsOnLength(const RopeParameters& rope, int64_t length);

// The length whose frequencies turn the token at `position`: that of the whole prompt inside of it,
// and behind it that of the text up to this token, as transformers' generate does it.
int64_t RopeLength(int64_t position, int64_t prompt_length);

// What RotaryArgs needs: the frequencies of rows, and the factor. lengths[t]: RopeLength of row t.
struct RotaryTable {
  std::vector<float> inv_freq;  // [head_dim / 2], or [rows, head_dim / 2]
  int64_t row_stride = 0;       // 0: all rows have the same
  float scaling = 1;
};
RotaryTable MakeRotaryTable(const RopeParameters& rope, int64_t head_dim,
                            std::span<const int64_t> lengths);

namespace exact {

// f_i in fp64, and how far an fp32 evaluation (ours, transformers' or another of the same formulas)
// may be from it, relative. docs/numerics/bounds.md derives it.
struct Frequency {
  double value, relative;
};
std::vector<Frequency> InverseFrequencies(const RopeParameters& rope, int64_t head_dim,
                                          int64_t length);
double RotaryScaling(const RopeParameters& rope);

}  // namespace exact
}  // namespace samebits
