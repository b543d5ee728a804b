// What the `tokenizers` library knows about characters: classes for its patterns, and the four
// normalisation forms. The tables are read off the library (tools/make_unicode_tables.py), since
// its parts hold different Unicode versions (docs/tokenizer.md). Left out: case mappings, scripts.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace samebits {

enum class CharKind : uint8_t {
  kOther = 0,
  kUpper = 1,    // \p{Lu} \p{Lt}
  kLower = 2,    // \p{Ll}
  kLetter = 3,   // \p{Lm} \p{Lo}
  kMark = 4,     // \p{M}
  kNumber = 5,   // \p{N}
  kSpace = 6,    // \s but for the next two
  kNewline = 7,  // \r \n
};

inline constexpr uint8_t kKindMask = 7;
inline constexpr uint8_t kWordFlag = 8;       // beside it an added token is no single_word
inline constexpr uint8_t kNumericFlag = 16;   // for Digits
inline constexpr uint8_t kUnstableFlag = 32;  // NFC may change it, or it and what is before it

// 0x110000 class bytes: a CharKind and flags.
const uint8_t* CharClasses();
uint8_t ClassAt(std::string_view text, size_t at);  // of the character there, in valid text

inline bool IsLetter(uint8_t kind) { return kind >= 1 && kind <= 3; }
inline bool IsSpace(uint8_t kind) { return kind >= 6; }
inline bool IsOtherOrMark(uint8_t kind) { return kind == 0 || kind == 4; }  // [^\s\p{L}\p{N}]

// First and last code points of the runs whose kinds are in `kinds` (bit 1 << kind each).
std::vector<std::pair<uint32_t, uint32_t>> RunsOfKinds(uint32_t kinds);

enum class NormalForm { kNfc, kNfd, kNfkc, kNfkd };

// Valid UTF-8 in the given form. `storage` holds the result when it is not the text itself.
std::string_view Normalize(NormalForm form, std::string_view text, std::string& storage);

}  // namespace samebits
