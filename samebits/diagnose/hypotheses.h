// What may be wrong with one node: each hypothesis is an edited replay. It is reported only when
// the replay reproduces the candidate.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "samebits/diagnose/replay.h"

namespace samebits {

struct Hypothesis {
  std::string cause;   // id, docs/root-causes.md
  std::string detail;  // what the port computes, for people: "computes x W"
  Replay replay;
  // The scalar that was searched for (eps, theta, scale), and the configuration's.
  std::optional<double> value, expected;
};

// All hypotheses that apply to the node of `base`, cheap and exact ones first. `base` carries the
// form (rounding chain) under which they are tried.
std::vector<Hypothesis> HypothesesFor(const Replay& base, const ReplaySource& source);

// Sets the scalar that a hypothesis searches for; its cause must have one (norm-eps, rope-theta,
// attention-scale).
bool HasContinuousValue(const std::string& cause);
Hypothesis WithValue(const Hypothesis& hypothesis, double value);

// What to do about a cause, one sentence.
std::string FixFor(const std::string& cause);

}  // namespace samebits
