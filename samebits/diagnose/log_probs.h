// Log-probabilities that an inference server returned, against our own and the spread that
// legitimate arithmetic has: other roundings of the sums, other places to round.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "samebits/checkpoint/checkpoint.h"
#include "samebits/graph/graph.h"

namespace samebits {

// log p(token `id` at `position` | the tokens before it), as the engine gave it.
struct GivenLogProb {
  int64_t position = 0, id = 0;
  double value = 0;
};

struct LogProbFile {
  std::string path;
  std::vector<int64_t> input_ids;
  DType dtype = DType::kF32;  // that the engine ran in
  std::vector<GivenLogProb> given;
};

// docs/logprobs.md. Throws Error(kIo, kBadInput).
LogProbFile OpenLogProbs(const std::string& path, const ModelConfig& config);
LogProbFile ParseLogProbs(const std::string& text, const std::string& place,
                          const ModelConfig& config);

struct LogProbResult {
  struct Value {
    GivenLogProb given;
    double ours = 0;    // exact sums, Hugging Face's rounding
    double spread = 0;  // largest distance of a legitimate run of ours from that
  };
  std::vector<Value> values;
  double rms = 0, max = 0;                // of the engine's distance from ours
  double spread_rms = 0, spread_max = 0;  // the largest of a legitimate run
  int64_t runs = 0;                       // legitimate ones
  // As a whole: no further from ours than three times the furthest legitimate run, and no value
  // beyond three times the largest spread.
  bool inside = false;
};

LogProbResult CompareLogProbs(const Graph& graph, const Checkpoint& checkpoint,
                              const LogProbFile& file, int threads,
                              const std::function<void(int64_t done, int64_t total)>& progress);

}  // namespace samebits
