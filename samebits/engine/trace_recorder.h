// Records a run as a trace file, whatever the chunks.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "samebits/engine/runtime.h"
#include "samebits/trace/trace.h"

namespace samebits {

class TraceRecorder : public Recorder {
 public:
  // The tensors `names` of the graph (empty: all) for the tokens `ids`. `metadata` is added to the
  // MUST keys.
  TraceRecorder(const std::string& path, const Graph& graph, DType dtype,
                const std::vector<int64_t>& ids, std::map<std::string, std::string> metadata,
                const std::vector<std::string>& names = {});

  bool Wants(std::string_view name) const override { return writer_.Has(name); }
  void Record(std::string_view name, const TensorView& rows, int64_t first_token) override;
  void Finish() { writer_.Finish(); }

 private:
  int64_t tokens_;
  TraceWriter writer_;
};

}  // namespace samebits
