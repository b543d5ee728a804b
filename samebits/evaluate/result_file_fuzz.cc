// Any text either is what a run has left, which another one goes on from, or gives an Error.
#include <cstdlib>

#include "samebits/base/error.h"
#include "samebits/evaluate/evaluation.h"
#include "samebits/evaluate/result_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  static const samebits::Json kRun = {{"format", "samebits-eval-1"}, {"seed", 0}};
  try {
    const samebits::FoundResults found = samebits::ParseResults(text, "input", kRun);
    // What is kept ends with a line, and what is cut has none.
    const auto bytes = static_cast<size_t>(found.bytes);
    if (bytes > size || text.find('\n', bytes) != std::string_view::npos) std::abort();
    if (bytes > 0 && text[bytes - 1] != '\n') std::abort();
    if (bytes == 0 && !found.lines.empty()) std::abort();
    samebits::Evaluation evaluation({{{"a", "#### 1"}, {"b", "#### 2"}}, {{1}, {2, 3}}, 2, 0});
    evaluation.Restore(found.lines, "input");
    const samebits::Evaluation::Score& score = evaluation.score();
    if (score.done != score.restored || score.done > score.items) std::abort();
    if (score.strict_right > score.done || score.flexible_right > score.done) std::abort();
    if (evaluation.Waiting().size() != 2 * static_cast<size_t>(score.items - score.done)) {
      std::abort();
    }
  } catch (const samebits::Error&) {  // the expected outcome
  }
  return 0;
}
