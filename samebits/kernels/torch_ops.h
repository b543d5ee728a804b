// Fast versions of PyTorch's operations (numerics/torch_ops.h, numerics/torch_flash.h): the same
// bits, whatever the parameters. Parameters without a fast version take the interpreter.
#pragma once

#include "samebits/kernels/kernels.h"
#include "samebits/numerics/torch_flash.h"
#include "samebits/numerics/torch_ops.h"

namespace samebits {

// Signatures and meanings as in torch_ops.h; flash_row for FlashWorkItem.
struct TorchKernels {
  Isa isa;
  void (*rms_norm)(const SumFunction&, const RmsNormArgs&, int64_t row_begin, int64_t row_end);
  void (*silu)(const SiluFunction&, DType, const void* x, void* y, int64_t begin, int64_t end,
               int64_t numel, int64_t threads);
  void (*multiply_by_number)(DType, const void* x, double number, void* y, int64_t n);
  void (*masked_softmax_row)(const SoftmaxFunction&, DType, const void* scores, const uint8_t* keep,
                             void* probs, float* wide, int64_t n);
  FlashRow flash_row;
};

// The AVX2 version on every CPU that has AVX2: 16 lanes of PyTorch's are two of its registers.
// Throws as SelectKernels.
const TorchKernels& SelectTorchKernels(Isa isa);

}  // namespace samebits
