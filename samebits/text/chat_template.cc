#include "samebits/text/chat_template.h"

#include <array>
#include <filesystem>
#include <utility>

#include "samebits/base/error.h"

namespace samebits {
namespace {

constexpr int64_t kMaxTemplateBytes = 1 << 20, kMaxConfigBytes = 64 << 20;

bool Exists(const std::string& path) {
  std::error_code ignored;
  return std::filesystem::exists(path, ignored);
}

// transformers reads a message's reasoning under three names: the first that is there is given
// under reasoning_content, and as thinking for templates that read that.
OrderedJson WithReasoning(const OrderedJson& message) {
  constexpr std::array<const char*, 3> kNames{"reasoning_content", "thinking", "reasoning"};
  for (const char* name : kNames) {
    const auto found = message.find(name);
    if (found == message.end()) continue;
    const OrderedJson& reasoning = *found;
    OrderedJson result = OrderedJson::object();
    result["thinking"] = reasoning;
    for (const auto& [key, value] : message.items()) result[key] = value;
    result["reasoning_content"] = reasoning;
    return result;
  }
  return message;
}

// As transformers prepares messages: objects only, keys that are null dropped.
OrderedJson Prepared(const OrderedJson& messages, const std::string& place) {
  OrderedJson prepared = OrderedJson::array();
  for (const OrderedJson& message : messages) {
    if (!message.is_object()) {
      Fail(ErrorCode::kBadInput, "{}: message {} is not an object: {}", place, prepared.size(),
           Excerpt(Json(message)));
    }
    OrderedJson kept = OrderedJson::object();
    for (const auto& [key, value] : message.items()) {
      if (!value.is_null()) kept[key] = value;
    }
    prepared.push_back(WithReasoning(kept));
  }
  return prepared;
}

void CheckObjects(const OrderedJson& list, const char* what, const std::string& place) {
  if (!list.is_array()) {
    Fail(ErrorCode::kBadInput, "{}: '{}': expected a list of objects, found {}", place, what,
         Excerpt(Json(list)));
  }
  for (const OrderedJson& item : list) {
    if (!item.is_object()) {
      Fail(ErrorCode::kBadInput, "{}: '{}': expected a list of objects, found one of {}", place,
           what, Excerpt(Json(item)));
    }
  }
}

// Named special tokens: strings, or objects with "content".
void TakeSpecialTokens(const OrderedJson& config, OrderedJson& tokens) {
  for (const auto& [key, value] : config.items()) {
    if (!key.ends_with("_token")) continue;
    if (value.is_string()) {
      tokens[key] = value;
    } else if (value.is_object() && value.contains("content") && value["content"].is_string()) {
      tokens[key] = value["content"];
    }
  }
}

OrderedJson ReadObject(const std::string& path) {
  // Not as a chat is read: model_max_length may be an integer of 31 digits.
  OrderedJson json = ParseJson(ReadTextFile(path, kMaxConfigBytes), path);
  if (!json.is_object()) Fail(ErrorCode::kBadInput, "{}: expected a JSON object", path);
  return json;
}

}  // namespace

Chat ParseChat(std::string_view text, const std::string& place) {
  OrderedJson json = ParseOrderedJson(text, place, true);
  Chat chat;
  if (json.is_array()) {
    chat.messages = std::move(json);
  } else if (json.is_object() && json.contains("messages")) {
    for (auto& [key, value] : json.items()) {
      if (key == "messages") {
        chat.messages = std::move(value);
      } else if (key == "tools") {
        chat.tools = std::move(value);
      } else if (key == "add_generation_prompt") {
        if (!value.is_boolean()) {
          Fail(ErrorCode::kBadInput, "{}: '{}': expected true or false, found {}", place, key,
               Excerpt(Json(value)));
        }
        chat.add_generation_prompt = value.get<bool>();
      } else {
        chat.variables[key] = std::move(value);
      }
    }
  } else {
    Fail(ErrorCode::kBadInput,
         "{}: expected a list of messages or an object with \"messages\", found {}", place,
         Excerpt(Json(json)));
  }
  CheckObjects(chat.messages, "messages", place);
  if (!chat.tools.is_null()) CheckObjects(chat.tools, "tools", place);
  return chat;
}

std::optional<ChatTemplate> ChatTemplate::Open(const std::string& folder) {
  const std::string jinja = folder + "/chat_template.jinja";
  const std::string config_path = folder + "/tokenizer_config.json";
  const std::string map_path = folder + "/special_tokens_map.json";
  OrderedJson config = OrderedJson::object();
  if (Exists(config_path)) config = ReadObject(config_path);
  ChatTemplate result;
  result.place_ = Exists(jinja) ? jinja : config_path;
  TakeSpecialTokens(config, result.special_tokens_);
  // As transformers: the older file counts only where the newer does not list the added tokens.
  if (!config.contains("added_tokens_decoder") && Exists(map_path)) {
    TakeSpecialTokens(ReadObject(map_path), result.special_tokens_);
  }
  if (Exists(jinja)) {
    result.default_ = jinja::Template::Parse(ReadTextFile(jinja, kMaxTemplateBytes), jinja);
    return result;
  }
  const auto found = config.find("chat_template");
  if (found == config.end() || found->is_null()) return std::nullopt;
  const std::string place = config_path + ": chat_template";
  if (found->is_string()) {
    result.default_ = jinja::Template::Parse(found->get_ref<const std::string&>(), place);
    return result;
  }
  CheckObjects(*found, "chat_template", config_path);
  for (const OrderedJson& entry : *found) {
    if (!entry.contains("name") || !entry["name"].is_string() || !entry.contains("template") ||
        !entry["template"].is_string()) {
      Fail(ErrorCode::kBadInput, "{}: expected objects with \"name\" and \"template\"", place);
    }
    const auto& name = entry["name"].get_ref<const std::string&>();
    const auto& source = entry["template"].get_ref<const std::string&>();
    if (name == "default") result.default_ = jinja::Template::Parse(source, place + " default");
    if (name == "tool_use") result.tool_use_ = jinja::Template::Parse(source, place + " tool_use");
  }
  if (!result.default_ && !result.tool_use_) {
    Fail(ErrorCode::kUnsupported, "{}: several templates, and none is named \"default\"", place);
  }
  return result;
}

ChatTemplate ChatTemplate::Parse(std::string_view source, const std::string& place,
                                 OrderedJson special_tokens) {
  ChatTemplate result;
  result.default_ = jinja::Template::Parse(source, place);
  result.special_tokens_ = std::move(special_tokens);
  result.place_ = place;
  return result;
}

std::string ChatTemplate::Render(const Chat& chat, const jinja::Environment& environment) const {
  if (chat.messages.empty()) {
    Fail(ErrorCode::kBadInput, "{}: a chat without messages", place_);
  }
  const bool with_tools = !chat.tools.is_null() && tool_use_.has_value();
  const std::optional<jinja::Template>& used = with_tools ? tool_use_ : default_;
  if (!used) {
    Fail(ErrorCode::kUnsupported, "{}: a template for chats with tools alone, and this has none",
         place_);
  }
  OrderedJson variables = special_tokens_;
  variables["messages"] = nullptr;
  variables["tools"] = nullptr;
  variables["documents"] = nullptr;
  for (const auto& [key, value] : chat.variables.items()) variables[key] = value;
  variables["messages"] = Prepared(chat.messages, place_);
  variables["tools"] = chat.tools;
  variables["add_generation_prompt"] = chat.add_generation_prompt;
  return used->Render(variables, environment);
}

}  // namespace samebits
