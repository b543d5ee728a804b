// Linear layers by all threads of a pool.
#pragma once

#include <span>

#include "samebits/kernels/kernels.h"
#include "samebits/kernels/thread_pool.h"

namespace samebits {

// All outputs of all rows. Layers that read the same rows are shared out like one: each end of a
// call is waited for. Bits do not depend on how the work is cut into pieces.
void ParallelLinear(const Kernels& kernels, ThreadPool& pool, std::span<const LinearArgs> layers);

}  // namespace samebits
