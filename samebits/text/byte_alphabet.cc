#include "samebits/text/byte_alphabet.h"

#include <cstddef>

#include "samebits/text/utf8.h"

namespace samebits {

const ByteAlphabet& Gpt2Alphabet() {
  static const ByteAlphabet alphabet = [] {
    ByteAlphabet result;
    result.byte_of.fill(-1);
    uint32_t next = 256;
    for (uint32_t b = 0; b < 256; ++b) {
      const bool shown = (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
      const uint32_t code = shown ? b : next++;
      AppendUtf8(code, result.stand_in[b]);
      result.byte_of[code] = static_cast<int16_t>(b);
    }
    return result;
  }();
  return alphabet;
}

bool AppendBytesOfToken(std::string_view token, std::string& out) {
  const ByteAlphabet& alphabet = Gpt2Alphabet();
  const size_t before = out.size();
  for (size_t i = 0, length = 0; i < token.size(); i += length) {
    const uint32_t code = DecodeUtf8(token.data() + i, length);
    const int16_t byte = code < alphabet.byte_of.size() ? alphabet.byte_of[code] : int16_t{-1};
    if (byte < 0) {
      out.resize(before);
      return false;
    }
    out.push_back(static_cast<char>(byte));
  }
  return true;
}

}  // namespace samebits
