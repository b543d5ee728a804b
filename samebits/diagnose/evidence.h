// What a report shows of a finding: how far the recorded values are from what they should be, under
// the graph and under the cause.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "samebits/diagnose/judge.h"

namespace samebits {

// Distances in steps of the tensor's dtype, by powers of two: bin 0 is less than half a step; bin
// +-k is at least 2^(k-2) and less than 2^(k-1) steps; the last ones hold all that is further.
inline constexpr int kResidualBins = 20;

struct Residuals {
  std::array<int64_t, 2 * kResidualBins + 1> histogram{};  // bin b at index b + kResidualBins
  int64_t not_finite = 0;
  std::vector<double> expected, candidate;  // a sample, spread over the tensor
};

struct WorstElement {
  int64_t index = 0;
  double expected = 0, low = 0, high = 0, candidate = 0;
};

struct Evidence {
  std::string node;
  Residuals with_graph;
  std::optional<Residuals> with_cause;
  WorstElement worst;  // under the graph
};

// `cause`: the replay that explains the node, or null.
Evidence EvidenceOf(const Replay& graph, const Replay* cause, const ReplaySource& source,
                    const TensorView& candidate);

}  // namespace samebits
