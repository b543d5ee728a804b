// UTF-8: validation, replacement of what is not valid, characters of valid text.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace samebits {

// What stands at the start of some bytes.
struct Utf8Step {
  size_t length;    // bytes of the character, or of what one U+FFFD stands for
  bool valid;       // a character (no surrogate, no overlong form, not above U+10FFFF)
  bool incomplete;  // not valid, but more bytes could make it so
};
// `text` must not be empty. Invalid bytes are cut as Python's errors="replace" and Rust's
// from_utf8_lossy cut them: the longest start of a character is one U+FFFD.
Utf8Step StepUtf8(std::string_view text);

bool IsValidUtf8(std::string_view text);
std::string ReplaceInvalidUtf8(std::string_view text);

void AppendUtf8(uint32_t code_point, std::string& out);

// Length of the longest prefix that ends on a whole UTF-8 character (what can be shown).
size_t CompleteUtf8(std::string_view text);

// Bytes of the character that starts with this byte, in valid text.
inline size_t Utf8Length(char first) {
  const auto c = static_cast<uint8_t>(first);
  return c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
}

// Start of the character that ends before `at`, which is not 0, in valid text.
inline size_t PreviousUtf8(std::string_view text, size_t at) {
  do {
    --at;
  } while ((static_cast<uint8_t>(text[at]) & 0xc0U) == 0x80U);
  return at;
}

// The character at p, in valid text; `length` becomes its bytes.
inline uint32_t DecodeUtf8(const char* p, size_t& length) {
  const auto at = [p](int i) { return static_cast<uint32_t>(static_cast<uint8_t>(p[i])); };
  const uint32_t c = at(0);
  length = Utf8Length(p[0]);
  if (c < 0x80) return c;
  if (c < 0xe0) return (c & 0x1f) << 6 | (at(1) & 0x3f);
  if (c < 0xf0) return (c & 0x0f) << 12 | (at(1) & 0x3f) << 6 | (at(2) & 0x3f);
  return (c & 0x07) << 18 | (at(1) & 0x3f) << 12 | (at(2) & 0x3f) << 6 | (at(3) & 0x3f);
}

}  // namespace samebits
