// Unicode as Python's str methods see it; made by tools/make_jinja_tables.py.
#pragma once

#include <cstddef>
#include <cstdint>

namespace samebits::jinja::tables {

struct Several {
  uint32_t character;
  const char* utf8;
};

// Properties: first and last of each run, flat.
extern const uint32_t kAlpha[], kDecimal[], kDigit[], kNumeric[], kLower[], kUpper[], kTitle[],
    kPrintable[], kIgnorable[];
extern const size_t kAlphaSize, kDecimalSize, kDigitSize, kNumericSize, kLowerSize, kUpperSize,
    kTitleSize, kPrintableSize, kIgnorableSize;

// Mappings: first, last, stride and difference of each run, flat; and those that give several
// characters.
extern const int32_t kToUpper[], kToLower[], kToTitle[], kToFolded[];
extern const size_t kToUpperSize, kToLowerSize, kToTitleSize, kToFoldedSize;
extern const Several kToUpperSeveral[], kToLowerSeveral[], kToTitleSeveral[], kToFoldedSeveral[];
extern const size_t kToUpperSeveralSize, kToLowerSeveralSize, kToTitleSeveralSize,
    kToFoldedSeveralSize;

}  // namespace samebits::jinja::tables
