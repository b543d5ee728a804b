#include "samebits/graph/parallel.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <set>

#include "samebits/base/error.h"

namespace samebits {
namespace {

using Splits = std::map<std::string, Split, std::less<>>;

// Elementwise operations and those on single heads need no other column of their input.
bool KeepsSplit(const Node& node) {
  switch (node.kind) {
    case OpKind::kActivation:
    case OpKind::kMultiply:
    case OpKind::kRope:
      return true;
    case OpKind::kRmsNorm:
      return node.attributes.heads != 0;
    default:
      return false;
  }
}

// The linear layer behind a chain of operations on heads.
const Node* LinearBehind(const Graph& graph, std::string_view tensor) {
  const Node* node = graph.Producer(tensor);
  while (node != nullptr && KeepsSplit(*node)) node = graph.Producer(node->inputs[0]);
  return node != nullptr && node->kind == OpKind::kLinear ? node : nullptr;
}

class Splitter {
 public:
  Splitter(const Graph& graph, const ParallelPlan& plan, int rank, AttentionSplit attention)
      : graph_(graph),
        plan_(plan),
        stage_(rank / plan.tp),
        own_(rank % plan.tp),
        attention_(attention) {
    result_.config = graph.config;
    for (const Node& node : graph.nodes) {
      if (node.kind == OpKind::kAttention && plan.tp > 1) SplitHeads(node);
    }
  }

  Graph Split();

 private:
  void SplitHeads(const Node& attention);
  void Crossing(OpKind kind, int behind);
  std::string Whole(const std::string& tensor);
  void Add(const Node& original);
  samebits::Split Evenly(int64_t whole) const {
    return {EvenRanges(whole, plan_.tp), static_cast<size_t>(own_), whole, 1};
  }

  const Graph& graph_;
  const ParallelPlan plan_;
  const int stage_, own_;
  const AttentionSplit attention_;
  Graph result_;
  Splits heads_;   // of linear layers whose output is heads, by name
  Splits splits_;  // of the tensors made so far
  std::set<std::string, std::less<>> gathered_;
};

// Query heads evenly; of the KV heads those that they read, which two ranks may share.
void Splitter::SplitHeads(const Node& attention) {
  const Attributes& a = attention.attributes;
  if (plan_.tp > a.heads) {
    Fail(ErrorCode::kUsage, "tp={}: the model has {} attention heads, a rank needs at least one",
         plan_.tp, a.heads);
  }
  samebits::Split queries = Evenly(a.heads), keys = queries;
  queries.unit = keys.unit = a.head_dim;
  keys.whole = a.kv_heads;
  const int64_t group = a.heads / a.kv_heads;
  for (Range& range : keys.ranges) range = {range.begin / group, (range.end - 1) / group + 1};
  for (size_t i = 0; i < attention.inputs.size(); ++i) {
    const Node* linear = LinearBehind(graph_, attention.inputs[i]);
    SAMEBITS_CHECK(linear != nullptr, "q, k and v come from linear layers");
    heads_[linear->name] = i == 0 ? queries : keys;
  }
}

// The tensor with all columns: its own name, or that of a gather, which is added once.
std::string Splitter::Whole(const std::string& tensor) {
  const auto split = splits_.find(tensor);
  if (split == splits_.end()) return tensor;
  std::string name = tensor + ".whole";
  if (gathered_.insert(name).second) {
    Node node{OpKind::kGather, name, result_.nodes.back().layer, {tensor}, {}, {name}, {}};
    node.split = split->second;
    result_.nodes.push_back(std::move(node));
  }
  return name;
}

void Splitter::Add(const Node& original) {
  Node node = original;
  Attributes& a = node.attributes;
  if (plan_.tp == 1) {
    result_.nodes.push_back(std::move(node));
    return;
  }
  const auto split = splits_.find(node.inputs[0]);
  if (node.kind == OpKind::kAttention && attention_ == AttentionSplit::kHeads) {
    node.split = split->second;
    node.kv_split = splits_.at(node.inputs[1]);
    a.heads = node.split.range().size();
    a.kv_heads = node.kv_split.range().size();
  } else if (KeepsSplit(node) && split != splits_.end()) {
    node.split = split->second;
    if (a.heads != 0) a.heads = node.split.range().size();
    if (node.kind == OpKind::kMultiply) {
      const auto other = splits_.find(node.inputs[1]);
      SAMEBITS_CHECK(other != splits_.end() && other->second == split->second, "one split of both");
    }
  } else {
    for (std::string& input : node.inputs) input = Whole(input);
    if (node.kind == OpKind::kLinear) {
      const auto heads = heads_.find(node.name);
      node.split = heads != heads_.end() ? heads->second : Evenly(a.out_features);
      a.out_features = node.split.range().size() * node.split.unit;
    }
  }
  if (node.split) {
    for (const std::string& output : node.outputs) splits_[output] = node.split;
  }
  result_.nodes.push_back(std::move(node));
}

// Sends, or receives, what nodes up to stage `behind` make and later ones read.
void Splitter::Crossing(OpKind kind, int behind) {
  std::set<std::string, std::less<>> made, done;
  for (const Node& node : graph_.nodes) {
    const int stage = StageOf(graph_, plan_, node);
    if (stage > behind) {
      for (const std::string& input : node.inputs) {
        if (!made.contains(input) || !done.insert(input).second) continue;
        if (kind == OpKind::kSend) {
          const std::string whole = Whole(input);
          result_.nodes.push_back({kind, whole + ".sent", -1, {whole}, {}, {}, {}});
        } else {
          result_.nodes.push_back({kind, input, -1, {}, {}, {input}, {}});
        }
      }
    } else if (node.kind != OpKind::kRotary) {
      made.insert(node.outputs.begin(), node.outputs.end());
    }
  }
}

Graph Splitter::Split() {
  if (stage_ > 0) Crossing(OpKind::kReceive, stage_ - 1);
  for (const Node& node : graph_.nodes) {
    if (StageOf(graph_, plan_, node) == stage_ || node.kind == OpKind::kRotary) Add(node);
  }
  if (stage_ + 1 < plan_.pp) {
    Crossing(OpKind::kSend, stage_);
  } else {
    Whole(graph_.nodes.back().name);
  }
  return std::move(result_);
}

}  // namespace

std::vector<Range> EvenRanges(int64_t whole, int parts) {
  std::vector<Range> ranges;
  int64_t begin = 0;
  for (int i = 0; i < parts; ++i) {
    const int64_t size = whole / parts + (i < whole % parts ? 1 : 0);
    ranges.push_back({begin, begin + size});
    begin += size;
  }
  return ranges;
}

ParallelPlan ParseParallelPlan(const std::string& text) {
  ParallelPlan plan;
  size_t at = 0;
  while (at <= text.size()) {
    const size_t end = std::min(text.find(',', at), text.size());
    const std::string part = text.substr(at, end - at);
    int* degree = part.starts_with("tp=") ? &plan.tp : part.starts_with("pp=") ? &plan.pp : nullptr;
    const char* last = part.data() + part.size();
    const auto [stop, error] = degree == nullptr
                                   ? std::from_chars_result{last, std::errc::invalid_argument}
                                   : std::from_chars(part.data() + 3, last, *degree);
    if (error != std::errc() || stop != last || *degree < 1 || *degree > 4096) {
      Fail(ErrorCode::kUsage, "--parallel {}: expected tp=N,pp=M with numbers from 1 to 4096",
           text);
    }
    at = end + 1;
  }
  return plan;
}

int StageOf(const Graph& graph, const ParallelPlan& plan, const Node& node) {
  if (node.layer < 0) {
    // In front of the layers, or behind them.
    const bool front = node.kind == OpKind::kEmbedding || node.kind == OpKind::kRotary;
    return front ? 0 : plan.pp - 1;
  }
  const std::vector<Range> layers = EvenRanges(graph.config.num_hidden_layers, plan.pp);
  for (int stage = 0; stage < plan.pp; ++stage) {
    if (node.layer < layers[static_cast<size_t>(stage)].end) return stage;
  }
  return plan.pp - 1;
}

Graph SplitGraph(const Graph& graph, const ParallelPlan& plan, int rank, AttentionSplit attention) {
  SAMEBITS_CHECK(rank >= 0 && rank < plan.ranks(), "a rank of the plan");
  if (plan.pp > graph.config.num_hidden_layers) {
    Fail(ErrorCode::kUsage, "pp={}: the model has {} layers, a stage needs at least one", plan.pp,
         graph.config.num_hidden_layers);
  }
  return Splitter(graph, plan, rank, attention).Split();
}

}  // namespace samebits
