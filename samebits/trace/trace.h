// The trace format (docs/trace-format.md): reading with validation, and writing as tensors come.
#pragma once

#include <cstdio>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "samebits/tensor/tensor.h"
#include "samebits/trace/tensor_file.h"
#include "samebits/trace/trace_map.h"

namespace samebits {

// Sequences of a batch lie one after the other: [B, T], row-major.
struct TraceInfo {
  std::vector<int64_t> input_ids;
  std::vector<int64_t> positions;  // as many as ids; 0, 1, 2, ... unless the file says otherwise
  std::vector<int64_t> attention_mask;  // as many as ids; 0 is padding; 1 unless the file says so
  int64_t batch = 0;                    // sequences; 0: the tensors have no batch dimension
  std::vector<int64_t> chunks;          // tokens of each forward pass in order; their sum is T
  DType dtype = DType::kF32;            // that the model ran in
  std::map<std::string, std::string> metadata;  // all keys of the file
};

class Trace {
 public:
  // Throws Error: all of SafetensorsFile's, a missing or malformed key, keys that contradict each
  // other, another format (kUnsupported). Shapes of tensors are whoever's who knows the model.
  // `map`: how another program's names and layouts become those of a trace; null: they are.
  static Trace Open(const std::string& path, const TraceMap* map = nullptr);
  static Trace Parse(std::span<const std::byte> bytes, const std::string& place);
  static Trace From(TensorFile file);

  const std::string& path() const { return file_.path; }
  const TraceInfo& info() const { return info_; }
  int64_t tokens() const;  // T: of each sequence
  const std::vector<NamedTensor>& tensors() const { return file_.tensors; }
  const TensorView* Find(std::string_view name) const;  // null when the trace skips it

 private:
  TensorFile file_;
  TraceInfo info_;
};

// Writes a trace whose tensor names, dtypes and shapes are known beforehand, so that rows can be
// stored as they are computed and the trace never has to be in memory. The file appears under its
// name when Finish succeeds; otherwise nothing is left behind.
class TraceWriter {
 public:
  struct Plan {
    std::string name;
    DType dtype;
    Shape shape;
  };
  // Throws Error(kIo). `metadata` must hold the MUST keys.
  TraceWriter(const std::string& path, const std::map<std::string, std::string>& metadata,
              std::vector<Plan> tensors);
  ~TraceWriter();
  TraceWriter(const TraceWriter&) = delete;
  TraceWriter& operator=(const TraceWriter&) = delete;

  bool Has(std::string_view name) const;
  // Stores `bytes` at byte `offset` of tensor `name`. Unwritten bytes are zero.
  void Write(std::string_view name, int64_t offset, const void* data, int64_t bytes);
  void Finish();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace samebits
