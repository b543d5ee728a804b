// When the trace is wrong and the port may be right: another dtype or other inputs than stated, a
// tensor recorded at another place than it is used, a buffer recorded twice. Ruled out before
// anything is called a bug of the port.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <set>
#include <unordered_map>

#include "samebits/base/json.h"
#include "samebits/diagnose/checker.h"
#include "samebits/diagnose/whole_run.h"
#include "samebits/tensor/convert.h"

namespace samebits {
namespace {

bool Fits(const TensorView& view, DType dtype) {
  for (const double v : ToDoubles(view)) {
    if (RoundToDType(v, dtype) != v && v == v) return false;
  }
  return true;
}

bool SameBytes(const TensorView& a, const TensorView& b) {
  return a.dtype == b.dtype && a.elements() == b.elements() &&
         std::memcmp(a.data, b.data, static_cast<size_t>(a.bytes())) == 0;
}

std::string RowKey(const std::vector<double>& values, int64_t begin, int64_t size) {
  return {reinterpret_cast<const char*>(&values[static_cast<size_t>(begin)]),
          static_cast<size_t>(size) * sizeof(double)};
}

}  // namespace

void Checker::AddTraceFinding(const std::string& cause, const std::string& detail,
                              std::vector<std::string> nodes, const Judgement& graph) {
  for (Finding& known : trace_findings_) {
    if (known.cause != cause) continue;
    known.with_graph.Merge(graph);
    known.nodes.insert(known.nodes.end(), nodes.begin(), nodes.end());
    return;
  }
  Finding finding;
  finding.cause = cause;
  finding.detail = detail;
  finding.nodes = std::move(nodes);
  finding.confirmed = true;
  finding.with_graph = graph;
  finding.fix = FixFor(cause);
  trace_findings_.push_back(std::move(finding));
}

// Tensors whose bits can not come from a run in the stated dtype.
void Checker::CheckStatedDType() {
  const DType stated = trace_.info().dtype;
  std::vector<std::string> wide, fit_bf16, fit_f16, all;
  for (const Node& node : graph_.nodes) {
    if (node.kind == OpKind::kEmbedding) continue;  // as narrow as its weights, whatever ran
    for (const std::string& name : node.outputs) {
      const TensorView* view = trace_.Find(name);
      // A mask's zeros and ones are no evidence.
      if (view == nullptr || view->elements() < 16) continue;
      all.push_back(name);
      if (view->dtype != DType::kF32) continue;
      if (stated != DType::kF32 && !Fits(*view, stated)) wide.push_back(name);
      if (stated != DType::kF32) continue;
      if (Fits(*view, DType::kBF16)) fit_bf16.push_back(name);
      if (Fits(*view, DType::kF16)) fit_f16.push_back(name);
    }
  }
  constexpr size_t kEnough = 5;
  if (all.size() < kEnough) return;
  DType actual = stated;
  std::vector<std::string> nodes;
  if (wide.size() * 10 >= all.size() * 9) {
    actual = DType::kF32;
    nodes = wide;
  } else if (fit_bf16.size() == all.size()) {
    actual = DType::kBF16;
    nodes = fit_bf16;
  } else if (fit_f16.size() == all.size()) {
    actual = DType::kF16;
    nodes = fit_f16;
  }
  if (actual == stated) return;
  AddTraceFinding("trace-dtype",
                  fmt::format("the trace says {}, its values are those of a run in {}",
                              ModelDTypeName(stated), ModelDTypeName(actual)),
                  nodes);
  source_.dtype = actual;
}

// The embedding of the recorded run tells its ids.
void Checker::CheckStatedInputs() {
  const Node& node = graph_.nodes.front();
  const TensorView* recorded = trace_.Find(node.outputs[0]);
  if (node.kind != OpKind::kEmbedding || recorded == nullptr) return;
  const TensorView& weight = source_.checkpoint->Get(node.weights[0]);
  const int64_t size = weight.shape[1], tokens = source_.tokens();
  const std::vector<double> rows = ToDoubles(*recorded);
  Replay replay;
  replay.node = node;
  const Expectation e = Evaluate(replay, source_, recorded->dtype, {0, tokens});
  std::vector<int64_t> wrong;
  for (int64_t t = 0; t < tokens; ++t) {
    if (RowKey(rows, t * size, size) != RowKey(e.y, t * size, size)) wrong.push_back(t);
  }
  if (wrong.empty()) return;
  std::unordered_map<std::string, int64_t> ids;
  std::vector<double> row(static_cast<size_t>(size));
  for (const int64_t t : wrong) ids.emplace(RowKey(rows, t * size, size), -1);
  for (int64_t id = 0; id < weight.shape[0]; ++id) {
    ToDoubles(weight, id * size, size, row.data());
    for (double& v : row) v = RoundToDType(v, source_.dtype);
    const auto found = ids.find(RowKey(row, 0, size));
    if (found != ids.end() && found->second < 0) found->second = id;
  }
  std::vector<int64_t> actual = source_.input_ids;
  for (const int64_t t : wrong) {
    const int64_t id = ids.at(RowKey(rows, t * size, size));
    if (id < 0) return;  // no row of the embedding: another cause
    actual[static_cast<size_t>(t)] = id;
  }
  const auto first = static_cast<size_t>(wrong.front());
  AddTraceFinding(
      "trace-inputs",
      fmt::format("the run had other ids than the trace says, at {} of {} positions: position {} "
                  "has the embedding of id {}, input_ids says {}",
                  wrong.size(), tokens, first, actual[first], source_.input_ids[first]),
      {node.outputs[0]});
  source_.input_ids = std::move(actual);
}

// Positions that the trace states and its tables contradict, where counting from 0 fits.
void Checker::CheckStatedPositions() {
  if (!trace_.info().metadata.contains("positions")) return;
  std::vector<int64_t> counted(source_.positions.size());
  for (size_t t = 0; t < counted.size(); ++t) counted[t] = static_cast<int64_t>(t);
  if (counted == source_.positions) return;
  for (const Node& node : graph_.nodes) {
    if (node.kind != OpKind::kRotary) continue;
    const TensorView* cosine = trace_.Find(node.outputs[0]);
    if (cosine == nullptr) return;
    Replay replay;
    replay.node = node;
    ReplaySource other = source_;
    other.positions = counted;
    const Judgement stated = Judge(replay, source_, *cosine);
    if (stated.outside == 0 || Judge(replay, other, *cosine).outside > 0) return;
    AddTraceFinding("trace-inputs",
                    fmt::format("the trace says that positions are {}, {}, ...; its tables are "
                                "those of 0, 1, ...",
                                source_.positions.front(),
                                source_.positions[std::min<size_t>(1, counted.size() - 1)]),
                    {node.outputs[0]});
    source_.positions = std::move(counted);
    return;
  }
}

// The node's output as it should be, from the candidate's own inputs, correctly rounded.
std::shared_ptr<Tensor> Checker::Recompute(const Item& item) const {
  Replay replay = item.replay;
  if (const auto form = forms_.find(GroupName(replay)); form != forms_.end()) {
    form->second.Apply(replay);
  }
  replay.all_scores = true;
  const Expectation e = Evaluate(replay, source_, item.candidate->dtype, {0, source_.tokens()});
  if (static_cast<int64_t>(e.y.size()) != item.candidate->elements()) return nullptr;
  auto tensor = std::make_shared<Tensor>(item.candidate->dtype, item.candidate->shape);
  StoreOutcomes(replay, e, source_.tokens(), nullptr, *tensor);
  return tensor;
}

// Whether what used the tensor contradicts what is recorded, and agrees with what it should be.
bool Checker::UsedAnother(const Item& item, const std::shared_ptr<Tensor>& right) {
  const std::string& name = item.replay.node.outputs[static_cast<size_t>(item.replay.output)];
  int64_t agree = 0, contradict = 0;
  ReplaySource fixed = source_;
  fixed.dots = nullptr;
  fixed.tensor = [&](std::string_view wanted) -> const TensorView* {
    return wanted == name ? &right->view() : source_.tensor(wanted);
  };
  for (const auto& [key, items] : groups_) {
    for (const Item& consumer : items) {
      const std::vector<std::string> inputs = RequiredTensors(consumer.replay);
      if (std::count(inputs.begin(), inputs.end(), name) == 0) continue;
      bool recorded_fits = false, right_fits = false;
      for (const Form& form : FormsOf(consumer.replay, source_.dtype, false, false)) {
        if (form.truncate) continue;
        Replay replay = consumer.replay;
        form.Apply(replay);
        const Judgement as_recorded = Judge(replay, source_, *consumer.candidate);
        recorded_fits = recorded_fits || as_recorded.outside == 0;
        if (recorded_fits) break;
        // The recomputed tensor may differ from the port's by single roundings.
        const Judgement as_right = Judge(replay, fixed, *consumer.candidate);
        // In fp32 nearly all do, by little.
        const bool near = source_.dtype == DType::kF32
                              ? as_right.max_abs * 1000 <= as_recorded.max_abs
                              : as_right.outside * 20 <= as_recorded.outside &&
                                    as_right.outside * 20 <= as_right.elements;
        right_fits = right_fits || near;
      }
      agree += right_fits && !recorded_fits ? 1 : 0;
      contradict += recorded_fits || !right_fits ? 1 : 0;
    }
  }
  return agree > 0 && contradict == 0;
}

// Nodes that were found wrong, whose users did not use what is recorded. True when there are any:
// their users have to be judged again.
bool Checker::FindMisrecorded() {
  std::map<size_t, const Item*> wrong;  // in the order of execution
  for (const auto& [key, items] : groups_) {
    for (const Item& item : items) {
      const bool bug = result_.nodes[item.index].grade == Grade::kBug;
      if (bug) wrong[item.index] = &item;
    }
  }
  std::map<std::string, Misrecorded, std::less<>> found = misrecorded_;
  const size_t known = found.size();
  for (const auto& [index, item] : wrong) {
    const NodeResult& node = result_.nodes[index];
    const std::shared_ptr<Tensor> right = Recompute(*item);
    if (right == nullptr || !UsedAnother(*item, right)) continue;
    found[node.name] = DescribeMisrecorded(*item, node);
    found[node.name].graph = node.base;
  }
  misrecorded_ = std::move(found);
  return misrecorded_.size() > known;
}

Checker::Misrecorded Checker::DescribeMisrecorded(const Item& item, const NodeResult& node) const {
  for (const NamedTensor& other : trace_.tensors()) {
    if (other.name == node.name || !SameBytes(other.view, *item.candidate)) continue;
    // Behind the next operation, or in front of its own: the tap stands at another place.
    const Node* producer = graph_.Producer(other.name);
    const std::vector<std::string>& own = item.replay.node.inputs;
    const bool near = (producer != nullptr && std::count(producer->inputs.begin(),
                                                         producer->inputs.end(), node.name) > 0) ||
                      std::count(own.begin(), own.end(), other.name) > 0;
    return {near ? "trace-tap-point" : "trace-stale",
            fmt::format(
                "{} holds the bits of {}, which is not what the port used", node.name,
                graph_.Producer(other.name) != nullptr ? other.name : Excerpt(Json(other.name))),
            {}};
  }
  const auto detail = details_.find(node.name);
  const std::string what =
      detail == details_.end() || node.cause == "unexplained"
          ? "holds other values than those that the port used"
          : fmt::format("is recorded at another place: as if the port {}", detail->second);
  return {"trace-tap-point", fmt::format("{} {}", node.name, what), {}};
}

// A trace of a wider run, cast when it was written: no node follows from its inputs, the whole
// does.
void Checker::FindCastTrace() {
  std::set<std::string> kinds;
  for (const NodeResult& node : result_.nodes) {
    if (node.cause == "unexplained") kinds.insert(node.name.substr(node.name.rfind('.') + 1));
  }
  constexpr size_t kKinds = 3;
  constexpr double kAffordable = 4e10;  // as for the run to the logits
  if (kinds.size() < kKinds || source_.dtype == DType::kF32 ||
      WholeRunCost(graph_, source_.tokens()) > kAffordable) {
    return;
  }
  ReplaySource wide = source_;
  wide.dtype = DType::kF32;
  int64_t elements = 0, differing = 0;
  double worst = 0;
  RunWhole(wide, {}, [&](const std::string& name, const TensorView& ours) {
    const TensorView* recorded = source_.tensor(name);
    if (recorded == nullptr || recorded->shape != ours.shape || name.ends_with(".scores")) return;
    const std::vector<double> a = ToDoubles(ours), b = ToDoubles(*recorded);
    int64_t some = 0;
    for (size_t i = 0; i < a.size(); ++i) {
      some += RoundToDType(a[i], recorded->dtype) == b[i] ? 0 : 1;
    }
    elements += static_cast<int64_t>(a.size());
    differing += some;
    worst = std::max(worst, static_cast<double>(some) / static_cast<double>(a.size()));
  });
  if (elements == 0 || worst > 0.1 || differing * 50 > elements) return;
  for (NodeResult& node : result_.nodes) {
    if (node.grade != Grade::kBug) continue;
    node.grade = Grade::kRounding;
    node.measured = true;
    node.cause.clear();
  }
  std::vector<std::string> nodes;
  for (const Finding& finding : result_.findings) {
    nodes.insert(nodes.end(), finding.nodes.begin(), finding.nodes.end());
  }
  result_.findings.clear();
  AddTraceFinding("trace-dtype",
                  fmt::format("the model ran in float32 and its tensors were cast to {} when they "
                              "were written ({} of {} values are those of such a run)",
                              ModelDTypeName(source_.dtype), elements - differing, elements),
                  nodes);
}

}  // namespace samebits
