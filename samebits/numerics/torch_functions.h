// The parameters of PyTorch's operations that are not matrix products, as a profile gives them
// (docs/profile-functions.md is the format), and their reading. What they mean: torch_ops.h and
// torch_flash.h.
//
// They differ between machines: PyTorch has one kernel for registers of 8 and one for 16 fp32
// lanes, and the number of lanes is part of the order of a sum. A profile is of one dtype and one
// number of threads, and so is each of these.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "samebits/base/json.h"
#include "samebits/numerics/torch_math.h"

namespace samebits {

// How many values a probe compared with the running kernel, and how many of them differed.
struct Proof {
  int64_t compared = 0, differing = 0;
  bool Proven() const { return compared > 0 && differing == 0; }
};

// Sums over the last dimension (RMSNorm): four times `lanes` accumulators in a cascade.
struct SumFunction {
  int64_t lanes = 8;
  Proof proof;
};

// Softmax in fp32 over the last dimension (eager attention; sampling).
struct SoftmaxFunction {
  int64_t lanes = 8;
  torch_math::Exp exp = torch_math::Exp::kSleefU10;
  Proof proof;
};

// x / (1 + exp(-x)): `exp` in whole blocks of `block` elements, `tail_exp` in the rest of a
// thread's part of the tensor; a part is as large as `grain` says (SiluParts).
struct SiluFunction {
  torch_math::Exp exp = torch_math::Exp::kSleefU10;
  torch_math::Exp tail_exp = torch_math::Exp::kGlibc;
  int64_t block = 16;
  int64_t grain = 32768;
  Proof proof;
};

// scaled_dot_product_attention, the flash kernel.
struct SdpaFunction {
  struct Split {
    int64_t min_q_len;  // from this number of query rows on ...
    int64_t size;       // ... blocks of this many
  };
  int64_t lanes = 8;
  int64_t sums = 1;  // vector accumulators of a row's sum: 1 or 2
  torch_math::Exp exp = torch_math::Exp::kU20;
  torch_math::Exp tail_exp = torch_math::Exp::kGlibcDouble;  // the keys behind the last vector
  torch_math::Exp rescale_exp = torch_math::Exp::kGlibc;     // of the old maximum
  std::vector<Split> q_splits = {{0, 32}, {192, 64}, {768, 256}};  // ascending, the first from 0
  int64_t kv_split = 512;
  // Calls of at least this many query rows and keys take packed products, which are others
  // (FlashBlock::packed); 0: none do.
  struct Packing {
    int64_t min_q_len = 0, min_kv_len = 0;
  };
  Packing packing;
  Proof proof;
};

// cos or sin of one angle is `ulps` steps away from the correctly rounded fp32 value.
struct AngleDifference {
  int64_t position;
  int64_t i;  // which frequency
  int64_t ulps;
};

// Rotary angles as data: the fp32 frequencies, and where the cosines and sines (before the factor
// and the rounding to the model's dtype) are not the correctly rounded ones.
struct RotaryFunction {
  std::vector<float> inv_freq;            // [head_dim / 2]
  float scaling = 1;                      // attention_scaling, multiplied onto cos and sin
  int64_t positions = 0;                  // 0 .. positions - 1 are covered
  std::vector<AngleDifference> cos, sin;  // ascending by position, then i
  Proof proof;
};

// The section "functions" of a profile. What is absent was not probed.
struct TorchFunctions {
  std::optional<SumFunction> sum;
  std::optional<SoftmaxFunction> softmax;
  std::optional<SiluFunction> silu;
  std::optional<SdpaFunction> sdpa;
  std::vector<RotaryFunction> rotary;

  // The entry with exactly these frequencies and factor; null when there is none.
  const RotaryFunction* FindRotary(const std::vector<float>& inv_freq, float scaling) const;
};

// Reads and validates. `place` starts every message. Throws Error(kBadInput); unknown keys are
// errors, since they would change the arithmetic.
TorchFunctions ReadTorchFunctions(const Json& json, const std::string& place);

// {"inv_freq": [...], "cos": [...], "sin": [...]}, in a profile with "scaling_bits" (of the fp32
// value), "positions" and "proof". In a trace's metadata (`in_trace`) the factor is a number,
// "attention_scaling", and the other two are absent: a trace covers the positions it holds, which
// the caller knows; `positions` is then the most that is allowed.
RotaryFunction ReadRotaryFunction(const Json& json, bool in_trace, const std::string& place);

// The same sections as JSON.
Json WriteTorchFunctions(const TorchFunctions& functions);

}  // namespace samebits
