// One line on stderr that shows how far long work has come; nothing when stderr is no terminal.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "samebits/checkpoint/checkpoint.h"

namespace samebits {

class ProgressLine {
 public:
  ProgressLine();
  ~ProgressLine() { Clear(); }
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  bool shown() const { return terminal_; }
  // [########            ] 512 of 4096 tokens of the prompt
  void Show(int64_t done, int64_t total, std::string_view what);
  void Clear();

 private:
  bool terminal_, drawn_ = false;
};

// On a terminal: brings what of a large checkpoint is not in memory yet, with a bar. The engine
// would wait for the same bytes without saying so. Not on several ranks, which read their shares.
void PageIn(const Checkpoint& checkpoint, ProgressLine& progress);

// 0 for no time.
double PerSecond(int64_t count, double seconds);

}  // namespace samebits
