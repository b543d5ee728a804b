// The edits that may explain a segment: each hypothesis of its steps, on all steps that share code
// and on those of single modules, and those that act in several operations together.
#pragma once

#include <string>
#include <vector>

#include "samebits/diagnose/segment_search.h"

namespace samebits {

// `base`: the segment's steps under their forms. `source` must give the tensors of a run of it.
std::vector<SegmentEdit> EditsOf(const Segment& segment, const std::vector<Replay>& base,
                                 const ReplaySource& source);

}  // namespace samebits
