// Which operation is responsible for how much of the difference of the final logits.
//
// The run is followed from ours to the candidate's: first all operations are ours, then the first
// one's values are the candidate's, then the first two's, ... What the logits of the last position
// move by in a step is what that operation did otherwise, on the candidate's own inputs, carried to
// the end by our arithmetic. So upstream errors are not counted twice, and the steps add up to the
// whole difference exactly.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "samebits/checkpoint/checkpoint.h"
#include "samebits/graph/graph.h"
#include "samebits/trace/trace.h"

namespace samebits {

struct NodeShare {
  std::string node;
  double logits_rms = 0, logits_max = 0;  // of the step
  double share = 0;  // of the whole difference, along it; all shares add up to 1
};

struct Attribution {
  double total_rms = 0, total_max = 0;  // of the whole difference at the last position
  std::vector<NodeShare> nodes;         // in the order of execution; those in the trace
};

// Throws Error: a trace without logits, of a batch, or in another dtype than its tensors.
Attribution Attribute(const Graph& graph, const Checkpoint& checkpoint, const Trace& trace,
                      int threads,
                      const std::function<void(int64_t done, int64_t total)>& progress);

}  // namespace samebits
