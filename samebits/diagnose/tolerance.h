// The tightest tolerance that a port's own test can defend for each operation: how far an fp32 sum
// in any order, with Hugging Face's rounding, can be from the correctly rounded result on the same
// inputs. Taken from a run of our own; proven for its inputs.
#pragma once

#include <string>
#include <vector>

#include "samebits/checkpoint/checkpoint.h"
#include "samebits/graph/graph.h"

namespace samebits {

struct NodeTolerance {
  std::string node;
  int64_t ulps = 0;        // steps of the dtype, for every element
  double atol = 0;         // the same as a distance, over all elements
  double rtol = 0;         // over elements that are not small (at least the root mean square)
  double exact_share = 0;  // of elements that have one legitimate value: 0 steps
  std::string derivation;  // formula of the bound and the roundings behind it
};

struct Tolerances {
  DType dtype = DType::kF32;
  int64_t tokens = 0;
  std::vector<NodeTolerance> nodes;
  // From ids to logits nothing can be proven. Measured: the largest difference between runs of our
  // own whose rounding errors differ.
  double logits_spread = 0;
};

// Throws Error(kUnsupported) when the model and the prompt are too large for fp64 runs.
Tolerances ToleranceOf(const Graph& graph, const Checkpoint& checkpoint,
                       const std::vector<int64_t>& ids, DType dtype, int threads);

}  // namespace samebits
