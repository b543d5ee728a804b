// A linear layer by all threads of a pool.
#pragma once

#include "samebits/kernels/kernels.h"
#include "samebits/kernels/thread_pool.h"

namespace samebits {

// All outputs of all rows. Bits do not depend on how the work is cut into pieces.
void ParallelLinear(const Kernels& kernels, ThreadPool& pool, const LinearArgs& args);

}  // namespace samebits
