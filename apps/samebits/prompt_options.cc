#include "apps/samebits/prompt_options.h"

#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "apps/samebits/model_options.h"
#include "apps/samebits/ranks.h"
#include "samebits/base/error.h"
#include "samebits/text/chat_template.h"

namespace samebits {
namespace {

struct PromptText {
  std::string text;
  bool templated = false;  // a template writes its own special tokens
};

PromptText RenderChat(const PromptOptions& options, const std::string& folder) {
  const Chat chat = ParseChat(ReadInput(options.chat), options.chat);
  const std::optional<ChatTemplate> chat_template = ChatTemplate::Open(folder);
  if (!chat_template) {
    Fail(ErrorCode::kUsage, "--chat: {} has no chat template; give text or --ids", folder);
  }
  return {chat_template->Render(chat), true};
}

std::string PlainText(const PromptOptions& options) {
  if (!options.prompt.empty() && options.prompt != "-") return options.prompt;
  std::string text;
  const bool terminal = FromRoot(isatty(STDIN_FILENO) != 0 ? "terminal" : "") == "terminal";
  if (options.prompt == "-" || !terminal) text = ReadInput("-");
  if (text.ends_with('\n')) text.pop_back();  // of the line, not of the prompt
  if (text.empty()) Fail(ErrorCode::kUsage, "give a prompt or --ids 1,2,3");
  return text;
}

PromptText RenderText(const PromptOptions& options, const std::string& folder) {
  std::string text = PlainText(options);
  std::optional<ChatTemplate> chat_template;
  if (!options.raw) chat_template = ChatTemplate::Open(folder);
  if (!chat_template) {
    if (!options.system.empty()) {
      Fail(ErrorCode::kUsage, "--system: {}",
           options.raw ? "--raw takes the text as it is" : folder + " has no chat template");
    }
    return {std::move(text), false};
  }
  Chat chat;
  if (!options.system.empty()) {
    chat.messages.push_back({{"role", "system"}, {"content", options.system}});
  }
  chat.messages.push_back({{"role", "user"}, {"content", std::move(text)}});
  return {chat_template->Render(chat), true};
}

}  // namespace

void AddPromptOptions(CLI::App& command, PromptOptions& options) {
  command.add_option("PROMPT", options.prompt,
                     "text, for the model's chat template when it has one; without it or with -: "
                     "standard input");
  command.add_option("--chat", options.chat,
                     "JSON file instead of a text: messages, or {\"messages\": [...], \"tools\": "
                     "[...]}");
  command.add_option("--ids", options.ids, "token ids instead of a text: 1,2,3");
  command.add_option("--system", options.system, "the system message in front of the text");
  command.add_flag("--raw", options.raw, "the text as it is, without the chat template");
}

namespace {

std::string ReadWhole(const std::string& path) {
  std::FILE* file = path == "-" ? stdin : std::fopen(path.c_str(), "rb");
  if (file == nullptr) Fail(ErrorCode::kIo, "{}: {}", path, std::strerror(errno));
  std::string text;
  size_t used = 0;
  do {
    text.resize(used + std::max<size_t>(size_t{1} << 16, used / 2));
    used += std::fread(text.data() + used, 1, text.size() - used, file);
  } while (used == text.size());
  text.resize(used);
  const bool failed = std::ferror(file) != 0;
  const int reason = errno;
  if (file != stdin) std::fclose(file);
  if (failed) Fail(ErrorCode::kIo, "{}: {}", path, std::strerror(reason));
  return text;
}

}  // namespace

std::string ReadInput(const std::string& path) {
  if (path != "-") return ReadWhole(path);
  return FromRoot(IsRootRank() ? ReadWhole(path) : "");
}

Prompt ReadPrompt(const PromptOptions& options, const std::string& folder,
                  const ModelConfig& config, std::optional<Tokenizer>& tokenizer) {
  const int given = static_cast<int>(!options.prompt.empty()) +
                    static_cast<int>(!options.ids.empty()) +
                    static_cast<int>(!options.chat.empty());
  if (given > 1) Fail(ErrorCode::kUsage, "give a prompt or --ids or --chat, not more than one");
  if (given == 1 && options.prompt.empty() && (options.raw || !options.system.empty())) {
    Fail(ErrorCode::kUsage, "--raw and --system belong to a text, not to --ids or --chat");
  }
  Prompt prompt;
  if (!options.ids.empty()) {
    prompt.ids = ParseIds(options.ids);
  } else {
    const PromptText rendered =
        options.chat.empty() ? RenderText(options, folder) : RenderChat(options, folder);
    if (!tokenizer) tokenizer = Tokenizer::Open(folder);
    prompt.ids = tokenizer->Encode(rendered.text, !rendered.templated);
    prompt.text = rendered.text;
  }
  CheckIds(prompt.ids, config);
  return prompt;
}

}  // namespace samebits
