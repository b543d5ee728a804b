#include "samebits/jinja/string_literal.h"

#include <cctype>
#include <cstdint>

#include "samebits/base/error.h"
#include "samebits/jinja/unicode.h"

namespace samebits::jinja {
namespace {

// Reads `count` hexadecimal digits at `at`, which is moved behind them.
uint32_t Hexadecimal(std::string_view text, size_t& at, size_t count, const std::string& place) {
  uint32_t value = 0;
  for (size_t k = 0; k < count; ++k, ++at) {
    if (at >= text.size() || std::isxdigit(static_cast<unsigned char>(text[at])) == 0) {
      Fail(ErrorCode::kBadInput, "{}: an escape in a string needs {} hexadecimal digits", place,
           count);
    }
    const char c = text[at];
    const int digit = c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10;
    value = value << 4 | static_cast<uint32_t>(digit);
  }
  if (value > 0x10FFFF) {
    Fail(ErrorCode::kBadInput, "{}: an escape in a string is beyond U+10FFFF", place);
  }
  if (value >= 0xD800 && value <= 0xDFFF) {
    Fail(ErrorCode::kUnsupported, "{}: not supported: an escape in a string makes a surrogate",
         place);
  }
  return value;
}

uint32_t Octal(std::string_view text, size_t& at) {
  uint32_t value = 0;
  for (int k = 0; k < 3 && at < text.size() && text[at] >= '0' && text[at] <= '7'; ++k, ++at) {
    value = value * 8 + static_cast<uint32_t>(text[at] - '0');
  }
  return value;
}

// jinja2 makes characters beyond ASCII into escapes before it reads escapes: a backslash before
// one then escapes the backslash of that.
void AppendAsEscape(uint32_t character, std::string& out) {
  out.push_back('\\');
  out += character < 0x100     ? fmt::format("x{:02x}", character)
         : character < 0x10000 ? fmt::format("u{:04x}", character)
                               : fmt::format("U{:08x}", character);
}

}  // namespace

std::string Unescape(std::string_view text, const std::string& place) {
  constexpr std::string_view kPlain = "\\'\"abfnrtv", kMeant = "\\'\"\a\b\f\n\r\t\v";
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    if (text[i] != '\\') {
      out.push_back(text[i++]);
      continue;
    }
    ++i;
    if (i >= text.size()) break;  // can't be: the quote would have been escaped
    const char c = text[i];
    if (const size_t plain = kPlain.find(c); plain != std::string_view::npos) {
      out.push_back(kMeant[plain]);
      ++i;
    } else if (c == '\n') {
      ++i;
    } else if (c >= '0' && c <= '7') {
      AppendCharacter(Octal(text, i), out);
    } else if (c == 'x' || c == 'u' || c == 'U') {
      ++i;
      AppendCharacter(Hexadecimal(text, i, c == 'x' ? 2 : c == 'u' ? 4 : 8, place), out);
    } else if (c == 'N') {
      Fail(ErrorCode::kUnsupported, "{}: not supported: the escape \\N in a string", place);
    } else if (static_cast<unsigned char>(c) >= 0x80) {
      AppendAsEscape(NextCharacter(text, i), out);
    } else {
      out.push_back('\\');
      out.push_back(c);
      ++i;
    }
  }
  return out;
}

}  // namespace samebits::jinja
