// Where a trace skips tensors: a recorded tensor together with the skipped ones on the way to it
// from what is recorded. A segment is replayed with exact sums and the rounding of given forms, and
// compared as a whole. Proven bounds grow useless after two or three operations, so how far
// legitimate arithmetic may be away is measured: by runs of our own whose sums are off by what
// rounding does to them.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "samebits/diagnose/replay.h"

namespace samebits {

struct Segment {
  // The skipped outputs in the order of execution, and last the recorded one.
  std::vector<Replay> steps;

  const std::string& NameOf(size_t step) const {
    return steps[step].node.outputs[static_cast<size_t>(steps[step].output)];
  }
  const std::string& target() const { return NameOf(steps.size() - 1); }
};

// One for every recorded tensor that needs a skipped one. Skipped tensors without a recorded one
// behind them are in none.
std::vector<Segment> FindSegments(const ReplaySource& source);

// Multiplications of one run, roughly.
double SegmentCost(const Segment& segment, const ReplaySource& source);

// Values of every step of one run: [T, ...] in the layout of the tensor.
using SegmentValues = std::vector<std::shared_ptr<const Tensor>>;

// Relative distance of a run from the recorded tensor.
struct SegmentDistance {
  int64_t elements = 0, differing = 0;
  double rms = 0;  // of the difference over that of the values
  double max_abs = 0;
  double max_ulp = 0;
};

class SegmentRunner {
 public:
  SegmentRunner(const Segment& segment, const ReplaySource& source);

  // The run with `steps` in place of the segment's; steps that are `same` as in the base run, and
  // so are their inputs, are taken from it. `noise`: every uncertain stage is moved within a
  // typical rounding error, by random numbers of this seed.
  SegmentValues Run(const std::vector<Replay>& steps, const SegmentValues* base = nullptr,
                    const std::vector<bool>* changed = nullptr,
                    std::optional<uint64_t> noise = std::nullopt) const;

  // Against the recorded tensor, or against another run.
  SegmentDistance Distance(const SegmentValues& values) const;
  SegmentDistance Distance(const SegmentValues& values, const SegmentValues& other) const;

 private:
  SegmentDistance Compare(const TensorView& a, const TensorView& b) const;

  const Segment& segment_;
  const ReplaySource& source_;
};

}  // namespace samebits
