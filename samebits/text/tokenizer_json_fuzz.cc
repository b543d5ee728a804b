// Any bytes as tokenizer.json: an Error or a tokenizer, which then encodes and decodes short texts.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "samebits/base/error.h"
#include "samebits/text/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace samebits;
  try {
    const Tokenizer tokenizer =
        Tokenizer::Parse({reinterpret_cast<const char*>(data), size}, "fuzz");
    for (const std::string_view text :
         {"", "ab  a\n1\xc3\xa9'S e\xcc\x81<s> \xf0\x9f\x98\x80", "\xff\xe2\x82"}) {
      const std::vector<int64_t> ids = tokenizer.Encode(text);
      TextStream stream(tokenizer, true);
      std::string streamed;
      for (const int64_t id : ids) streamed += stream.Add(id);
      streamed += stream.Finish();
      SAMEBITS_CHECK(streamed == tokenizer.Decode(ids, true), "streaming gives another text");
    }
  } catch (const Error&) {
  }
  return 0;
}
