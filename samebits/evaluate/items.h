// Questions with answers that can be checked, in GSM8K's layout, and how they become prompts.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "samebits/base/json.h"

namespace samebits {

struct TaskItem {
  std::string question;
  std::string answer;  // the working, then "#### 42"
  int64_t line = 0;    // of its file, from 1
};

// One JSON object a line with the texts "question" and "answer"; other keys are let pass, and so
// are lines of white space and a byte order mark. The answer must have something behind its last
// "#### ". `place`: the file's name. Throws Error(kBadInput):
//   test.jsonl:3: 'answer': expected a text with "#### " and the result, found "42"
std::vector<TaskItem> ParseItems(std::string_view text, const std::string& place);

// Whether the item can be asked: what stands behind its "#### " must be something that StrictMatch
// or FlexibleExtract can give, or every answer would be wrong. Throws Error(kBadInput).
void CheckTarget(const TaskItem& item, const std::string& place);

// What a user should know of questions that can be asked all the same, with the first line of each
// kind: those that stand there twice, those that are among the examples.
std::vector<std::string> NotesOn(std::span<const TaskItem> items,
                                 std::span<const TaskItem> examples, const std::string& place);

// The examples with their answers and the question without one, a blank line between them:
//   Question: 1 + 1?\nAnswer: 1 + 1 = 2 #### 2\n\nQuestion: 2 + 3?\nAnswer:
std::string FewShotText(std::span<const TaskItem> examples, const std::string& question);

// The same as a conversation: each example a turn of the user and one of the assistant, word for
// word, then the question as the user's last message.
OrderedJson FewShotMessages(std::span<const TaskItem> examples, const std::string& question);

}  // namespace samebits
