// Formatting as Python does it: the operator % on strings, str.format, json.dumps.
#pragma once

#include <string>
#include <string_view>

#include "samebits/jinja/arguments.h"
#include "samebits/jinja/runtime.h"
#include "samebits/jinja/value.h"

namespace samebits::jinja {

Value FormatPercent(Runtime& runtime, const Value& format, const Value& values);
Value FormatBraces(Runtime& runtime, const std::string& format, const Arguments& arguments);

// format(value, spec), the part behind the colon of str.format.
std::string FormatSpec(Runtime& runtime, const Value& value, std::string_view spec);

struct JsonStyle {
  bool ascii = false;
  bool sort_keys = false;
  bool has_indent = false;
  std::string indent;
  std::string item_separator = ", ", key_separator = ": ";
};
void AppendJson(Runtime& runtime, const Value& value, const JsonStyle& style, int level,
                std::string& out);

// The character at a place of valid UTF-8 moved behind it, as text.
std::string_view TakeCharacter(std::string_view text, size_t& at);

}  // namespace samebits::jinja
