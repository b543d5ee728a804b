#include "samebits/diagnose/check.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "samebits/diagnose/checker.h"
#include "samebits/diagnose/statistics.h"

namespace samebits {

namespace {

Form WithoutTruncation(Form form) {
  form.truncate = form.truncate_weights = false;
  return form;
}

}  // namespace

void Checker::CollectItems() {
  for (const Node& node : graph_.nodes) {
    for (size_t output = 0; output < node.outputs.size(); ++output) {
      Item item;
      item.index = result_.nodes.size();
      item.replay.node = node;
      item.replay.output = static_cast<int>(output);
      item.candidate = source_.tensor(node.outputs[output]);
      const bool misrecorded = misrecorded_.contains(node.outputs[output]);
      NodeResult node_result;
      node_result.name = node.outputs[output];
      if (item.candidate == nullptr) {
        node_result.why_unknown =
            misrecorded ? "not recorded as the port used it" : "not in the trace";
      } else {
        for (const std::string& input : RequiredTensors(item.replay)) {
          if (source_.tensor(input) == nullptr) {
            node_result.why_unknown = fmt::format("its input {} is not in the trace", input);
          }
        }
      }
      if (node_result.why_unknown.empty()) {
        // Tensors that are stored in another width were computed by other code.
        const std::string key =
            fmt::format("{} {}", GroupName(item.replay), DTypeName(item.candidate->dtype));
        groups_[key].push_back(std::move(item));
      }
      result_.nodes.push_back(std::move(node_result));
    }
  }
}

Finding& Checker::AddFinding(const Item& item, const Explanation& e, const std::string& cause,
                             const std::string& detail) {
  NodeResult& node = result_.nodes[item.index];
  node.grade = Grade::kBug;
  node.cause = cause;
  details_.try_emplace(node.name, detail);
  auto found = std::find_if(result_.findings.begin(), result_.findings.end(),
                            [&](const Finding& f) { return f.cause == cause; });
  if (found == result_.findings.end()) {
    Finding finding;
    finding.cause = cause;
    finding.detail = detail;
    finding.confirmed = cause != "unexplained";
    finding.fix = FixFor(cause);
    result_.findings.push_back(std::move(finding));
    found = result_.findings.end() - 1;
  } else if (found->detail.find(detail) == std::string::npos) {
    found->detail += "; " + detail;
  }
  found->nodes.push_back(node.name);
  found->with_graph.Merge(e.graph);
  found->with_cause.Merge(e.cause);
  found->confirmed = found->confirmed && e.cause.outside == 0;
  return *found;
}

// How far a searched scalar is determined by the nodes that show it.
void Checker::AddRanges(const std::vector<Item>& items, const GroupResult& group) {
  for (Finding& finding : result_.findings) {
    if (finding.value_low || !HasContinuousValue(finding.cause)) continue;
    std::vector<std::pair<const Item*, const Hypothesis*>> affected;
    for (size_t i = 0; i < items.size(); ++i) {
      const auto& hypotheses = group.items[i].hypotheses;
      if (!hypotheses.empty() && hypotheses.back().cause == finding.cause) {
        affected.emplace_back(&items[i], &hypotheses.back());
      }
    }
    if (affected.empty()) continue;
    const ValueRange range = RangeOf(affected, source_);
    finding.value_low = range.low;
    finding.value_high = range.high;
  }
}

void Checker::Interpret(const std::vector<Item>& items, const GroupResult& group) {
  const Form& form = group.form;
  std::vector<std::string> chain_nodes;
  // In the order of execution, whatever the group's.
  const auto remember = [&](const Item& item, const std::string& cause, const Form& with,
                            const std::optional<Replay>& edited) {
    const std::string& name = result_.nodes[item.index].name;
    const auto known = replays_.find(cause);
    if (known != replays_.end() && &ResultOf(known->second.node) < &ResultOf(name)) return;
    Replay graph = item.replay;
    with.Apply(graph);
    replays_.insert_or_assign(cause, Replays{name, item.candidate, graph, edited});
  };
  for (size_t i = 0; i < items.size(); ++i) {
    const Item& item = items[i];
    const Explanation& e = group.items[i];
    NodeResult& node = result_.nodes[item.index];
    node.base = e.graph;
    chain_nodes.push_back(node.name);
    if (form.truncate) {
      // How it would look without the truncation decides whether the node shows it.
      const Form rounding = WithoutTruncation(form);
      Replay replay = item.replay;
      rounding.Apply(replay);
      Explanation cut;
      cut.graph = Judge(replay, source_, *item.candidate);
      cut.cause = e.hypotheses.empty() ? e.graph : e.cause;
      if (cut.graph.outside > 0 && e.graph.outside < cut.graph.outside) {
        AddFinding(item, cut, "cast-truncation",
                   "cuts the low bits off instead of rounding to nearest");
        node.base = cut.graph;
        Replay truncated = item.replay;
        form.Apply(truncated);
        remember(item, "cast-truncation", rounding, truncated);
        if (e.graph.outside == 0) continue;
      }
    }
    for (const Hypothesis& hypothesis : e.hypotheses) {
      Finding& finding = AddFinding(item, e, hypothesis.cause, hypothesis.detail);
      remember(item, hypothesis.cause, form, e.hypotheses.back().replay);
      if (!hypothesis.value) continue;
      finding.value = hypothesis.value;
      finding.expected = hypothesis.expected;
    }
    if (!e.hypotheses.empty()) continue;
    if (e.graph.outside > 0) {
      Replay replay = item.replay;
      form.Apply(replay);
      const bool low_precision_seen =
          std::any_of(result_.findings.begin(), result_.findings.end(),
                      [](const Finding& f) { return f.cause == "accumulator-low-precision"; });
      const auto likely = DescribeUnexplained(replay, source_, *item.candidate, low_precision_seen);
      if (likely) {
        AddFinding(item, e, likely->cause, likely->detail).confirmed = false;
        remember(item, likely->cause, form, std::nullopt);
      } else {
        AddFinding(item, e, "unexplained", "no known cause gives these values");
        remember(item, "unexplained", form, std::nullopt);
      }
    } else if (node.grade != Grade::kBug) {
      node.grade = Grade::kRounding;
      if (e.graph.not_equal == 0) {
        node.grade = Grade::kIdentical;
        node.identical_to = "rounded";
      }
    }
  }
  for (const std::string& chain : form.chains) {
    ChainText text = DescribeChain(chain);
    if (chain == "exp-approximate")
      text.what += fmt::format(": off by up to {:.2g}", form.exp_error);
    AddChain({chain, chain_nodes, text.what, text.advice});
  }
  const std::string name = GroupName(items.front().replay);
  if (!form.chains.empty()) forms_[name] = WithoutTruncation(form);
  AddRanges(items, group);
}

void Checker::AddChain(ChainResult chain) {
  for (ChainResult& known : result_.chains) {
    if (known.chain != chain.chain) continue;
    for (std::string& node : chain.nodes) {
      if (std::find(known.nodes.begin(), known.nodes.end(), node) == known.nodes.end()) {
        known.nodes.push_back(std::move(node));
      }
    }
    return;
  }
  result_.chains.push_back(std::move(chain));
}

NodeResult& Checker::ResultOf(const std::string& name) {
  const auto found = std::find_if(result_.nodes.begin(), result_.nodes.end(),
                                  [&](const NodeResult& node) { return node.name == name; });
  SAMEBITS_CHECK(found != result_.nodes.end(), "every output has a result");
  return *found;
}

// The result of a tensor in which no bug was found, or null.
NodeResult* Checker::Healthy(const std::string& name) {
  NodeResult& node = ResultOf(name);
  const bool healthy = node.grade == Grade::kRounding || node.grade == Grade::kIdentical;
  return healthy ? &node : nullptr;
}

void Checker::Conclude() {
  // Findings in the order in which they first show.
  std::map<std::string, size_t> order;
  for (size_t i = 0; i < result_.nodes.size(); ++i) order[result_.nodes[i].name] = i;
  const auto by_order = [&](const std::string& a, const std::string& b) {
    return order[a] < order[b];
  };
  for (Finding& f : result_.findings) std::sort(f.nodes.begin(), f.nodes.end(), by_order);
  std::sort(result_.findings.begin(), result_.findings.end(),
            [&](const Finding& a, const Finding& b) { return by_order(a.nodes[0], b.nodes[0]); });
  bool unknown = false, rounding = false;
  // What comes behind the last recorded tensor was not asked about, when that is the last layer's
  // output or later: the verdict goes as far as the trace.
  size_t judged = result_.nodes.size();
  while (judged > 0 && result_.nodes[judged - 1].grade == Grade::kUnknown &&
         trace_.Find(result_.nodes[judged - 1].name) == nullptr) {
    --judged;
  }
  const size_t last_layer =
      order[fmt::format("model.layers.{}", graph_.config.num_hidden_layers - 1)];
  if (judged <= last_layer) judged = result_.nodes.size();
  if (judged < result_.nodes.size()) result_.judged_up_to = result_.nodes[judged - 1].name;
  for (size_t i = 0; i < result_.nodes.size(); ++i) {
    const NodeResult& node = result_.nodes[i];
    unknown = unknown || (node.grade == Grade::kUnknown && i < judged);
    rounding = rounding || node.grade == Grade::kRounding;
    if (node.grade == Grade::kBug && result_.first_divergence.empty()) {
      result_.first_divergence = node.name;
    }
  }
  for (const Finding& finding : result_.findings) {
    std::string& first = result_.first_divergence;
    if (first.empty() || by_order(finding.nodes[0], first)) first = finding.nodes[0];
  }
  // A habit is no difference where the framework's own order gives the very bits.
  for (const ChainResult& chain : result_.chains) {
    rounding = rounding ||
               std::any_of(chain.nodes.begin(), chain.nodes.end(), [&](const std::string& name) {
                 return ResultOf(name).identical_to != "replay";
               });
  }
  result_.verdict = !result_.findings.empty() ? Grade::kBug
                    : unknown                 ? Grade::kUnknown
                    : rounding                ? Grade::kRounding
                                              : Grade::kIdentical;
}

void Checker::AddEvidence() {
  for (Finding& finding : result_.findings) {
    const auto replays = replays_.find(finding.cause);
    if (replays == replays_.end() || finding.measured) continue;
    const Replays& r = replays->second;
    finding.evidence = EvidenceOf(r.graph, r.cause ? &*r.cause : nullptr, source_, *r.candidate);
  }
}

// NaN and infinities spread: the first place is the one to look at.
void Checker::FindNonFinite() {
  for (const Node& node : graph_.nodes) {
    for (const std::string& name : node.outputs) {
      const TensorView* view = trace_.Find(name);
      if (view == nullptr) continue;
      const bool scores = node.kind == OpKind::kAttention && name == node.outputs[0];
      const int64_t keys = view->shape.back();
      const std::vector<double> values = ToDoubles(*view);
      NonFinite found{name, 0, static_cast<int64_t>(values.size()), -1};
      for (int64_t i = 0; i < found.elements; ++i) {
        if (std::isfinite(values[static_cast<size_t>(i)])) continue;
        if (scores && i % keys > i / keys % trace_.tokens()) continue;  // masked: may hold anything
        if (found.count++ == 0) found.first = i;
      }
      if (found.count == 0) continue;
      result_.non_finite = found;
      return;
    }
  }
}

void Checker::JudgeGroups() {
  result_.nodes.clear();
  result_.findings.clear();
  result_.chains.clear();
  groups_.clear();
  forms_.clear();
  details_.clear();
  replays_.clear();
  source_.dots = std::make_shared<DotCache>();
  CollectItems();
  int64_t done = 0;
  for (const auto& [name, items] : groups_) {
    if (options_.progress) options_.progress(done, static_cast<int64_t>(groups_.size()));
    const GroupResult found = SearchGroup(items, source_);
    drowned_.insert(found.drowned.begin(), found.drowned.end());
    Interpret(items, found);
    ++done;
  }
}

CheckResult Checker::Run() {
  CheckKind(graph_, trace_);
  FindOtherHeadDim();
  CheckShapes(graph_, trace_,
              [this](const std::string& name) { return misrecorded_.contains(name); });
  CheckStatedDType();
  CheckStatedInputs();
  CheckStatedPositions();
  result_.dtype = source_.dtype;
  result_.tokens = trace_.tokens();
  JudgeGroups();
  if (FindMisrecorded()) JudgeGroups();
  FindCastTrace();
  JudgeSegments();
  FindCanonical();
  FindReplayed();
  RunEndToEnd();
  for (const auto& [name, what] : misrecorded_) {
    NodeResult& node = ResultOf(name);
    node.grade = Grade::kBug;
    node.cause = what.cause;
    node.why_unknown.clear();
    node.inside.clear();
    node.measured = false;
    node.base = what.graph;
    AddTraceFinding(what.cause, what.detail, {name}, what.graph);
  }
  result_.findings.insert(result_.findings.begin(), trace_findings_.begin(), trace_findings_.end());
  AddEvidence();
  FindNonFinite();
  ListInvisible();
  Conclude();
  return std::move(result_);
}

std::string_view GradeName(Grade grade) {
  switch (grade) {
    case Grade::kIdentical:
      return "identical";
    case Grade::kRounding:
      return "rounding";
    case Grade::kBug:
      return "bug";
    case Grade::kUnknown:
      return "unknown";
  }
  return "";
}

CheckResult Check(const Graph& graph, const Checkpoint& checkpoint, const Trace& trace,
                  const CheckOptions& options) {
  return Checker(graph, checkpoint, trace, options).Run();
}

}  // namespace samebits
