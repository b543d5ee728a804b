// PyTorch's CPU generator and torch.multinomial(p, 1) on it: the token is the first one with the
// largest p_i / q_i, where the q_i are drawn from the exponential distribution, one for every
// entry. Measured: torch 2.13.0, docs/numerics/sampling.md. Left out: normal distributions, more
// than one sample.
#pragma once

#include <cstdint>
#include <random>
#include <span>
#include <vector>

namespace samebits {

// The stream that follows torch.manual_seed(seed). Of the seed the lower 32 bits count.
class TorchGenerator {
 public:
  explicit TorchGenerator(uint64_t seed) : engine_(static_cast<uint32_t>(seed)) {}

  // In [0, 1), a multiple of 2^-53: the lower 53 bits of two numbers, of which the first one drawn
  // is the upper half.
  double Uniform() {
    const uint64_t high = engine_();
    const uint64_t bits = (high << 32) | engine_();
    return static_cast<double>(bits & ((uint64_t{1} << 53) - 1)) * 0x1p-53;
  }

 private:
  std::mt19937 engine_;  // its numbers are fixed by the C++ standard
};

// -log(1 - u) for a number of TorchGenerator, rounded to fp32: what Tensor.exponential_(1) makes of
// it. PyTorch rounds the double of its C library's log1p; 1 - u is exact, so ours is the
// logarithm of it, within 1 ulp of fp64.
float TorchExponential(double u);

// The index that torch.multinomial(p, 1) returns when the generator gives u. p: [n], no NaN, not
// negative, finite; u: [n].
int64_t TorchMultinomial(std::span<const float> p, std::span<const double> u);

}  // namespace samebits
