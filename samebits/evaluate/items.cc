#include "samebits/evaluate/items.h"

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "samebits/base/error.h"
#include "samebits/evaluate/score.h"

namespace samebits {
namespace {

constexpr std::string_view kMark = "#### ", kSpace = " \t\r\n";
// A question of a million tokens fits. JSON takes some twenty times its text while it is parsed.
constexpr size_t kMaxLine = size_t{4} << 20;

Json ParseLine(std::string_view line, const std::string& place) {
  if (line.size() > kMaxLine) {
    Fail(ErrorCode::kBadInput,
         "{}: expected one question a line, found a line of {} bytes (at most {})", place,
         line.size(), kMaxLine);
  }
  try {
    return ParseJson(line, place);
  } catch (const Error& error) {
    Fail(error.code(),
         "{}; expected one JSON object a line: "
         "{{\"question\": \"...\", \"answer\": \"... #### 42\"}}",
         error.what());
  }
}

TaskItem ParseItem(std::string_view line, const std::string& place, int64_t number) {
  const Json json = ParseLine(line, place);
  if (!json.is_object()) {
    Fail(ErrorCode::kBadInput, "{}: expected an object with \"question\" and \"answer\", found {}",
         place, Excerpt(json));
  }
  TaskItem item{StringField(json, "question", place), StringField(json, "answer", place), number};
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
    items.push_back(ParseItem(line, fmt::format("{}:{}", place, number), number));
  }
  if (items.empty()) {
    Fail(ErrorCode::kBadInput,
         "{}: no items; expected lines like {{\"question\": \"...\", \"answer\": \"... #### 42\"}}",
         place);
  }
  return items;
}

void CheckTarget(const TaskItem& item, const std::string& place) {
  const std::string target = Normalized(item.answer);
  if (IsRight(StrictMatch(fmt::format("{}{}", kMark, target)), item.answer) ||
      IsRight(FlexibleExtract(target), item.answer)) {
    return;
  }
  const std::string result = item.answer.substr(item.answer.rfind(kMark) + kMark.size());
  Fail(ErrorCode::kBadInput,
       "{}:{}: 'answer': expected a number alone behind the last \"#### \", as 42 or -1,234.5, "
       "found {}; no answer could be right",
       place, item.line, Excerpt(Json(result)));
}

std::vector<std::string> NotesOn(std::span<const TaskItem> items,
                                 std::span<const TaskItem> examples, const std::string& place) {
  std::unordered_set<std::string_view> shown;
  for (const TaskItem& example : examples) shown.insert(example.question);
  std::unordered_map<std::string_view, int64_t> asked;  // the line where it first stands
  int64_t twice = 0, known = 0;
  std::string first_twice, first_known;
  for (const TaskItem& item : items) {
    const auto [at, fresh] = asked.emplace(item.question, item.line);
    if (!fresh && twice++ == 0) {
      first_twice = fmt::format("line {} is line {}", item.line, at->second);
    }
    if (shown.contains(item.question) && known++ == 0) {
      first_known = fmt::format("line {}", item.line);
    }
  }
  std::vector<std::string> notes;
  if (twice > 0) {
    notes.push_back(fmt::format("{}: {} of {} questions repeat another one ({}); each counts",
                                place, twice, items.size(), first_twice));
  }
  if (known > 0) {
    notes.push_back(
        fmt::format("{}: {} of {} questions are among the examples, with their answers ({})", place,
                    known, items.size(), first_known));
  }
  return notes;
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
