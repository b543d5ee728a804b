// Ranks as threads of one process, for tests.
#pragma once

#include <functional>

#include "samebits/engine/communicator.h"

namespace samebits {

// Calls fn(communicator) on `size` threads, one a rank, and returns when all have. The first
// exception is thrown here, but only if all ranks throw or return: one that waits for a rank that
// has thrown waits for ever.
void RunLocalRanks(int size, const std::function<void(Communicator&)>& fn);

}  // namespace samebits
