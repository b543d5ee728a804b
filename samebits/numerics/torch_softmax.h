// The exponential and the fp32 softmax over the last dimension as PyTorch's CPU kernels compute
// them. `lanes` is the number of fp32 lanes of the kernel that PyTorch chooses: 16 where its
// capability is AVX512, 8 where it is AVX2; it decides the order of the sum, and nothing else.
// Measured: torch 2.13.0, docs/numerics/sampling.md. Left out: NaN payloads.
#pragma once

#include <span>

namespace samebits {

// e^x as Sleef's expf with 1.0 ulp computes it where there is fma: 0 below -104, infinity above
// 100, NaN for NaN. Denormal results are denormals.
float TorchExp(float x);

// y_i = e^(x_i - max) * (1 / sum). A row that holds a NaN or +infinity, or nothing but -infinity,
// becomes all NaN. x: [n], n > 0; y: [n], may be x. lanes: 8 or 16.
void TorchSoftmax(std::span<const float> x, int lanes, std::span<float> y);

}  // namespace samebits
