// The elementary functions that PyTorch's CPU kernels call, value for value. Each is one function
// of its argument: where it stands in an array, how many threads there are and how wide the
// registers are does not matter (torch_ops.h says which place calls which function).
// docs/numerics/torch-ops.md says how each was compared and over how many arguments.
//
// No libm here: glibc's expf and its exp rounded to fp32 are written out, so that a replay gives
// the same bits on another system. The arguments of NaN are not covered.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace samebits::torch_math {

// e^x as the vector library Sleef computes it, within 1 ulp (its expf, u10, with fused
// multiply-add; 8 and 16 lanes give the same bits). 0 below -104.
float ExpSleefU10(float x);

// e^x with an error up to 20 ulp, of the flash kernel in float32. 0 below ln(2^-126).
float ExpU20(float x);

// e^x with about 12 bits, of the flash kernel in bfloat16 and float16. 0 below ln(2^-126).
float FexpU20(float x);

// glibc's expf (2.28 and later, the variant with fused multiply-add).
float ExpGlibc(float x);

// glibc's exp of (double)x, rounded to fp32.
float ExpGlibcDouble(float x);

// x^y for x > 0, not denormal, finite: Sleef's powf, u10, with fused multiply-add.
float PowSleefU10(float x, float y);

// The correctly rounded fp32 values of cos and sin of an fp32 angle, |angle| < 2^24.
float CosRounded(float angle);
float SinRounded(float angle);

// The functions of e^x by the names that a profile uses.
enum class Exp : uint8_t { kSleefU10, kU20, kFexpU20, kGlibc, kGlibcDouble };
std::string_view ExpName(Exp function);  // "sleef_expf_u10", "exp_u20", "fexp_u20", ...
std::optional<Exp> ExpFromName(std::string_view name);
float Evaluate(Exp function, float x);

}  // namespace samebits::torch_math
