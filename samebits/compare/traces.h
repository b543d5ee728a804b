// Two traces, aligned by name, in the order of a forward pass.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "samebits/compare/metrics.h"
#include "samebits/trace/trace.h"

namespace samebits {

struct NodeDifference {
  std::string name;
  Metrics metrics;
};

struct TraceDifference {
  std::vector<NodeDifference> nodes;  // tensors in both, in the order of a forward pass
  std::vector<std::string> only_a, only_b;
  bool inputs_differ = false;  // input_ids or positions
  std::string first;           // first differing node; empty when there is none

  bool same() const { return first.empty() && only_a.empty() && only_b.empty() && !inputs_differ; }
};

// Masked places of scores (docs/trace-format.md) are left out.
TraceDifference CompareTraces(const Trace& a, const Trace& b);

// Sorts names of trace tensors in the order of a forward pass; unknown names come last.
void SortByForwardPass(std::vector<std::string>& names);

}  // namespace samebits
