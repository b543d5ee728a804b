#include "samebits/engine/trace_recorder.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

namespace samebits {
namespace {

std::map<std::string, std::string> Metadata(std::map<std::string, std::string> metadata,
                                            DType dtype, const std::vector<int64_t>& ids) {
  std::vector<int64_t> positions;
  for (size_t i = 0; i < ids.size(); ++i) positions.push_back(static_cast<int64_t>(i));
  metadata["format"] = "samebits-trace-1";
  metadata["input_ids"] = fmt::format("[{}]", fmt::join(ids, ", "));
  metadata["positions"] = fmt::format("[{}]", fmt::join(positions, ", "));
  metadata["dtype"] = ModelDTypeName(dtype);
  metadata["framework"] = "samebits";
  metadata["attention"] = "eager";
  return metadata;
}

std::vector<TraceWriter::Plan> Plans(const Graph& graph, DType dtype, int64_t tokens,
                                     const std::vector<std::string>& names) {
  std::vector<TraceWriter::Plan> plans;
  for (const Node& node : graph.nodes) {
    for (const std::string& name : node.outputs) {
      const bool wanted =
          names.empty() || std::find(names.begin(), names.end(), name) != names.end();
      if (wanted) plans.push_back({name, dtype, OutputShape(graph, node, name, tokens)});
    }
  }
  return plans;
}

}  // namespace

TraceRecorder::TraceRecorder(const std::string& path, const Graph& graph, DType dtype,
                             const std::vector<int64_t>& ids,
                             std::map<std::string, std::string> metadata,
                             const std::vector<std::string>& names)
    : tokens_(static_cast<int64_t>(ids.size())),
      writer_(path, Metadata(std::move(metadata), dtype, ids),
              Plans(graph, dtype, tokens_, names)) {}

void TraceRecorder::Record(std::string_view name, const TensorView& rows, int64_t first_token) {
  const int64_t size = DTypeSize(rows.dtype);
  if (!name.ends_with(".scores") && !name.ends_with(".probs")) {
    const int64_t row = rows.bytes() / rows.shape[0];
    writer_.Write(name, first_token * row, rows.data, rows.bytes());
    return;
  }
  const int64_t heads = rows.shape[0], count = rows.shape[1], keys = rows.shape[2];
  for (int64_t head = 0; head < heads; ++head) {
    for (int64_t r = 0; r < count; ++r) {
      writer_.Write(name, (head * tokens_ + first_token + r) * tokens_ * size,
                    rows.data + (head * count + r) * keys * size, keys * size);
    }
  }
}

}  // namespace samebits
