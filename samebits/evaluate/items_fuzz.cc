// Any text either is a list of questions, of which prompts can be made, or gives an Error.
#include <cstdlib>

#include "samebits/base/error.h"
#include "samebits/evaluate/items.h"
#include "samebits/evaluate/score.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const std::vector<samebits::TaskItem> items = samebits::ParseItems(text, "input");
    if (items.empty()) std::abort();
    int64_t line = 0;
    for (const samebits::TaskItem& item : items) {
      if (item.line <= line) std::abort();
      line = item.line;
      if (samebits::FewShotText(items, item.question).size() < item.question.size()) std::abort();
      if (samebits::FewShotMessages({&item, 1}, item.question).size() != 3) std::abort();
      // The item as an answer to itself: when it can be asked, it is right.
      const bool right = samebits::IsRight(samebits::StrictMatch(item.answer), item.answer) ||
                         samebits::IsRight(samebits::FlexibleExtract(item.answer), item.answer);
      try {
        samebits::CheckTarget(item, "input");
      } catch (const samebits::Error&) {
        continue;
      }
      // Only a "#### " in the working can hide the one of the result.
      if (!right && item.answer.find("#### ") == item.answer.rfind("#### ")) std::abort();
    }
    if (samebits::NotesOn(items, items, "input").empty()) std::abort();
  } catch (const samebits::Error&) {  // the expected outcome
  }
  return 0;
}
