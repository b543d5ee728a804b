#include "samebits/diagnose/whole_run.h"

#include <algorithm>
#include <random>

#include "samebits/diagnose/segments.h"
#include "samebits/tensor/convert.h"

namespace samebits {
double WholeRunCost(const Graph& graph, int64_t tokens) {
  double cost = 0;
  const auto t = static_cast<double>(tokens);
  for (const Node& node : graph.nodes) {
    const Attributes& a = node.attributes;
    if (node.kind == OpKind::kLinear) {
      cost += t * static_cast<double>(a.in_features) * static_cast<double>(a.out_features);
    } else if (node.kind == OpKind::kAttention) {
      cost += 2 * t * t * static_cast<double>(a.heads) * static_cast<double>(a.head_dim);
    }
  }
  return cost;
}

void RunWhole(const ReplaySource& like, const std::map<std::string, Form>& forms,
              const std::function<void(const std::string& name, const TensorView&)>& visit,
              std::optional<uint64_t> noise) {
  RunWholeJudged(
      like, forms,
      [&](const Replay& replay, const TensorView& tensor, const Expectation&) {
        visit(replay.node.outputs[static_cast<size_t>(replay.output)], tensor);
      },
      noise);
}

void RunWholeJudged(
    const ReplaySource& like, const std::map<std::string, Form>& forms,
    const std::function<void(const Replay& replay, const TensorView&, const Expectation&)>& visit,
    std::optional<uint64_t> noise) {
  std::mt19937_64 random(noise.value_or(0));
  std::uniform_real_distribution<double> uniform(-1, 1);
  const Graph& graph = *like.graph;
  std::map<std::string, Tensor, std::less<>> tensors;
  std::map<std::string, size_t> last_use;
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    for (const std::string& name : graph.nodes[i].inputs) last_use[name] = i;
    for (const std::string& name : graph.nodes[i].outputs) last_use.try_emplace(name, i);
  }
  ReplaySource source = like;
  source.dots = nullptr;  // sums are kept by name, and these tensors are others of the same names
  source.tensor = [&](std::string_view name) -> const TensorView* {
    const auto found = tensors.find(name);
    return found == tensors.end() ? nullptr : &found->second.view();
  };
  for (size_t n = 0; n < graph.nodes.size(); ++n) {
    const Node& node = graph.nodes[n];
    for (size_t output = 0; output < node.outputs.size(); ++output) {
      Replay replay;
      replay.node = node;
      replay.output = static_cast<int>(output);
      DType stored = source.dtype;
      if (const auto form = forms.find(GroupName(replay)); form != forms.end()) {
        form->second.Apply(replay);
        if (replay.kept_fp32) stored = DType::kF32;
      }
      const std::string& name = node.outputs[output];
      Tensor tensor(stored, OutputShape(graph, node, name, source.tokens()));
      const Expectation e = Evaluate(replay, source, stored, {0, source.tokens()});
      const double share = noise ? TypicalShare(replay, source.tokens()) : 0;
      for (size_t i = 0; i < e.y.size(); ++i) {
        if (!e.ignore.empty() && e.ignore[i] != 0) continue;  // masked scores stay 0
        const double moved = noise && !e.bound.empty() ? share * e.bound[i] * uniform(random) : 0;
        StoreValue(tensor, static_cast<int64_t>(i),
                   ApplyTail(e.tail, e.y[i] + moved, static_cast<int64_t>(i) % e.columns));
      }
      visit(replay, tensor.view(), e);
      tensors.insert_or_assign(name, std::move(tensor));
    }
    std::erase_if(tensors, [&](const auto& entry) { return last_use[entry.first] <= n; });
  }
}

}  // namespace samebits
