#include "samebits/text/unicode.h"

#include <algorithm>
#include <cstddef>
#include <memory>

#include "samebits/text/utf8.h"

namespace samebits {
namespace {

#include "samebits/text/unicode_tables.inc"

constexpr uint32_t kLimit = 0x110000;
// Hangul syllables are computed: 19 leading, 21 vowels, 27 trailing consonants.
constexpr uint32_t kSyllable = 0xac00, kLeading = 0x1100, kVowel = 0x1161, kTrailing = 0x11a7;
constexpr uint32_t kLeadings = 19, kVowels = 21, kTrailings = 28;
constexpr uint32_t kSyllables = kLeadings * kVowels * kTrailings;

struct Character {
  uint32_t code;
  uint32_t combining;  // canonical combining class
};

uint32_t CombiningClass(uint32_t c) {
  size_t low = 0, high = kCombiningSize / 3;  // the last span that begins at c or before
  while (low < high) {
    const size_t middle = (low + high) / 2;
    if (kCombining[3 * middle] <= c) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  if (low == 0 || kCombining[3 * low - 2] < c) return 0;
  return kCombining[3 * low - 1];
}

// Place of the entry for c in a table of {code point, offset << 8 | length}, or nullptr.
const uint32_t* FindEntry(const uint32_t* table, size_t size, uint32_t c) {
  size_t low = 0, high = size / 2;
  while (low < high) {
    const size_t middle = (low + high) / 2;
    if (table[2 * middle] < c) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low < size / 2 && table[2 * low] == c ? table + 2 * low : nullptr;
}

void Decompose(uint32_t c, bool compatible, std::vector<Character>& out) {
  if (c < 0x80) {
    out.push_back({c, 0});
    return;
  }
  if (c - kSyllable < kSyllables) {
    const uint32_t s = c - kSyllable;
    out.push_back({kLeading + s / (kVowels * kTrailings), 0});
    out.push_back({kVowel + s % (kVowels * kTrailings) / kTrailings, 0});
    if (s % kTrailings != 0) out.push_back({kTrailing + s % kTrailings, 0});
    return;
  }
  const uint32_t* entry = compatible ? FindEntry(kCompatible, kCompatibleSize, c) : nullptr;
  if (entry == nullptr) entry = FindEntry(kCanonical, kCanonicalSize, c);
  if (entry == nullptr) {
    out.push_back({c, CombiningClass(c)});
    return;
  }
  const uint32_t offset = entry[1] >> 8, length = entry[1] & 0xff;
  for (uint32_t i = 0; i < length; ++i) {
    const uint32_t part = kDecompositions[offset + i];
    out.push_back({part, CombiningClass(part)});
  }
}

// 0 when the two do not compose.
uint32_t Composed(uint32_t first, uint32_t second) {
  if (first - kLeading < kLeadings && second - kVowel < kVowels) {
    return kSyllable + ((first - kLeading) * kVowels + (second - kVowel)) * kTrailings;
  }
  if (first - kSyllable < kSyllables && (first - kSyllable) % kTrailings == 0 &&
      second - kTrailing - 1 < kTrailings - 1) {
    return first + (second - kTrailing);
  }
  size_t low = 0, high = kCompositionsSize / 3;
  while (low < high) {
    const size_t middle = (low + high) / 2;
    const uint32_t* entry = kCompositions + 3 * middle;
    if (std::pair(entry[0], entry[1]) < std::pair(first, second)) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  const uint32_t* entry = kCompositions + 3 * low;
  return low < kCompositionsSize / 3 && entry[0] == first && entry[1] == second ? entry[2] : 0;
}

// Runs of marks into the order of their classes.
void Reorder(std::vector<Character>& characters) {
  for (auto begin = characters.begin(); begin != characters.end();) {
    if (begin->combining == 0) {
      ++begin;
      continue;
    }
    const auto end =
        std::find_if(begin, characters.end(), [](const Character& c) { return c.combining == 0; });
    std::stable_sort(begin, end, [](const Character& a, const Character& b) {
      return a.combining < b.combining;
    });
    begin = end;
  }
}

void Compose(std::vector<Character>& characters) {
  size_t kept = 0;
  size_t starter = characters.size();  // none yet
  uint32_t last = 0;                   // class of the last character that was kept behind it
  for (size_t i = 0; i < characters.size(); ++i) {
    const Character c = characters[i];
    // Blocked: a mark of the same or a greater class, or a starter, stands between.
    const bool adjacent = starter + 1 == kept;
    if (starter < kept && (adjacent || (last < c.combining && last != 0))) {
      if (const uint32_t composed = Composed(characters[starter].code, c.code)) {
        characters[starter].code = composed;
        continue;
      }
    }
    if (c.combining == 0) starter = kept;
    last = c.combining;
    characters[kept++] = c;
  }
  characters.resize(kept);
}

void NormalizeSegment(NormalForm form, std::string_view text, std::vector<Character>& characters,
                      std::string& out) {
  characters.clear();
  const bool compatible = form == NormalForm::kNfkc || form == NormalForm::kNfkd;
  for (size_t i = 0, length = 0; i < text.size(); i += length) {
    Decompose(DecodeUtf8(text.data() + i, length), compatible, characters);
  }
  Reorder(characters);
  if (form == NormalForm::kNfc || form == NormalForm::kNfkc) Compose(characters);
  for (const Character& c : characters) AppendUtf8(c.code, out);
}

bool IsAscii(std::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return static_cast<uint8_t>(c) < 0x80; });
}

}  // namespace

const uint8_t* CharClasses() {
  static const std::unique_ptr<const uint8_t[]> classes = [] {
    auto table = std::make_unique<uint8_t[]>(kLimit);
    for (size_t i = 0; i < kClassRunsSize; ++i) {
      const uint32_t begin = kClassRuns[i] >> 8;
      const uint32_t end = i + 1 < kClassRunsSize ? kClassRuns[i + 1] >> 8 : kLimit;
      std::fill(table.get() + begin, table.get() + end, static_cast<uint8_t>(kClassRuns[i] & 0xff));
    }
    return table;
  }();
  return classes.get();
}

uint8_t ClassAt(std::string_view text, size_t at) {
  size_t length = 0;
  return CharClasses()[DecodeUtf8(text.data() + at, length)];
}

std::vector<std::pair<uint32_t, uint32_t>> RunsOfKinds(uint32_t kinds) {
  std::vector<std::pair<uint32_t, uint32_t>> runs;
  for (size_t i = 0; i < kClassRunsSize; ++i) {
    if ((kinds >> (kClassRuns[i] & kKindMask) & 1) == 0) continue;
    const uint32_t begin = kClassRuns[i] >> 8;
    const uint32_t end = i + 1 < kClassRunsSize ? kClassRuns[i + 1] >> 8 : kLimit;
    if (!runs.empty() && runs.back().second + 1 == begin) {
      runs.back().second = end - 1;
    } else {
      runs.emplace_back(begin, end - 1);
    }
  }
  return runs;
}

std::string_view Normalize(NormalForm form, std::string_view text, std::string& storage) {
  if (IsAscii(text)) return text;
  std::vector<Character> characters;
  if (form != NormalForm::kNfc) {
    std::string result;
    result.reserve(text.size());
    NormalizeSegment(form, text, characters, result);
    storage = std::move(result);
    return storage;
  }
  // A stable character neither changes nor combines with what is before it. So only the unstable
  // runs are normalised, each with the stable character in front of it.
  const uint8_t* classes = CharClasses();
  std::string result;
  size_t copied = 0, before = 0;
  for (size_t i = 0, length = 0; i < text.size(); i += length) {
    if ((classes[DecodeUtf8(text.data() + i, length)] & kUnstableFlag) == 0) {
      before = i;
      continue;
    }
    size_t end = i + length;
    for (size_t next = 0; end < text.size(); end += next) {
      if ((classes[DecodeUtf8(text.data() + end, next)] & kUnstableFlag) == 0) break;
    }
    if (result.empty()) result.reserve(text.size());
    result += text.substr(copied, before - copied);
    NormalizeSegment(form, text.substr(before, end - before), characters, result);
    copied = before = end;
    length = end - i;
  }
  if (copied == 0) return text;
  result += text.substr(copied);
  storage = std::move(result);
  return storage;
}

}  // namespace samebits
