// Records a run as a trace file, whatever the chunks: of one sequence, or of a batch of sequences
// of one length.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "samebits/engine/recorder.h"
#include "samebits/graph/graph.h"
#include "samebits/trace/trace.h"

namespace samebits {

// The MUST keys of a sequence's trace, and positions and attention.
std::map<std::string, std::string> TraceMetadata(DType dtype, const std::vector<int64_t>& ids);

class TraceRecorder {
 public:
  // batch 0: one sequence, tensors [T, ...]; else tensors [batch, T, ...].
  struct Layout {
    int64_t batch = 0, tokens = 0;
  };
  // The tensors `names` of the graph (empty: all). `metadata` holds the MUST keys.
  TraceRecorder(const std::string& path, const Graph& graph, DType dtype, const Layout& layout,
                const std::map<std::string, std::string>& metadata,
                const std::vector<std::string>& names = {});

  // What records sequence `index`; valid as long as this.
  Recorder* sequence(int64_t index) { return &sequences_[static_cast<size_t>(index)]; }
  void Finish() { writer_.Finish(); }

 private:
  class SequenceRecorder : public Recorder {
   public:
    SequenceRecorder(TraceWriter& writer, int64_t index, int64_t tokens)
        : writer_(writer), index_(index), tokens_(tokens) {}
    bool Wants(std::string_view name) const override { return writer_.Has(name); }
    void Record(std::string_view name, const TensorView& rows, int64_t first_token) override;

   private:
    TraceWriter& writer_;
    int64_t index_, tokens_;
  };

  TraceWriter writer_;
  std::vector<SequenceRecorder> sequences_;
};

}  // namespace samebits
