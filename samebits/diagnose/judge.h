// The interval test: does every value of a recorded tensor lie between the outcomes that a
// legitimate implementation of a replay may give?
#pragma once

#include <cstdint>

#include "samebits/diagnose/replay.h"

namespace samebits {

struct Judgement {
  int64_t elements = 0;  // judged
  int64_t outside = 0;   // no order of fp32 summation gives this value under this replay
  // Outside of the second tier, which is no proof: rounding errors that are independent of each
  // other (numerics/bounds.h, LikelyShare).
  int64_t outside_likely = 0;
  int64_t single = 0;     // elements that have one legitimate value
  double max_bound = 0;   // half the widest interval
  double width_ulp = 0;   // sum over elements: width of the interval in steps of the dtype
  int64_t not_equal = 0;  // not the correctly rounded result
  double max_abs = 0;     // distance from the correctly rounded result
  double max_ulp = 0;     //   in steps of the tensor's dtype
  double max_ratio = 0;   // distance from the unrounded value over the distance bound
  int64_t worst = -1;     // index (of Expectation's layout) of the largest ratio

  void Merge(const Judgement& other);
  // Fewer values outside; as many, and fewer that are not equal.
  bool BetterThan(const Judgement& other) const {
    return outside != other.outside ? outside < other.outside : not_equal < other.not_equal;
  }
};

// `rows`: the tokens that are judged, all when its size is 0.
Judgement Judge(const Replay& replay, const ReplaySource& source, const TensorView& candidate,
                RowRange rows = {});

// How one replay explains a tensor that another does not.
struct Flips {
  int64_t plus = 0;               // equal to the rounded outcome of `edited` and not of `base`
  int64_t minus = 0;              // the reverse
  double qe = 0, ee = 0, qq = 0;  // sums for the strength alpha = qe / ee of the edit's effect
  int64_t elements = 0;
};
Flips CompareReplays(const Replay& base, const Replay& edited, const ReplaySource& source,
                     const TensorView& candidate);

}  // namespace samebits
