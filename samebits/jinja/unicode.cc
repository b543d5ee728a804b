#include "samebits/jinja/unicode.h"

#include <algorithm>
#include <cstddef>

#include "samebits/jinja/unicode_tables.h"

namespace samebits::jinja {
namespace {

bool InRuns(const uint32_t* runs, size_t size, uint32_t character) {
  // The number of bounds at or below the character: odd inside a run, except at a run's last.
  size_t low = 0, high = size / 2;
  while (low < high) {
    const size_t middle = (low + high) / 2;
    if (runs[2 * middle + 1] < character) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low < size / 2 && runs[2 * low] <= character;
}

struct Mapping {
  const int32_t* runs;
  size_t size;
  const tables::Several* several;
  size_t several_size;
};

void AppendMapped(const Mapping& map, uint32_t character, std::string& out) {
  const auto* end = map.several + map.several_size;
  const auto* found = std::lower_bound(
      map.several, end, character,
      [](const tables::Several& entry, uint32_t c) { return entry.character < c; });
  if (found != end && found->character == character) {
    out += found->utf8;
    return;
  }
  const auto value = static_cast<int32_t>(character);
  // Runs of stride 2 may overlap with others, but their firsts ascend: those that can hold the
  // character start at or below it, and none is longer than 256.
  size_t low = 0, high = map.size / 4;
  while (low < high) {
    const size_t middle = (low + high) / 2;
    if (map.runs[4 * middle] <= value) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  for (size_t back = 0; back < 4 && low > 0; ++back) {
    --low;
    const int32_t* run = map.runs + 4 * low;
    if (value <= run[1] && (value - run[0]) % run[2] == 0) {
      AppendCharacter(static_cast<uint32_t>(value + run[3]), out);
      return;
    }
  }
  AppendCharacter(character, out);
}

const Mapping& UpperMap() {
  static const Mapping map{tables::kToUpper, tables::kToUpperSize, tables::kToUpperSeveral,
                           tables::kToUpperSeveralSize};
  return map;
}
const Mapping& LowerMap() {
  static const Mapping map{tables::kToLower, tables::kToLowerSize, tables::kToLowerSeveral,
                           tables::kToLowerSeveralSize};
  return map;
}
const Mapping& TitleMap() {
  static const Mapping map{tables::kToTitle, tables::kToTitleSize, tables::kToTitleSeveral,
                           tables::kToTitleSeveralSize};
  return map;
}
const Mapping& FoldedMap() {
  static const Mapping map{tables::kToFolded, tables::kToFoldedSize, tables::kToFoldedSeveral,
                           tables::kToFoldedSeveralSize};
  return map;
}

constexpr uint32_t kCapitalSigma = 0x3A3, kFinalSigma = 0x3C2, kSmallSigma = 0x3C3;

bool IsCased(uint32_t c) { return IsLower(c) || IsUpper(c) || IsTitle(c); }
bool IsIgnorable(uint32_t c) { return InRuns(tables::kIgnorable, tables::kIgnorableSize, c); }

// A sigma is final behind a cased letter and not before one; ignorable characters do not count.
// The search is bounded, so that a text of many sigmas and ignorable characters is not quadratic.
bool SigmaIsFinal(std::string_view text, size_t begin, size_t end) {
  constexpr int kFar = 10000;
  bool before = false;
  for (int i = 0; begin > 0 && i < kFar; ++i) {
    const uint32_t c = PreviousCharacter(text, begin);
    if (IsIgnorable(c)) continue;
    before = IsCased(c);
    break;
  }
  if (!before) return false;
  for (int i = 0; end < text.size() && i < kFar; ++i) {
    const uint32_t c = NextCharacter(text, end);
    if (!IsIgnorable(c)) return !IsCased(c);
  }
  return true;
}

void AppendLower(std::string_view text, size_t begin, size_t end, uint32_t character,
                 std::string& out) {
  if (character < 0x80) {
    out.push_back(static_cast<char>(character >= 'A' && character <= 'Z' ? character + ('a' - 'A')
                                                                         : character));
  } else if (character == kCapitalSigma) {
    AppendCharacter(SigmaIsFinal(text, begin, end) ? kFinalSigma : kSmallSigma, out);
  } else {
    AppendMapped(LowerMap(), character, out);
  }
}

void AppendUpper(uint32_t character, std::string& out) {
  if (character < 0x80) {
    out.push_back(static_cast<char>(character >= 'a' && character <= 'z' ? character - ('a' - 'A')
                                                                         : character));
  } else {
    AppendMapped(UpperMap(), character, out);
  }
}

}  // namespace

size_t FindInvalidUtf8(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  size_t i = 0;
  while (i < text.size()) {
    const unsigned lead = byte(i);
    if (lead < 0x80) {
      ++i;
      continue;
    }
    size_t more = 0;
    unsigned low = 0x80, high = 0xBF;
    if (lead >= 0xC2 && lead <= 0xDF) {
      more = 1;
    } else if (lead >= 0xE0 && lead <= 0xEF) {
      more = 2;
      if (lead == 0xE0) low = 0xA0;
      if (lead == 0xED) high = 0x9F;
    } else if (lead >= 0xF0 && lead <= 0xF4) {
      more = 3;
      if (lead == 0xF0) low = 0x90;
      if (lead == 0xF4) high = 0x8F;
    } else {
      return i;
    }
    if (i + more >= text.size()) return i;
    for (size_t k = 1; k <= more; ++k) {
      if (byte(i + k) < low || byte(i + k) > high) return i;
      low = 0x80;
      high = 0xBF;
    }
    i += more + 1;
  }
  return std::string_view::npos;
}

int64_t CountCharacters(std::string_view text) {
  return std::count_if(text.begin(), text.end(),
                       [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; });
}

uint32_t NextCharacter(std::string_view text, size_t& at) {
  const auto byte = [&](size_t i) -> uint32_t {
    return i < text.size() ? static_cast<unsigned char>(text[i]) : 0x80;
  };
  const uint32_t lead = byte(at);
  if (lead < 0x80) {
    at += 1;
    return lead;
  }
  if (lead < 0xE0) {
    at += 2;
    return (lead & 0x1F) << 6 | (byte(at - 1) & 0x3F);
  }
  if (lead < 0xF0) {
    at += 3;
    return (lead & 0x0F) << 12 | (byte(at - 2) & 0x3F) << 6 | (byte(at - 1) & 0x3F);
  }
  at += 4;
  return (lead & 0x07) << 18 | (byte(at - 3) & 0x3F) << 12 | (byte(at - 2) & 0x3F) << 6 |
         (byte(at - 1) & 0x3F);
}

uint32_t PreviousCharacter(std::string_view text, size_t& at) {
  do {
    --at;
  } while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80);
  size_t forward = at;
  return NextCharacter(text, forward);
}

size_t ByteOfCharacter(std::string_view text, int64_t number) {
  for (size_t i = 0; i < text.size(); ++i) {
    if ((static_cast<unsigned char>(text[i]) & 0xC0) != 0x80 && number-- == 0) return i;
  }
  return text.size();
}

void AppendCharacter(uint32_t c, std::string& out) {
  const auto push = [&](uint32_t byte) { out.push_back(static_cast<char>(byte)); };
  if (c < 0x80) {
    push(c);
  } else if (c < 0x800) {
    push(0xC0 | c >> 6);
    push(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    push(0xE0 | c >> 12);
    push(0x80 | (c >> 6 & 0x3F));
    push(0x80 | (c & 0x3F));
  } else {
    push(0xF0 | c >> 18);
    push(0x80 | (c >> 12 & 0x3F));
    push(0x80 | (c >> 6 & 0x3F));
    push(0x80 | (c & 0x3F));
  }
}

bool IsSpace(uint32_t c) {
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 ||
         c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
         c == 0x205F || c == 0x3000;
}
bool IsAlpha(uint32_t c) {
  if (c < 0x80) return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
  return InRuns(tables::kAlpha, tables::kAlphaSize, c);
}
bool IsDecimal(uint32_t c) { return InRuns(tables::kDecimal, tables::kDecimalSize, c); }
bool IsDigit(uint32_t c) { return InRuns(tables::kDigit, tables::kDigitSize, c); }
bool IsNumeric(uint32_t c) { return InRuns(tables::kNumeric, tables::kNumericSize, c); }
bool IsAlphanumeric(uint32_t c) { return IsAlpha(c) || IsNumeric(c) || IsDigit(c); }
bool IsLower(uint32_t c) { return InRuns(tables::kLower, tables::kLowerSize, c); }
bool IsUpper(uint32_t c) { return InRuns(tables::kUpper, tables::kUpperSize, c); }
bool IsTitle(uint32_t c) { return InRuns(tables::kTitle, tables::kTitleSize, c); }
bool IsPrintable(uint32_t c) {
  if (c < 0x80) return c >= 0x20 && c < 0x7F;
  return InRuns(tables::kPrintable, tables::kPrintableSize, c);
}
bool IsLineBreak(uint32_t c) {
  return (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 ||
         c == 0x2029;
}

std::string ToUpper(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size();) AppendUpper(NextCharacter(text, i), out);
  return out;
}

std::string ToLower(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const size_t begin = i;
    const uint32_t c = NextCharacter(text, i);
    AppendLower(text, begin, i, c, out);
  }
  return out;
}

std::string ToTitle(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  bool inside = false;
  for (size_t i = 0; i < text.size();) {
    const size_t begin = i;
    const uint32_t c = NextCharacter(text, i);
    if (inside) {
      AppendLower(text, begin, i, c, out);
    } else {
      AppendMapped(TitleMap(), c, out);
    }
    inside = IsCased(c);
  }
  return out;
}

std::string ToCapitalized(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const size_t begin = i;
    const uint32_t c = NextCharacter(text, i);
    if (begin == 0) {
      AppendMapped(TitleMap(), c, out);
    } else {
      AppendLower(text, begin, i, c, out);
    }
  }
  return out;
}

std::string ToFolded(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size();) AppendMapped(FoldedMap(), NextCharacter(text, i), out);
  return out;
}

std::string SwapCase(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const size_t begin = i;
    const uint32_t c = NextCharacter(text, i);
    if (IsUpper(c)) {
      AppendLower(text, begin, i, c, out);
    } else if (IsLower(c)) {
      AppendUpper(c, out);
    } else {
      AppendCharacter(c, out);
    }
  }
  return out;
}

std::string_view StripLeft(std::string_view text) {
  size_t i = 0;
  while (i < text.size()) {
    size_t next = i;
    if (!IsSpace(NextCharacter(text, next))) break;
    i = next;
  }
  return text.substr(i);
}

std::string_view StripRight(std::string_view text) {
  size_t end = text.size();
  while (end > 0) {
    size_t before = end;
    if (!IsSpace(PreviousCharacter(text, before))) break;
    end = before;
  }
  return text.substr(0, end);
}

}  // namespace samebits::jinja
