#include "samebits/diagnose/whole_run.h"

#include <algorithm>

#include "samebits/base/error.h"

namespace samebits {

double WholeRunCost(const Graph& graph, int64_t tokens) {
  double cost = 0;
  for (const Node& node : graph.nodes) {
    Replay replay;
    replay.node = node;
    for (replay.output = 0; replay.output < static_cast<int>(node.outputs.size());
         ++replay.output) {
      cost += ReplayCost(replay, tokens);
    }
  }
  return cost;
}

ReplaySource SourceOfIds(const Graph& graph, const Checkpoint& checkpoint, ThreadPool& pool,
                         DType dtype, const std::vector<int64_t>& ids, const std::string& place) {
  constexpr double kAffordable = 1e12;  // minutes
  const auto tokens = static_cast<int64_t>(ids.size());
  const double cost = WholeRunCost(graph, tokens);
  if (cost > kAffordable) {
    Fail(ErrorCode::kUnsupported,
         "{}: {} tokens through this model are {:.2g} multiplications in fp64, more than {:.2g}: "
         "give fewer tokens",
         place, tokens, cost, kAffordable);
  }
  ReplaySource source;
  source.graph = &graph;
  source.checkpoint = &checkpoint;
  source.pool = &pool;
  source.dtype = dtype;
  source.input_ids = ids;
  for (int64_t i = 0; i < tokens; ++i) source.positions.push_back(i);
  return source;
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
  RoundingNoise errors(noise.value_or(0));
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
      // Masked scores stay 0.
      StoreOutcomes(replay, e, source.tokens(), noise ? &errors : nullptr, tensor);
      visit(replay, tensor.view(), e);
      tensors.insert_or_assign(name, std::move(tensor));
    }
    std::erase_if(tensors, [&](const auto& entry) { return last_use[entry.first] <= n; });
  }
}

}  // namespace samebits
