#include "samebits/text/utf8.h"

#include <algorithm>
#include <cstring>

namespace samebits {
namespace {

constexpr std::string_view kReplacement = "\xef\xbf\xbd";

// Bytes from `from` that are ASCII.
size_t AsciiRun(std::string_view text, size_t from) {
  size_t i = from;
  for (; i + 8 <= text.size(); i += 8) {
    uint64_t eight;
    std::memcpy(&eight, text.data() + i, 8);
    if ((eight & 0x8080808080808080U) != 0) break;
  }
  while (i < text.size() && static_cast<uint8_t>(text[i]) < 0x80) ++i;
  return i - from;
}

}  // namespace

Utf8Step StepUtf8(std::string_view text) {
  const auto at = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t first = at(0);
  if (first < 0x80) return {1, true, false};
  if (first < 0xc2 || first > 0xf4) return {1, false, false};
  const size_t length = first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
  // The second byte's range shuts out overlong forms, surrogates and what is above U+10FFFF.
  const uint8_t low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
  const uint8_t high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
  for (size_t i = 1; i < length; ++i) {
    if (i == text.size()) return {i, false, true};
    const bool good = i == 1 ? at(1) >= low && at(1) <= high : (at(i) & 0xc0U) == 0x80U;
    if (!good) return {i, false, false};
  }
  return {length, true, false};
}

bool IsValidUtf8(std::string_view text) {
  for (size_t i = AsciiRun(text, 0); i < text.size();) {
    const Utf8Step step = StepUtf8(text.substr(i));
    if (!step.valid) return false;
    i += step.length;
    if (i < text.size() && static_cast<uint8_t>(text[i]) < 0x80) i += AsciiRun(text, i);
  }
  return true;
}

std::string ReplaceInvalidUtf8(std::string_view text) {
  std::string result;
  result.reserve(text.size());
  while (!text.empty()) {
    const Utf8Step step = StepUtf8(text);
    result += step.valid ? text.substr(0, step.length) : kReplacement;
    text.remove_prefix(step.length);
  }
  return result;
}

void AppendUtf8(uint32_t c, std::string& out) {
  const auto put = [&](uint32_t byte) { out.push_back(static_cast<char>(byte)); };
  if (c < 0x80) return put(c);
  if (c < 0x800) {
    put(0xc0 | c >> 6);
  } else {
    if (c < 0x10000) {
      put(0xe0 | c >> 12);
    } else {
      put(0xf0 | c >> 18);
      put(0x80 | (c >> 12 & 0x3f));
    }
    put(0x80 | (c >> 6 & 0x3f));
  }
  put(0x80 | (c & 0x3f));
}

size_t CompleteUtf8(std::string_view text) {
  for (size_t back = 1; back <= std::min<size_t>(3, text.size()); ++back) {
    const size_t at = text.size() - back;
    if ((static_cast<uint8_t>(text[at]) & 0xc0U) == 0x80U) continue;
    return StepUtf8(text.substr(at)).incomplete ? at : text.size();
  }
  return text.size();
}

}  // namespace samebits
