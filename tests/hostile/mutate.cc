#include "tests/hostile/mutate.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <string_view>

namespace samebits {
namespace {

// Not std::uniform_int_distribution: its numbers differ between libraries.
size_t Below(size_t n, std::mt19937& random) { return n == 0 ? 0 : random() % n; }

bool Digit(char c) { return c >= '0' && c <= '9'; }

constexpr std::array<std::string_view, 20> kNumbers = {"0",
                                                       "-1",
                                                       "1",
                                                       "2147483648",
                                                       "4294967296",
                                                       "4611686018427387904",
                                                       "9223372036854775807",
                                                       "9223372036854775808",
                                                       "18446744073709551615",
                                                       "18446744073709551616",
                                                       "1e999",
                                                       "1e308",
                                                       "0.5",
                                                       "-0.0",
                                                       "null",
                                                       "true",
                                                       "\"1\"",
                                                       "[]",
                                                       "{}",
                                                       "100000000"};

void ReplaceNumber(std::string& text, std::mt19937& random) {
  const size_t from = Below(text.size(), random);
  auto begin = std::find_if(text.begin() + static_cast<std::ptrdiff_t>(from), text.end(), Digit);
  if (begin == text.end()) begin = std::find_if(text.begin(), text.end(), Digit);
  const auto end = std::find_if_not(begin, text.end(), Digit);
  text.replace(begin, end, kNumbers[Below(kNumbers.size(), random)]);
}

void EditOnce(std::string& text, std::mt19937& random) {
  constexpr std::string_view kStructure = "{}[]\",:\\";
  if (text.empty()) return;
  const size_t at = Below(text.size(), random);
  const size_t length = 1 + Below(std::min<size_t>(40, text.size()), random);
  switch (Below(6, random)) {
    case 0:
    case 1:
      ReplaceNumber(text, random);
      break;
    case 2:
      text.erase(at, length);
      break;
    case 3:
      text.insert(at, text.substr(at, length));
      break;
    case 4:
      text[at] = static_cast<char>(random() & 0xffU);
      break;
    default:
      text.insert(at, 1, kStructure[Below(kStructure.size(), random)]);
  }
}

std::string Length(uint64_t value) {
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &value, 8);
  return bytes;
}

}  // namespace

std::string EditText(std::string text, std::mt19937& random) {
  const size_t edits = 1 + Below(3, random);
  for (size_t i = 0; i < edits; ++i) EditOnce(text, random);
  return text;
}

std::string EditSafetensors(const std::string& bytes, std::mt19937& random) {
  uint64_t length = 0;
  std::memcpy(&length, bytes.data(), 8);
  const std::string header = EditText(bytes.substr(8, length), random);
  const std::string data = bytes.substr(8 + length);
  const std::array<uint64_t, 6> lengths = {0,           length - 1,        bytes.size(),
                                           100'000'001, uint64_t{1} << 63, ~uint64_t{0} - 7};
  switch (Below(4, random)) {
    case 0:
      length = Below(2, random) == 0 ? length : lengths[Below(lengths.size(), random)];
      break;
    default:
      length = header.size();
  }
  return Length(length) + header + data;
}

std::string RandomBytes(std::mt19937& random) {
  const bool dressed = Below(2, random) == 0;
  std::string bytes(Below(5000, random), '\0');
  for (char& c : bytes) c = static_cast<char>(random() & 0xffU);
  return dressed ? Length(Below(bytes.size() + 2, random)) + "{" + bytes : bytes;
}

}  // namespace samebits
