// Is a recorded tensor what canonical arithmetic gives on the candidate's own inputs, bit for bit?
#pragma once

#include <string>
#include <vector>

#include "samebits/diagnose/replay.h"
#include "samebits/kernels/kernels.h"

namespace samebits {

// The outputs of the node that are; tensors that are missing or stored in another dtype than the
// model's are not. probs count only where the scores do, context only where probs do, since the
// kernel computes the three in one pass.
std::vector<std::string> CanonicalOutputs(const Node& node, const ReplaySource& source,
                                          const Kernels& kernels);

}  // namespace samebits
