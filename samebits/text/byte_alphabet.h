// GPT-2's printable stand-ins for bytes, in which byte-level vocabularies are written.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

namespace samebits {

struct ByteAlphabet {
  std::array<std::string, 256> stand_in;  // UTF-8, one or two bytes
  std::array<int16_t, 0x200> byte_of;     // code point -> byte; -1: none
};
const ByteAlphabet& Gpt2Alphabet();

// The bytes that a token stands for, put behind `out`; false (and nothing put) when one of its
// characters is no stand-in.
bool AppendBytesOfToken(std::string_view token, std::string& out);

}  // namespace samebits
