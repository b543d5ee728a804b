// The part of a check that judges what is recorded behind something that is not.
#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "samebits/diagnose/checker.h"

namespace samebits {
namespace {

void MergeDistance(SegmentDistance& to, const SegmentDistance& from) {
  to.elements += from.elements;
  to.differing += from.differing;
  to.rms = std::max(to.rms, from.rms);
  to.max_abs = std::max(to.max_abs, from.max_abs);
  to.max_ulp = std::max(to.max_ulp, from.max_ulp);
}

}  // namespace

void Checker::JudgeSegments() {
  const SegmentSearchResult found = SearchSegments(source_, forms_, options_.progress);
  for (const SegmentResult& one : found.segments) AddSegment(one);
  // Habits that only segments show.
  for (const auto& [group, form] : found.forms) {
    const auto known = forms_.find(group);
    if (known != forms_.end() && known->second == form) continue;
    forms_[group] = form;
    std::vector<std::string> nodes;
    for (const SegmentResult& one : found.segments) {
      for (size_t i = 0; i < one.segment.steps.size(); ++i) {
        const std::string& name = one.segment.NameOf(i);
        const bool known_name = std::find(nodes.begin(), nodes.end(), name) != nodes.end();
        if (GroupName(one.segment.steps[i]) == group && !known_name) nodes.push_back(name);
      }
    }
    for (const std::string& chain : form.chains) {
      const ChainText text = DescribeChain(chain);
      AddChain({chain, nodes, text.what, text.advice});
    }
  }
}

void Checker::AddSegment(const SegmentResult& one) {
  const Segment& segment = one.segment;
  std::set<size_t> edited;
  for (const SegmentEdit& edit : one.edits) {
    const Hypothesis& what = edit.what;
    Finding& finding = MeasuredFinding(what.cause, what.detail, one);
    if (!finding.value) {
      finding.value = what.value;
      finding.expected = what.expected;
    }
    finding.confirmed = finding.confirmed && one.explained;
    for (const auto& [step, replay] : edit.steps) {
      edited.insert(step);
      const std::string& name = segment.NameOf(step);
      if (std::find(finding.nodes.begin(), finding.nodes.end(), name) == finding.nodes.end()) {
        finding.nodes.push_back(name);
      }
      NodeResult& node = ResultOf(name);
      node.grade = Grade::kBug;
      node.cause = what.cause;
      node.measured = true;
      node.why_unknown.clear();
      if (step + 1 < segment.steps.size()) node.inside = segment.target();
    }
  }
  const bool unexplained = !one.explained && !one.doubtful && one.edits.empty();
  for (size_t i = 0; i < segment.steps.size(); ++i) {
    NodeResult& node = ResultOf(segment.NameOf(i));
    const bool target = i + 1 == segment.steps.size();
    node.measured = true;
    if (target) {
      node.base.elements = one.graph.elements;
      node.base.not_equal = one.graph.differing;
      node.base.max_abs = one.graph.max_abs;
      node.base.max_ulp = one.graph.max_ulp;
    } else {
      node.inside = segment.target();
    }
    if (edited.contains(i) || node.grade == Grade::kBug) continue;
    node.why_unknown.clear();
    if (unexplained && !target) {
      node.grade = Grade::kUnknown;
      node.why_unknown =
          fmt::format("not in the trace; {} is wrong and shows no known cause", segment.target());
      continue;
    }
    node.grade = Grade::kRounding;
    if (target && one.graph.differing == 0 && one.edits.empty()) {
      node.grade = Grade::kIdentical;
      node.identical_to = "rounded";
    }
  }
  if (!unexplained) return;
  NodeResult& node = ResultOf(segment.target());
  node.grade = Grade::kBug;
  node.cause = "unexplained";
  Finding& finding = MeasuredFinding(
      "unexplained",
      one.searched ? "no known cause gives these values"
                   : "too large a part of the model to look for a cause: record more",
      one);
  finding.confirmed = false;
  finding.nodes.push_back(segment.target());
}

// The finding of this cause in segments, which `one` shows as well.
Finding& Checker::MeasuredFinding(const std::string& cause, const std::string& detail,
                                  const SegmentResult& one) {
  auto finding = std::find_if(result_.findings.begin(), result_.findings.end(),
                              [&](const Finding& f) { return f.cause == cause && f.measured; });
  if (finding == result_.findings.end()) {
    Finding fresh;
    fresh.cause = cause;
    fresh.detail = detail;
    fresh.fix = FixFor(cause);
    fresh.confirmed = true;
    fresh.measured.emplace();
    result_.findings.push_back(std::move(fresh));
    finding = result_.findings.end() - 1;
  }
  finding->measured->noise = std::max(finding->measured->noise, one.noise);
  MergeDistance(finding->measured->with_graph, one.graph);
  MergeDistance(finding->measured->with_cause, one.cause);
  return *finding;
}

}  // namespace samebits
