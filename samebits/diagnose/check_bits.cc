#include <algorithm>
#include <cmath>

#include "samebits/diagnose/checker.h"
#include "samebits/diagnose/identity.h"
#include "samebits/diagnose/scan.h"
#include "samebits/engine/canonical_arithmetic.h"
#include "samebits/engine/replay_arithmetic.h"

namespace samebits {

// A strong statement about a healthy node: canonical arithmetic gives these very bits.
void Checker::FindCanonical() {
  CanonicalArithmetic canonical(BestIsa(), pool_.threads());
  for (const Node& node : graph_.nodes) {
    for (const Identity& one : CompareBits(node, source_, {source_.tokens()}, canonical)) {
      NodeResult* result = Healthy(one.name);
      if (result == nullptr || one.differing > 0) continue;
      result->grade = Grade::kIdentical;
      result->identical_to = "canonical";
    }
  }
}

// The strongest: the candidate's own framework gives these very bits, so nothing can hide in them.
void Checker::FindReplayed() {
  if (options_.replay == nullptr) return;
  const Profile& profile = options_.replay->profile();
  if (profile.dtype() != source_.dtype) {
    Fail(
        ErrorCode::kBadInput,
        "{}: a profile of {}, {} is of {}: `python -m samebits probe ... --dtype {}` makes the one "
        "that fits",
        profile.path(), ModelDTypeName(profile.dtype()), trace_.path(),
        ModelDTypeName(source_.dtype), ModelDTypeName(source_.dtype));
  }
  ReplayArithmetic replay(BestIsa(), pool_.threads(), options_.replay);
  for (const Node& node : graph_.nodes) {
    const auto found = CompareBits(node, source_, trace_.info().chunks, replay);
    for (const Identity& one : found) {
      NodeResult& result = ResultOf(one.name);
      if (result.grade == Grade::kBug && !result.measured) continue;
      result.replay_differing = one.differing;
      if (one.differing > 0) continue;
      // Also where an input is missing that the intervals would have needed.
      SetReplayed(one.name);
    }
    // What a fused attention kernel hides was computed all the same.
    if (node.kind != OpKind::kAttention || found.empty() || found.back().differing > 0 ||
        found.back().name != node.outputs.back()) {
      continue;
    }
    for (const std::string& name : node.outputs) {
      if (trace_.Find(name) != nullptr) continue;
      SetReplayed(name);
      ResultOf(name).inside = node.outputs.back();
    }
  }
  FindHiddenEps(replay);
}

// Not one differing bit is stronger than what was measured against the noise of a segment.
void Checker::SetReplayed(const std::string& name) {
  NodeResult& result = ResultOf(name);
  result.grade = Grade::kIdentical;
  result.identical_to = "replay";
  result.measured = false;
  result.cause.clear();
  result.why_unknown.clear();
  for (Finding& finding : result_.findings) {
    if (finding.measured) std::erase(finding.nodes, name);
  }
  std::erase_if(result_.findings, [](const Finding& f) { return f.measured && f.nodes.empty(); });
}

// Norms inside their intervals that the framework would have computed with other bits, where
// another eps gives exactly these: no interval shows that, bits do. The value is the nearest to the
// checkpoint's of those that fit; small effects leave a range.
void Checker::FindHiddenEps(Arithmetic& replay) {
  std::vector<const Node*> nodes;
  for (const Node& node : graph_.nodes) {
    if (node.kind != OpKind::kRmsNorm) continue;
    const NodeResult* result = Healthy(node.outputs[0]);
    if (result != nullptr && result->replay_differing.value_or(0) > 0) nodes.push_back(&node);
  }
  if (nodes.empty()) return;
  const double configured = nodes.front()->attributes.eps;
  std::vector<double> fitting;
  Replay first;
  first.node = *nodes.front();
  std::vector<double> candidates = EpsCandidates(first, source_);
  // What other norms have shown comes first, and is enough.
  const auto shown =
      std::find_if(result_.findings.begin(), result_.findings.end(),
                   [](const Finding& f) { return f.cause == "norm-eps" && f.value; });
  if (shown != result_.findings.end()) candidates.insert(candidates.begin(), *shown->value);
  for (const double eps : candidates) {
    const bool fits = std::all_of(nodes.begin(), nodes.end(), [&](const Node* node) {
      Node edited = *node;
      edited.attributes.eps = eps;
      const auto found = CompareBits(edited, source_, trace_.info().chunks, replay);
      return !found.empty() && found[0].differing == 0;
    });
    if (fits) fitting.push_back(eps);
    if (fits && shown != result_.findings.end() && eps == *shown->value) break;
  }
  if (fitting.empty()) return;
  const double value = *std::min_element(fitting.begin(), fitting.end(), [&](double a, double b) {
    return std::fabs(a - configured) < std::fabs(b - configured);
  });
  for (const Node* node : nodes) {
    NodeResult& result = *Healthy(node->outputs[0]);
    Item item;
    item.index = static_cast<size_t>(&result - result_.nodes.data());
    Explanation e;
    e.graph = result.base;
    e.cause = {.elements = result.base.elements};
    Finding& finding =
        AddFinding(item, e, "norm-eps",
                   shown != result_.findings.end() && value == *shown->value
                       ? fmt::format("uses eps {:g}", value)
                       : fmt::format("has the framework's bits with eps {:g} and not with {:g}",
                                     value, configured));
    result.replay_differing = 0;
    if (finding.value) continue;
    finding.value = value;
    finding.expected = configured;
    finding.value_low = *std::min_element(fitting.begin(), fitting.end());
    finding.value_high = *std::max_element(fitting.begin(), fitting.end());
  }
}

}  // namespace samebits
