#include "apps/samebits/map_options.h"

#include <fmt/format.h>

#include <algorithm>

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
  TensorFile file;
  file.path = path;
  for (const NamedTensor& tensor : trace.tensors()) file.tensors.push_back(tensor);
  std::vector<Suggestion> found = SuggestNames(file, ModelTensors(graph, trace.tokens()));
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
  int64_t tokens = 0;
  if (const auto ids = file.metadata.find("input_ids"); ids != file.metadata.end()) {
    const Json list = ParseJson(ids->second, path + ": 'input_ids'");
    if (list.is_array() && !list.empty()) {
      tokens = static_cast<int64_t>(list[0].is_array() ? list[0].size() : list.size());
    }
  }
  // Without ids the tokens are what most tensors begin with.
  std::map<int64_t, int> firsts;
  for (const NamedTensor& tensor : file.tensors) {
    for (const int64_t size : tensor.view.shape) {
      if (size <= 1) continue;
      ++firsts[size];
      break;
    }
  }
  for (const auto& [size, count] : firsts) {
    if (tokens == 0 || (count > firsts[tokens] && !file.metadata.contains("input_ids"))) {
      tokens = size;
    }
  }
  fmt::print("{}\n", SuggestMap(file, ModelTensors(graph, std::max<int64_t>(1, tokens))));
}

}  // namespace samebits
