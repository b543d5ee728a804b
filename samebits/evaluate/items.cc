#include "samebits/evaluate/items.h"

#include <algorithm>

#include "samebits/base/error.h"

namespace samebits {
namespace {

constexpr std::string_view kMark = "#### ", kSpace = " \t\r\n";

TaskItem ParseItem(std::string_view line, const std::string& place) {
  const Json json = ParseJson(line, place);
  if (!json.is_object()) {
    Fail(ErrorCode::kBadInput, "{}: expected an object with \"question\" and \"answer\", found {}",
         place, Excerpt(json));
  }
  TaskItem item{StringField(json, "question", place), StringField(json, "answer", place)};
  if (item.question.find_first_not_of(kSpace) == std::string::npos) {
    Fail(ErrorCode::kBadInput, "{}: 'question': expected a text, found {}", place,
         Excerpt(json["question"]));
  }
  const size_t mark = item.answer.rfind(kMark);
  if (mark == std::string::npos ||
      item.answer.find_first_not_of(kSpace, mark + kMark.size()) == std::string::npos) {
    Fail(ErrorCode::kBadInput,
         "{}: 'answer': expected a text with \"#### \" and the result, found {}", place,
         Excerpt(json["answer"]));
  }
  return item;
}

}  // namespace

std::vector<TaskItem> ParseItems(std::string_view text, const std::string& place) {
  std::vector<TaskItem> items;
  int64_t number = 0;
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
    ++number;
    if (line.find_first_not_of(kSpace) == std::string_view::npos) continue;
    items.push_back(ParseItem(line, fmt::format("{}:{}", place, number)));
  }
  if (items.empty()) {
    Fail(ErrorCode::kBadInput,
         "{}: no items; expected lines like {{\"question\": \"...\", \"answer\": \"... #### 42\"}}",
         place);
  }
  return items;
}

std::string FewShotText(std::span<const TaskItem> examples, const std::string& question) {
  std::string text;
  for (const TaskItem& example : examples) {
    text += "Question: " + example.question + "\nAnswer: " + example.answer + "\n\n";
  }
  return text + "Question: " + question + "\nAnswer:";
}

OrderedJson FewShotMessages(std::span<const TaskItem> examples, const std::string& question) {
  OrderedJson messages = OrderedJson::array();
  for (const TaskItem& example : examples) {
    messages.push_back({{"role", "user"}, {"content", example.question}});
    messages.push_back({{"role", "assistant"}, {"content", example.answer}});
  }
  messages.push_back({{"role", "user"}, {"content", question}});
  return messages;
}

}  // namespace samebits
