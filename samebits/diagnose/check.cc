#include "samebits/diagnose/check.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "samebits/base/error.h"
#include "samebits/compare/metrics.h"
#include "samebits/diagnose/group_search.h"
#include "samebits/diagnose/identity.h"
#include "samebits/diagnose/whole_run.h"
#include "samebits/engine/canonical_arithmetic.h"
#include "samebits/engine/replay_arithmetic.h"

namespace samebits {
namespace {

// What a trace may be and the judge does not know.
void CheckKind(const Graph& graph, const Trace& trace) {
  const TraceInfo& info = trace.info();
  if (info.batch > 1) {
    Fail(ErrorCode::kUnsupported,
         "{}: __metadata__ 'input_ids': a batch of {} sequences; supported is one", trace.path(),
         info.batch);
  }
  if (std::count(info.attention_mask.begin(), info.attention_mask.end(), 0) > 0) {
    Fail(ErrorCode::kUnsupported,
         "{}: __metadata__ 'attention_mask': padding; supported are sequences without",
         trace.path());
  }
  // Its frequencies go by the length of the text at each forward pass.
  const RopeParameters& rope = graph.config.rope;
  if (rope.kind == RopeKind::kDynamic && info.chunks.size() > 1 &&
      *std::max_element(info.positions.begin(), info.positions.end()) >= rope.original_length) {
    Fail(ErrorCode::kUnsupported,
         "{}: __metadata__ 'chunks': {} forward passes that go beyond {} tokens, where dynamic "
         "rope scaling begins; supported is one pass there",
         trace.path(), info.chunks.size(), rope.original_length);
  }
}

void CheckShapes(const Graph& graph, const Trace& trace) {
  const TraceInfo& info = trace.info();
  for (int64_t id : info.input_ids) {
    if (id >= graph.config.vocab_size) {
      Fail(ErrorCode::kBadInput, "{}: input_ids: token id {}: the checkpoint has {} (vocab_size)",
           trace.path(), id, graph.config.vocab_size);
    }
  }
  for (const Node& node : graph.nodes) {
    for (const std::string& name : node.outputs) {
      const TensorView* view = trace.Find(name);
      if (view == nullptr) continue;
      const Shape expected = OutputShape(graph, node, name, trace.tokens());
      // A rotation of a part of the head: a bug that is named, no unreadable trace.
      const bool partial = node.kind == OpKind::kRotary && view->shape.size() == 2 &&
                           view->shape[0] == expected[0] && view->shape[1] < expected[1] &&
                           view->shape[1] >= 2 && view->shape[1] % 2 == 0;
      if (view->shape != expected && !partial) {
        Fail(ErrorCode::kBadInput,
             "{}: tensor '{}': shape {}, expected {} from config.json and {} input_ids",
             trace.path(), name, ShapeToString(view->shape), ShapeToString(expected),
             trace.tokens());
      }
      if (view->dtype != DType::kF32 && view->dtype != DType::kBF16 && view->dtype != DType::kF16) {
        Fail(ErrorCode::kBadInput, "{}: tensor '{}': dtype {}, expected F32, BF16 or F16",
             trace.path(), name, DTypeName(view->dtype));
      }
    }
  }
}

class Checker {
 public:
  Checker(const Graph& graph, const Checkpoint& checkpoint, const Trace& trace,
          const CheckOptions& options)
      : graph_(graph), trace_(trace), options_(options), pool_(options.threads) {
    source_.graph = &graph;
    source_.checkpoint = &checkpoint;
    source_.pool = &pool_;
    source_.dtype = trace.info().dtype;
    source_.input_ids = trace.info().input_ids;
    source_.positions = trace.info().positions;
    source_.chunks = trace.info().chunks;
    source_.dots = std::make_shared<DotCache>();
    source_.tensor = [this](std::string_view name) { return trace_.Find(name); };
  }

  CheckResult Run();

 private:
  void CollectItems();
  void Interpret(const std::vector<Item>& items, const GroupResult& group);
  Finding& AddFinding(const Item& item, const Explanation& e, const std::string& cause,
                      const std::string& detail);
  void AddRanges(const std::vector<Item>& items, const GroupResult& group);
  NodeResult& ResultOf(const std::string& name);
  NodeResult* Healthy(const std::string& name);
  void FindCanonical();
  void FindReplayed();
  void FindHiddenEps(Arithmetic& replay);
  void RunEndToEnd();
  void Conclude();
  void ListInvisible();

  const Graph& graph_;
  const Trace& trace_;
  const CheckOptions& options_;
  ThreadPool pool_;
  ReplaySource source_;
  CheckResult result_;
  std::map<std::string, std::vector<Item>> groups_;
  std::map<std::string, Form> forms_;
};

void Checker::CollectItems() {
  for (const Node& node : graph_.nodes) {
    for (size_t output = 0; output < node.outputs.size(); ++output) {
      Item item;
      item.index = result_.nodes.size();
      item.replay.node = node;
      item.replay.output = static_cast<int>(output);
      item.candidate = trace_.Find(node.outputs[output]);
      NodeResult node_result;
      node_result.name = node.outputs[output];
      if (item.candidate == nullptr) {
        node_result.why_unknown = "not in the trace";
      } else {
        for (const std::string& input : RequiredTensors(item.replay)) {
          if (trace_.Find(input) == nullptr) {
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
  for (size_t i = 0; i < items.size(); ++i) {
    const Item& item = items[i];
    const Explanation& e = group.items[i];
    NodeResult& node = result_.nodes[item.index];
    node.base = e.graph;
    chain_nodes.push_back(node.name);
    if (form.truncate) {
      // How it would look without the truncation decides whether the node shows it.
      Form rounding = form;
      rounding.truncate = rounding.truncate_weights = false;
      Replay replay = item.replay;
      rounding.Apply(replay);
      Explanation cut;
      cut.graph = Judge(replay, source_, *item.candidate);
      cut.cause = e.hypotheses.empty() ? e.graph : e.cause;
      if (cut.graph.outside > 0 && e.graph.outside < cut.graph.outside) {
        AddFinding(item, cut, "cast-truncation",
                   "cuts the low bits off instead of rounding to nearest");
        node.base = cut.graph;
        if (e.graph.outside == 0) continue;
      }
    }
    for (const Hypothesis& hypothesis : e.hypotheses) {
      Finding& finding = AddFinding(item, e, hypothesis.cause, hypothesis.detail);
      if (!hypothesis.value) continue;
      finding.value = hypothesis.value;
      finding.expected = hypothesis.expected;
    }
    if (!e.hypotheses.empty()) continue;
    if (e.graph.outside > 0) {
      AddFinding(item, e, "unexplained", "no known cause gives these values");
    } else if (node.grade != Grade::kBug) {
      node.grade = Grade::kRounding;
      if (e.graph.not_equal == 0) {
        node.grade = Grade::kIdentical;
        node.identical_to = "rounded";
      }
    }
  }
  for (const std::string& chain : form.chains) {
    const ChainText text = DescribeChain(chain);
    result_.chains.push_back({chain, chain_nodes, text.what, text.advice});
  }
  const std::string name = GroupName(items.front().replay);
  if (!form.chains.empty()) forms_[name] = Form{form.chains, false, false};
  AddRanges(items, group);
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
      if (result.grade == Grade::kBug) continue;
      result.replay_differing = one.differing;
      if (one.differing > 0) continue;
      // Also where an input is missing that the intervals would have needed.
      result.grade = Grade::kIdentical;
      result.identical_to = "replay";
      result.why_unknown.clear();
    }
    // What a fused attention kernel hides was computed all the same.
    if (node.kind != OpKind::kAttention || found.empty() || found.back().differing > 0 ||
        found.back().name != node.outputs.back()) {
      continue;
    }
    for (const std::string& name : node.outputs) {
      if (trace_.Find(name) != nullptr) continue;
      NodeResult& result = ResultOf(name);
      result.grade = Grade::kIdentical;
      result.identical_to = "replay";
      result.inside = node.outputs.back();
      result.why_unknown.clear();
    }
  }
  FindHiddenEps(replay);
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

void Checker::RunEndToEnd() {
  const TensorView* candidate = trace_.Find("lm_head");
  constexpr double kAffordable = 4e10;  // multiplications a run: some ten seconds
  if (candidate == nullptr || !options_.end_to_end ||
      WholeRunCost(graph_, trace_.tokens()) > kAffordable) {
    return;
  }
  EndToEnd end;
  end.values = candidate->elements();
  end.tokens = trace_.tokens();
  const std::vector<double> theirs = ToDoubles(*candidate);
  const int64_t vocab = graph_.config.vocab_size;
  const auto run = [&](const std::map<std::string, Form>& forms, bool reference) {
    EndToEnd::Run one;
    for (const auto& [group, form] : forms) {
      one.chains.insert(one.chains.end(), form.chains.begin(), form.chains.end());
    }
    RunWhole(source_, forms, [&](const std::string& name, const TensorView& ours) {
      const TensorView* recorded = trace_.Find(name);
      if (recorded == nullptr || recorded->shape != ours.shape) return;
      if (reference && !name.ends_with(".scores")) {
        for (NodeResult& node : result_.nodes) {
          if (node.name == name) node.propagated = CompareTensors(ours, *recorded).max_abs;
        }
      }
      if (name != "lm_head") return;
      const Metrics metrics = CompareTensors(ours, *recorded);
      one.max_abs = metrics.max_abs;
      one.differing = metrics.differing;
      if (!reference) return;
      const std::vector<double> logits = ToDoubles(ours);
      for (int64_t t = 0; t < end.tokens; ++t) {
        const auto top = [&](const std::vector<double>& v) {
          return std::max_element(v.begin() + t * vocab, v.begin() + (t + 1) * vocab) - v.begin();
        };
        end.same_argmax += top(logits) == top(theirs) ? 1 : 0;
      }
    });
    end.runs.push_back(std::move(one));
  };
  run({}, true);
  const bool bugs = !result_.findings.empty();
  if (!bugs && forms_.size() > 1) {
    for (const auto& [group, form] : forms_) run({{group, form}}, false);
  }
  if (!bugs && !forms_.empty()) run(forms_, false);
  result_.end_to_end = std::move(end);
}

void Checker::ListInvisible() {
  const int64_t tokens = trace_.tokens();
  std::vector<std::string>& list = result_.not_visible;
  if (tokens == 1) {
    list.push_back(
        "one token: mask, rope-theta, rope-interleaved, rope-rotation-direction and softmax errors "
        "can not show");
  } else if (tokens < 16) {
    list.push_back(fmt::format(
        "{} tokens: rope-theta and norm-eps show little; 16 tokens or more tell them apart",
        tokens));
  }
  if (tokens < 64 && source_.dtype != DType::kF32) {
    list.push_back("fewer than 64 tokens: a small norm-eps error may stay inside the rounding");
  }
  if (source_.dtype == DType::kF32) {
    list.push_back(
        "float32: cast-truncation and the low-precision causes have no effect; check a bfloat16 "
        "trace "
        "for them");
  }
  const ModelConfig& config = graph_.config;
  const auto narrow = [&](int64_t window) { return window > 0 && window < tokens; };
  const bool windows = std::any_of(config.layer_windows.begin(), config.layer_windows.end(),
                                   [](int64_t window) { return window > 0; });
  if (windows && std::none_of(config.layer_windows.begin(), config.layer_windows.end(), narrow)) {
    list.push_back(
        "no more tokens than the sliding window holds: errors of the window can not show");
  }
  if (config.rope.kind == RopeKind::kDynamic && tokens <= config.rope.original_length) {
    list.push_back(
        fmt::format("dynamic rope scaling begins behind {} tokens: a missing one can not show",
                    config.rope.original_length));
  }
  list.push_back("one sequence without padding: padding and batch errors can not show");
  if (trace_.info().chunks.size() == 1) {
    list.push_back("one prefill: errors of the KV cache can not show");
  }
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
  for (const NodeResult& node : result_.nodes) {
    unknown = unknown || node.grade == Grade::kUnknown;
    rounding = rounding || node.grade == Grade::kRounding;
    if (node.grade == Grade::kBug && result_.first_divergence.empty()) {
      result_.first_divergence = node.name;
    }
  }
  rounding = rounding || !result_.chains.empty();
  result_.verdict = !result_.findings.empty() ? Grade::kBug
                    : unknown                 ? Grade::kUnknown
                    : rounding                ? Grade::kRounding
                                              : Grade::kIdentical;
}

CheckResult Checker::Run() {
  CheckKind(graph_, trace_);
  CheckShapes(graph_, trace_);
  result_.dtype = source_.dtype;
  result_.tokens = trace_.tokens();
  CollectItems();
  int64_t done = 0;
  for (const auto& [name, items] : groups_) {
    if (options_.progress) options_.progress(done, static_cast<int64_t>(groups_.size()));
    Interpret(items, SearchGroup(items, source_));
    ++done;
  }
  FindCanonical();
  FindReplayed();
  RunEndToEnd();
  ListInvisible();
  Conclude();
  return std::move(result_);
}

}  // namespace

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
