#include "samebits/text/chat.h"

#include <filesystem>
#include <optional>

#include "samebits/base/error.h"
#include "samebits/base/json.h"

namespace samebits {
namespace {

constexpr std::string_view kStart = "<|im_start|>", kEnd = "<|im_end|>";
constexpr std::string_view kSystem = "<|im_start|>system";
constexpr std::string_view kAssistant = "<|im_start|>assistant";

[[noreturn]] void Unsupported(const std::string& place, const char* what) {
  Fail(ErrorCode::kUnsupported,
       "{}: {}; a Jinja interpreter is not here yet: give the text as it is with --raw, or --ids",
       place, what);
}

// A Jinja string from behind its opening quote to the closing one, escapes resolved; nullopt when
// it does not end or has an escape of another kind.
std::optional<std::string> StringLiteral(std::string_view text, char quote) {
  std::string result;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == quote) return result;
    if (text[i] != '\\') {
      result.push_back(text[i]);
      continue;
    }
    if (++i == text.size()) return std::nullopt;
    switch (text[i]) {
      case 'n':
        result.push_back('\n');
        break;
      case 't':
        result.push_back('\t');
        break;
      case '\\':
      case '\'':
      case '"':
        result.push_back(text[i]);
        break;
      default:
        return std::nullopt;
    }
  }
  return std::nullopt;
}

// The system message that stands in the template as text; empty when there is none.
std::string DefaultSystem(std::string_view chat, const std::string& place) {
  for (size_t at = chat.find(kSystem); at != std::string_view::npos;
       at = chat.find(kSystem, at + 1)) {
    const char before = at == 0 ? '}' : chat[at - 1];
    const bool quoted = before == '\'' || before == '"';
    const std::optional<std::string> literal =
        quoted ? StringLiteral(chat.substr(at), before) : std::string(chat.substr(at));
    if (!literal) Unsupported(place, "the chat template's system message can not be read");
    const size_t begin = kSystem.size() + 1, end = literal->find(kEnd);
    if (end == std::string::npos || end < begin || (*literal)[begin - 1] != '\n') continue;
    std::string system = literal->substr(begin, end - begin);
    // Outside quotes a brace is an expression: the message of the chat, not one of the template.
    if (!system.empty() && (quoted || system.find('{') == std::string::npos)) return system;
  }
  return "";
}

bool Blank(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

// The generation prompt must be "<|im_start|>assistant\n" and nothing more.
bool PlainGenerationPrompt(std::string_view chat) {
  const size_t at = chat.rfind(kAssistant);
  if (at == std::string_view::npos) return false;
  std::string_view rest = chat.substr(at + kAssistant.size());
  if (rest.starts_with("\\n")) {
    rest.remove_prefix(2);
  } else if (rest.starts_with("\n")) {
    rest.remove_prefix(1);
  } else {
    return false;
  }
  return rest.empty() || rest[0] == '\'' || rest[0] == '"' || rest[0] == '{';
}

}  // namespace

std::string FormatChatMl(std::string_view chat, std::string_view user, const std::string& place) {
  if (chat.find(kStart) == std::string_view::npos || chat.find(kEnd) == std::string_view::npos) {
    Unsupported(place, "no chat template of the ChatML kind");
  }
  if (!PlainGenerationPrompt(chat)) {
    Unsupported(place, "the chat template's generation prompt is not <|im_start|>assistant alone");
  }
  const bool trims =
      chat.find("trim") != std::string_view::npos || chat.find("strip(") != std::string_view::npos;
  if (trims && !user.empty() && (Blank(user.front()) || Blank(user.back()))) {
    Unsupported(place, "the chat template trims texts, and this one begins or ends blank");
  }
  std::string text;
  if (const std::string system = DefaultSystem(chat, place); !system.empty()) {
    text += "<|im_start|>system\n" + system + "<|im_end|>\n";
  }
  text += "<|im_start|>user\n";
  text += user;
  text += "<|im_end|>\n<|im_start|>assistant\n";
  return text;
}

std::string FormatChat(const std::string& folder, std::string_view user) {
  const std::string path = folder + "/tokenizer_config.json";
  const std::string jinja = folder + "/chat_template.jinja";
  std::error_code ignored;
  if (std::filesystem::exists(jinja, ignored)) {
    return FormatChatMl(ReadTextFile(jinja, 1 << 20), user, jinja);
  }
  std::string chat;
  if (std::filesystem::exists(path, ignored)) {
    const Json json = ParseJson(ReadTextFile(path, 16 << 20), path);
    if (json.is_object() && HasField(json, "chat_template") && json["chat_template"].is_string()) {
      chat = json["chat_template"].get<std::string>();
    }
  }
  return FormatChatMl(chat, user, folder);
}

}  // namespace samebits
