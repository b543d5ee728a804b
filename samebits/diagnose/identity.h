// Is a recorded tensor what an arithmetic gives on the candidate's own inputs, bit for bit?
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "samebits/diagnose/replay.h"
#include "samebits/engine/arithmetic.h"

namespace samebits {

struct Identity {
  std::string name;
  int64_t elements = 0, differing = 0;
};

// The outputs of the node that could be computed: missing tensors, and those that are stored in
// another dtype than the model's, are left out. Attention is one operation from q, k and v: what
// comes behind an output that differs is left out, too. `chunks`: tokens of each forward pass, on
// which the bits of a replay depend. Throws what the arithmetic throws.
std::vector<Identity> CompareBits(const Node& node, const ReplaySource& source,
                                  const std::vector<int64_t>& chunks, Arithmetic& arithmetic);

}  // namespace samebits
