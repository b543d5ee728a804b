// Items, their prompts and what has come back so far: which prompts are still to be answered, a
// line for each item that is done, the score. Knows no runtime and no file.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "samebits/base/json.h"
#include "samebits/engine/batch_generate.h"
#include "samebits/evaluate/items.h"
#include "samebits/evaluate/score.h"

namespace samebits {

struct Task {
  std::vector<TaskItem> items;
  std::vector<std::vector<int64_t>> prompts;  // token ids, one list an item
  int64_t samples = 1;                        // answers of each item; the majority counts
  uint64_t seed = 0;
};

// "sha256:..." of the ids as text: "1,2,3".
std::string PromptDigest(const std::vector<int64_t>& ids);

class Evaluation {
 public:
  explicit Evaluation(Task task);

  // Takes the items of lines that another run wrote (result_file.h) as done. Those behind the last
  // item of this run are passed over. Throws Error(kBadInput): broken lines, an item twice; another
  // prompt (kUsage), since then tokenizer or chat template are not those of that run.
  void Restore(const std::vector<Json>& lines, const std::string& path);

  // What is still to be answered: all samples of an item one behind the other. Sample j of item i
  // has the seed DerivedSeed(DerivedSeed(seed, i), j), both counted from 0.
  std::vector<BatchPrompt> Waiting() const;

  // Takes the answer of the n-th of Waiting() as it was before the first Add. The item's line when
  // this was its last sample.
  std::optional<Json> Add(size_t n, const Generation& answer);

  struct Score {
    int64_t items = 0, done = 0, restored = 0;     // restored: of those that are done
    int64_t strict_right = 0, flexible_right = 0;  // of those that are done
    int64_t tokens = 0;                            // of this run's answers
  };
  const Score& score() const { return score_; }

 private:
  struct Progress {
    bool restored = false;
    int64_t answered = 0;
    std::vector<Generation> samples;
  };
  size_t ItemOf(size_t n) const { return waiting_[n / static_cast<size_t>(task_.samples)]; }
  uint64_t SeedOf(size_t item, int64_t sample) const;
  Json Line(size_t item) const;
  void Count(const Json& line);

  Task task_;
  std::vector<Progress> progress_;  // of each item
  std::vector<size_t> waiting_;     // items that are not restored
  Score score_;
};

}  // namespace samebits
