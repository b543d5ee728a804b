// Text as Python's str sees it: UTF-8 bytes, addressed by characters. Case mappings and character
// classes are those of Python (tables made by tools/make_jinja_tables.py). Left out:
// normalisation, identifiers.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace samebits::jinja {

// First byte that is not valid UTF-8 (surrogates are not); npos when all is.
size_t FindInvalidUtf8(std::string_view text);

// Characters in valid UTF-8.
int64_t CountCharacters(std::string_view text);

// The character at byte `at`, which is moved behind it.
uint32_t NextCharacter(std::string_view text, size_t& at);

// The character that ends before byte `at`, which is moved onto it.
uint32_t PreviousCharacter(std::string_view text, size_t& at);

// Byte where the character of this number starts; text.size() when there are fewer.
size_t ByteOfCharacter(std::string_view text, int64_t number);

void AppendCharacter(uint32_t character, std::string& out);

bool IsSpace(uint32_t character);  // str.isspace
bool IsAlpha(uint32_t character);
bool IsDecimal(uint32_t character);
bool IsDigit(uint32_t character);
bool IsNumeric(uint32_t character);
bool IsAlphanumeric(uint32_t character);
bool IsLower(uint32_t character);
bool IsUpper(uint32_t character);
bool IsTitle(uint32_t character);  // a title-case letter that is not upper case
bool IsPrintable(uint32_t character);
bool IsLineBreak(uint32_t character);  // of str.splitlines

std::string ToUpper(std::string_view text);
std::string ToLower(std::string_view text);
std::string ToTitle(std::string_view text);        // str.title
std::string ToCapitalized(std::string_view text);  // str.capitalize
std::string ToFolded(std::string_view text);       // str.casefold
std::string SwapCase(std::string_view text);

// Bytes without the white space at both ends.
std::string_view StripLeft(std::string_view text);
std::string_view StripRight(std::string_view text);

}  // namespace samebits::jinja
