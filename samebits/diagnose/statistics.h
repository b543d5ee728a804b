// What no replay can reproduce, since the weights or the order of additions are not known: told by
// what the values are like. Likely, never confirmed.
#pragma once

#include <optional>
#include <string>

#include "samebits/diagnose/replay.h"

namespace samebits {

struct Likeness {
  std::string cause, detail;
};

// Of a linear that nothing else explains: weights that have nothing to do with the checkpoint's
// (weight-random), or the right product with errors of a narrow accumulator
// (accumulator-low-precision; where other linears have shown that, likeness is enough).
std::optional<Likeness> DescribeUnexplained(const Replay& replay, const ReplaySource& source,
                                            const TensorView& candidate, bool low_precision_seen);

}  // namespace samebits
