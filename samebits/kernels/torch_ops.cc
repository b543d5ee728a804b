#include "samebits/kernels/torch_ops.h"

namespace samebits {

extern const TorchKernels kAvx2TorchKernels;

const TorchKernels& SelectTorchKernels(Isa isa) {
  static const TorchKernels portable = {Isa::kPortable,
                                        &torch_ops::RmsNorm,
                                        &torch_ops::Silu,
                                        &torch_ops::MultiplyByNumber,
                                        &torch_ops::MaskedSoftmaxRow,
                                        kScalarFlashRow};
  return SelectKernels(isa).isa == Isa::kPortable ? portable : kAvx2TorchKernels;
}

}  // namespace samebits
