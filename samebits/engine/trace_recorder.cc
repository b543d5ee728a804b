#include "samebits/engine/trace_recorder.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

namespace samebits {
namespace {

std::vector<TraceWriter::Plan> Plans(const Graph& graph, DType dtype,
                                     const TraceRecorder::Layout& layout,
                                     const std::vector<std::string>& names) {
  std::vector<TraceWriter::Plan> plans;
  for (const Node& node : graph.nodes) {
    for (const std::string& name : node.outputs) {
      if (!names.empty() && std::find(names.begin(), names.end(), name) == names.end()) continue;
      Shape shape = OutputShape(graph, node, name, layout.tokens);
      if (layout.batch > 0) shape.insert(shape.begin(), layout.batch);
      plans.push_back({name, dtype, shape});
    }
  }
  return plans;
}

}  // namespace

std::map<std::string, std::string> TraceMetadata(DType dtype, const std::vector<int64_t>& ids) {
  std::vector<int64_t> positions;
  for (size_t i = 0; i < ids.size(); ++i) positions.push_back(static_cast<int64_t>(i));
  return {{"format", "samebits-trace-1"},
          {"input_ids", fmt::format("[{}]", fmt::join(ids, ", "))},
          {"positions", fmt::format("[{}]", fmt::join(positions, ", "))},
          {"dtype", std::string(ModelDTypeName(dtype))},
          {"framework", "samebits"},
          {"attention", "eager"}};
}

TraceRecorder::TraceRecorder(const std::string& path, const Graph& graph, DType dtype,
                             const Layout& layout,
                             const std::map<std::string, std::string>& metadata,
                             const std::vector<std::string>& names)
    : writer_(path, metadata, Plans(graph, dtype, layout, names)) {
  for (int64_t i = 0; i < std::max<int64_t>(1, layout.batch); ++i) {
    sequences_.emplace_back(writer_, i, layout.tokens);
  }
}

void TraceRecorder::SequenceRecorder::Record(std::string_view name, const TensorView& rows,
                                             int64_t first_token) {
  const int64_t size = DTypeSize(rows.dtype);
  if (!name.ends_with(".scores") && !name.ends_with(".probs")) {
    const int64_t row = rows.bytes() / rows.shape[0];
    writer_.Write(name, (index_ * tokens_ + first_token) * row, rows.data, rows.bytes());
    return;
  }
  const int64_t heads = rows.shape[0], count = rows.shape[1], keys = rows.shape[2];
  for (int64_t head = 0; head < heads; ++head) {
    for (int64_t r = 0; r < count; ++r) {
      const int64_t row = (index_ * heads + head) * tokens_ + first_token + r;
      writer_.Write(name, row * tokens_ * size, rows.data + (head * count + r) * keys * size,
                    keys * size);
    }
  }
}

}  // namespace samebits
