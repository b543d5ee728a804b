// The text that a chat template makes of one user turn, for templates of the ChatML kind
// ("<|im_start|>role\n ... <|im_end|>\n": Qwen2.5, SmolLM2). Left out: a Jinja interpreter, other
// roles, several turns, tools.
#pragma once

#include <string>
#include <string_view>

namespace samebits {

// Reads chat_template.jinja or else tokenizer_config.json in `folder`. The system message that the
// template puts in front of a chat without one is taken from the template's text. Throws
// Error(kUnsupported) for any other template, with the hint to use --raw or --ids.
std::string FormatChat(const std::string& folder, std::string_view user);

// The same from the template's text; `place` starts the messages.
std::string FormatChatMl(std::string_view chat_template, std::string_view user,
                         const std::string& place);

}  // namespace samebits
