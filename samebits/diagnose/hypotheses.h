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

// The parts of HypothesesFor, one function a group of operations.
using Hypotheses = std::vector<Hypothesis>;
void AddHypothesis(Hypotheses& list, const char* cause, std::string detail, Replay replay);
std::string LayerPrefix(const Node& node);  // "model.layers.3."
void EmbeddingHypotheses(const Replay& base, const ReplaySource& source, Hypotheses& list);
void RotaryHypotheses(const Replay& base, const ReplaySource& source, Hypotheses& list);
void RopeHypotheses(const Replay& base, const ReplaySource& source, Hypotheses& list);
void NormHypotheses(const Replay& base, const ReplaySource& source, Hypotheses& list);
void LinearHypotheses(const Replay& base, const ReplaySource& source, Hypotheses& list);
void ScoresHypotheses(const Replay& base, const ReplaySource& source, Hypotheses& list);
void ProbsHypotheses(const Replay& base, const ReplaySource& source, Hypotheses& list);
void ContextHypotheses(const Replay& base, const ReplaySource& source, Hypotheses& list);
// Other weights than the checkpoint's under these names: those of another layer, or the same ones
// that went through a narrower dtype.
void WeightHypotheses(const Replay& base, const ReplaySource& source, Hypotheses& list);

// Sets the scalar that a hypothesis searches for; its cause must have one (norm-eps, rope-theta,
// attention-scale).
bool HasContinuousValue(const std::string& cause);
Hypothesis WithValue(const Hypothesis& hypothesis, double value);

// What to do about a cause, one sentence.
std::string FixFor(const std::string& cause);

}  // namespace samebits
