#include "apps/samebits/map_options.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>

#include "samebits/base/error.h"
#include "samebits/base/json.h"

namespace samebits {

Trace OpenMapped(const std::string& trace, const std::string& map) {
  if (map.empty()) return Trace::Open(trace);
  const TraceMap rules = OpenTraceMap(map);
  return Trace::Open(trace, &rules);
}

std::vector<ModelTensor> ModelTensors(const Graph& graph, int64_t tokens) {
  std::vector<ModelTensor> expected;
  for (const Node& node : graph.nodes) {
    for (const std::string& name : node.outputs) {
      expected.push_back({name, OutputShape(graph, node, name, tokens)});
    }
  }
  return expected;
}

std::vector<Suggestion> FindUnmatched(const std::string& path, const std::string& map,
                                      const Graph& graph, const Trace& trace) {
  if (trace.tensors().empty()) Fail(ErrorCode::kBadInput, "{}: no tensors", path);
  std::vector<Suggestion> found =
      SuggestNames(trace.tensors(), ModelTensors(graph, trace.tokens()));
  if (found.size() < trace.tensors().size()) return found;
  std::string text;
  constexpr size_t kShown = 5;
  for (size_t i = 0; i < std::min(kShown, found.size()); ++i) {
    text += fmt::format("\n  {}{}", Excerpt(Json(found[i].name)),
                        found[i].suggestion.empty() ? "" : ": perhaps " + found[i].suggestion);
  }
  Fail(ErrorCode::kBadInput,
       "{}: none of its {} tensors has a name of this model{}; `samebits check MODEL TRACE "
       "--suggest-map` prints a map to begin with (docs/trace-map.md){}",
       path, found.size(), map.empty() ? "" : ", mapped by " + map, text);
}

void PrintSuggestedMap(const std::string& path, const Graph& graph) {
  const TensorFile file = OpenTensorFile(path);
  std::optional<int64_t> tokens = file.StatedTokens();
  if (!tokens) {  // what most tensors begin with
    std::map<int64_t, int> firsts;
    for (const NamedTensor& tensor : file.tensors) {
      const auto first = std::find_if(tensor.view.shape.begin(), tensor.view.shape.end(),
                                      [](int64_t size) { return size > 1; });
      if (first != tensor.view.shape.end()) ++firsts[*first];
    }
    const auto most =
        std::max_element(firsts.begin(), firsts.end(),
                         [](const auto& a, const auto& b) { return a.second < b.second; });
    tokens = most == firsts.end() ? 1 : most->first;
  }
  fmt::print("{}\n", SuggestMap(file, ModelTensors(graph, std::max<int64_t>(1, *tokens))));
}

}  // namespace samebits
