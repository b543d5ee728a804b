// A prompt as users give it: text, a chat, or token ids.
#pragma once

#include <CLI/CLI.hpp>
#include <optional>
#include <string>
#include <vector>

#include "samebits/checkpoint/config.h"
#include "samebits/text/tokenizer.h"

namespace samebits {

struct PromptOptions {
  std::string prompt;  // empty or "-": standard input, unless it is a terminal
  std::string chat;    // a JSON file with messages; "-": standard input
  std::string ids;     // "1,2,3"
  std::string system;
  bool raw = false;  // the text without the chat template
};

struct Prompt {
  std::vector<int64_t> ids;
  std::string text;  // as it was encoded, so behind the chat template; empty when ids were given
};

void AddPromptOptions(CLI::App& command, PromptOptions& options);

// The ids, checked against the vocabulary and the context before anything is sized by them. Opens
// `tokenizer` when text has to be encoded. Throws Error.
Prompt ReadPrompt(const PromptOptions& options, const std::string& folder,
                  const ModelConfig& config, std::optional<Tokenizer>& tokenizer);

// A whole file; "-" is standard input. Throws Error(kIo).
std::string ReadInput(const std::string& path);

}  // namespace samebits
