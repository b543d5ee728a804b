// A map from another program's names and layouts to those of a trace: docs/trace-map.md.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "samebits/base/json.h"
#include "samebits/trace/tensor_file.h"

namespace samebits {

// A size in a reshape: a number, kInferred once, or kTokens.
inline constexpr int64_t kInferred = -1, kTokens = -2;

struct MapRule {
  std::string from;                               // {N} stands for a number
  std::vector<std::string> to;                    // several: behind `split`
  std::vector<std::pair<int64_t, int64_t>> take;  // axis, index: one after the other
  std::vector<int64_t> transpose;                 // the new order of axes; empty: as they are
  std::vector<int64_t> reshape;                   // empty: as it is
  std::optional<int64_t> split_axis;
  std::vector<int64_t> split_sizes;
  std::vector<int64_t> then_reshape;  // of each part
};

struct TraceMap {
  std::string path;
  std::map<std::string, std::string> metadata;  // replaces the file's
  std::vector<MapRule> rules;
  std::vector<std::string> skip;  // names; * stands for anything, {N} for a number
};

// Throws Error(kIo, kBadInput): what is wrong where.
TraceMap OpenTraceMap(const std::string& path);
TraceMap ParseTraceMap(const std::string& text, const std::string& place);

// Throws Error(kBadInput): a rule that fits no tensor, two for one, a name that is given twice, a
// layout that can not be.
TensorFile ApplyMap(const TensorFile& file, const TraceMap& map);

}  // namespace samebits
