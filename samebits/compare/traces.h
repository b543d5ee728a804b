// Two traces, aligned by name, in the order of a forward pass.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "samebits/compare/logits.h"
#include "samebits/compare/metrics.h"
#include "samebits/trace/trace.h"

namespace samebits {

struct NodeDifference {
  std::string name;
  Difference difference = Difference::kNone;
  DType dtype_a = DType::kF32, dtype_b = DType::kF32;
  Shape shape_a, shape_b;
  Metrics metrics;
  std::optional<LogitMetrics> logits;  // of lm_head, when its numbers can be compared
};

struct TraceDifference {
  std::vector<NodeDifference> nodes;  // tensors in both, in the order of a forward pass
  std::vector<std::string> only_a, only_b;
  bool inputs_differ = false;  // input_ids, positions, attention_mask or the batch
  std::string first;           // first node that differs in any way; empty when there is none
  std::string first_values;    // first node whose numbers differ

  bool same() const { return first.empty() && only_a.empty() && only_b.empty() && !inputs_differ; }
};

// Hidden places of scores (hidden_scores.h) are left out; of the logits as distributions also the
// tokens that are padding in either trace.
TraceDifference CompareTraces(const Trace& a, const Trace& b);

// Sorts names of trace tensors in the order of a forward pass, which is that of
// docs/trace-format.md; unknown names come last, in the order in which they are given.
void SortByForwardPass(std::vector<std::string>& names);

}  // namespace samebits
