#include "apps/samebits/substitute_options.h"

#include <fmt/format.h>
#include <fnmatch.h>
#include <sys/stat.h>

#include <algorithm>

#include "samebits/base/error.h"
#include "samebits/base/json.h"

namespace samebits {
namespace {

struct Asked {
  std::string pattern, path, their_name;
};

Asked Parse(const std::string& text) {
  const size_t equal = text.find('=');
  if (equal == std::string::npos || equal == 0 || equal + 1 == text.size()) {
    Fail(ErrorCode::kUsage, "--substitute '{}': expected NAME=FILE or NAME=FILE:THEIR_NAME", text);
  }
  Asked asked{text.substr(0, equal), text.substr(equal + 1), ""};
  struct stat info {};
  const size_t colon = asked.path.rfind(':');
  if (colon != std::string::npos && stat(asked.path.c_str(), &info) != 0) {
    asked.their_name = asked.path.substr(colon + 1);
    asked.path.resize(colon);
  }
  return asked;
}

class SubstituteReader {
 public:
  SubstituteReader(const Graph& graph, const Checkpoint& checkpoint,
                   const std::vector<int64_t>& ids, DType dtype)
      : graph_(graph), checkpoint_(checkpoint), ids_(ids), dtype_(dtype) {}

  void Take(const std::string& text) {
    const Asked asked = Parse(text);
    const auto file = std::make_shared<const TensorFile>(OpenTensorFile(asked.path));
    result_.files.push_back(file);
    const size_t before = result_.taken.size();
    bool known = false;
    for (const Node& node : graph_.nodes) {
      for (size_t i = 0; i < node.outputs.size(); ++i) {
        if (fnmatch(asked.pattern.c_str(), node.outputs[i].c_str(), 0) != 0) continue;
        known = true;
        TakeTensor(asked, *file, node, i);
      }
      for (const std::string& name : node.weights) {
        if (fnmatch(asked.pattern.c_str(), name.c_str(), 0) != 0) continue;
        known = true;
        TakeWeight(asked, *file, name);
      }
    }
    if (!known) {
      Fail(ErrorCode::kUsage,
           "--substitute '{}': neither a tensor of the graph nor a weight of the checkpoint has "
           "such a name",
           asked.pattern);
    }
    if (result_.taken.size() == before) {
      Fail(ErrorCode::kBadInput, "{}: no tensor for --substitute '{}'", asked.path, asked.pattern);
    }
  }

  OpenSubstitutes Finish() { return std::move(result_); }

 private:
  static const TensorView* Find(const Asked& asked, const TensorFile& file,
                                const std::string& name) {
    return file.Find(asked.their_name.empty() ? name : asked.their_name);
  }

  void CheckIds(const TensorFile& file) const {
    const auto found = file.metadata.find("input_ids");
    if (found == file.metadata.end()) return;  // no trace: whoever wrote it knows
    const Json ids = ParseJson(found->second, file.path + ": 'input_ids'");
    if (ids != Json(ids_)) {
      Fail(ErrorCode::kBadInput,
           "{}: made from other token ids than this run: its tensors belong to another text",
           file.path);
    }
  }

  void TakeTensor(const Asked& asked, const TensorFile& file, const Node& node, size_t output) {
    const std::string& name = node.outputs[output];
    const TensorView* view = Find(asked, file, name);
    if (view == nullptr) return;
    if (node.kind == OpKind::kAttention && output < 2) {
      Fail(ErrorCode::kUnsupported,
           "--substitute '{}': scores and probs live inside of the attention kernel; substitute "
           "{}",
           name, node.outputs[2]);
    }
    if (&node == &graph_.nodes.back()) {
      Fail(ErrorCode::kUnsupported, "--substitute '{}': nothing is computed behind it", name);
    }
    CheckIds(file);
    const Shape shape = OutputShape(graph_, node, name, static_cast<int64_t>(ids_.size()));
    if (view->shape != shape || view->dtype != dtype_) {
      Fail(ErrorCode::kBadInput, "{}: tensor '{}': {} {}, expected {} {} as this run has it",
           file.path, asked.their_name.empty() ? name : asked.their_name, DTypeName(view->dtype),
           ShapeToString(view->shape), DTypeName(dtype_), ShapeToString(shape));
    }
    result_.tensors[name] = *view;
    result_.taken.push_back(fmt::format("{}={}", name, file.path));
  }

  void TakeWeight(const Asked& asked, const TensorFile& file, const std::string& name) {
    const TensorView* view = Find(asked, file, name);
    if (view == nullptr) return;
    const TensorView& own = checkpoint_.Get(name);
    if (view->shape != own.shape || view->dtype != own.dtype) {
      Fail(ErrorCode::kBadInput, "{}: weight '{}': {} {}, expected {} {} as the checkpoint has it",
           file.path, asked.their_name.empty() ? name : asked.their_name, DTypeName(view->dtype),
           ShapeToString(view->shape), DTypeName(own.dtype), ShapeToString(own.shape));
    }
    if (result_.weights.insert_or_assign(name, *view).second) {
      result_.taken.push_back(fmt::format("{}={}", name, file.path));
    }
  }

  const Graph& graph_;
  const Checkpoint& checkpoint_;
  const std::vector<int64_t>& ids_;
  DType dtype_;
  OpenSubstitutes result_;
};

}  // namespace

OpenSubstitutes ReadSubstitutes(const std::vector<std::string>& asked, const Graph& graph,
                                const Checkpoint& checkpoint, const std::vector<int64_t>& ids,
                                DType dtype) {
  SubstituteReader reader(graph, checkpoint, ids, dtype);
  for (const std::string& text : asked) reader.Take(text);
  return reader.Finish();
}

}  // namespace samebits
