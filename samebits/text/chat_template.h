// The chat template of a checkpoint: messages to the text that the model is trained on, as
// transformers' apply_chat_template(tokenize=False) makes it. Left out: images and other media,
// continue_final_message, Python functions as tools.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "samebits/base/json.h"
#include "samebits/jinja/template.h"

namespace samebits {

struct Chat {
  OrderedJson messages = OrderedJson::array();
  OrderedJson tools = nullptr;                    // JSON schemas, as the template expects them
  OrderedJson variables = OrderedJson::object();  // all others: documents, enable_thinking, ...
  bool add_generation_prompt = true;
};

// `[..messages..]` or {"messages": [...], "tools": [...], "add_generation_prompt": true, ...}.
// Escapes of half a surrogate pair are read as U+FFFD. Throws Error.
Chat ParseChat(std::string_view json, const std::string& place);

class ChatTemplate {
 public:
  // chat_template.jinja, else the chat_template of tokenizer_config.json: a text, or a list of
  // {name, template}, of which "tool_use" serves a chat with tools and "default" any other. The
  // special tokens (bos_token, eos_token ...) come from tokenizer_config.json and
  // special_tokens_map.json. nullopt when the checkpoint has none. Throws Error.
  static std::optional<ChatTemplate> Open(const std::string& folder);

  // From a template's text; `special_tokens` are variables of every chat.
  static ChatTemplate Parse(std::string_view source, const std::string& place,
                            OrderedJson special_tokens = OrderedJson::object());

  // Throws Error; where the template itself refuses the chat, with its words.
  std::string Render(const Chat& chat, const jinja::Environment& environment = {}) const;

 private:
  std::optional<jinja::Template> default_, tool_use_;
  OrderedJson special_tokens_ = OrderedJson::object();
  std::string place_;
};

}  // namespace samebits
