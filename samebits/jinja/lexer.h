// Cuts a template into tokens the way jinja2 does with trim_blocks and lstrip_blocks on and
// keep_trailing_newline off. Left out: line statements, identifiers beyond ASCII.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace samebits::jinja {

enum class Token : uint8_t {
  kData,
  kBlockBegin,
  kBlockEnd,
  kVariableBegin,
  kVariableEnd,
  kName,
  kString,
  kInteger,
  kFloat,
  kOperator,
  kEnd,
};

struct TokenText {
  Token type = Token::kEnd;
  int line = 1;
  std::string text;     // of a string: without quotes and escapes
  int64_t integer = 0;  // of a kInteger
  double number = 0;    // of a kFloat
};

// The last one is kEnd. Throws Error with place and line.
std::vector<TokenText> Tokenize(std::string_view source, const std::string& place);

}  // namespace samebits::jinja
