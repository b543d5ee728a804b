// What explains the segments of a sparse trace: rounding alone, other places to round (chains), or
// a cause. Measured against the noise of legitimate arithmetic, not proven.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "samebits/diagnose/forms.h"
#include "samebits/diagnose/hypotheses.h"
#include "samebits/diagnose/segments.h"

namespace samebits {

// Steps of a segment that compute something else than the graph says.
struct SegmentEdit {
  std::string key;  // the same edit in another segment has the same key
  Hypothesis what;  // of the first step, for its cause, detail and value
  std::vector<std::pair<size_t, Replay>> steps;
};

struct SegmentResult {
  Segment segment;
  std::vector<SegmentEdit> edits;  // causes that were found; empty: none needed, or none found
  bool explained = false;          // up to the noise
  bool doubtful = false;        // beyond the noise, by less than what single flipped values may do
  SegmentDistance graph;        // as the graph says, under the harmless chains
  SegmentDistance cause;        // with the edits
  double noise = 0;             // relative rms that legitimate arithmetic has here
  int64_t noise_differing = 0;  // values that its rounding errors change at most
  bool searched = true;         // false: too expensive to look for a cause
};

struct SegmentSearchResult {
  std::vector<SegmentResult> segments;
  std::map<std::string, Form> forms;  // by group name, those found and those that were known
};

// `known`: forms of groups that were judged node by node.
SegmentSearchResult SearchSegments(const ReplaySource& source,
                                   const std::map<std::string, Form>& known,
                                   const std::function<void(int64_t, int64_t)>& progress);

}  // namespace samebits
