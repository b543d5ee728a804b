// Encodes and decodes many texts for tests that have another implementation's results:
//   encode_texts TOKENIZER.json < TEXTS > RESULTS
// TEXTS: for each text its length in bytes (32-bit, little endian) and its bytes. RESULTS, for each
// text: the number of ids, the ids with special tokens; then length and bytes of the ids decoded
// with special tokens and without them. Exits with 1 when decoding as a stream gives another text.
#include <fmt/format.h>

#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "samebits/base/error.h"
#include "samebits/base/json.h"
#include "samebits/text/tokenizer.h"

namespace {

constexpr uint32_t kMaxText = 1U << 30;

bool Read(void* to, size_t bytes) { return std::fread(to, 1, bytes, stdin) == bytes; }

void Write(const void* from, size_t bytes) { std::fwrite(from, 1, bytes, stdout); }

void WriteText(const std::string& text) {
  const auto size = static_cast<uint32_t>(text.size());
  Write(&size, sizeof(size));
  Write(text.data(), text.size());
}

int Run(const char* path) {
  const samebits::Tokenizer tokenizer =
      samebits::Tokenizer::Parse(samebits::ReadTextFile(path, 256 << 20), path);
  uint32_t size = 0;
  std::string text;
  while (Read(&size, sizeof(size))) {
    text.resize(size < kMaxText ? size : 0);
    if (size >= kMaxText || !Read(text.data(), size)) {
      fmt::print(stderr, "a text is cut short\n");
      return 2;
    }
    const std::vector<int64_t> ids = tokenizer.Encode(text);
    const auto count = static_cast<uint32_t>(ids.size());
    Write(&count, sizeof(count));
    for (const int64_t id : ids) {
      const auto narrow = static_cast<uint32_t>(id);
      Write(&narrow, sizeof(narrow));
    }
    for (const bool skip : {false, true}) {
      samebits::TextStream stream(tokenizer, skip);
      std::string streamed;
      for (const int64_t id : ids) streamed += stream.Add(id);
      streamed += stream.Finish();
      if (streamed != tokenizer.Decode(ids, skip)) return 1;
      WriteText(streamed);
    }
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    fmt::print(stderr, "usage: {} TOKENIZER.json < TEXTS > RESULTS\n", argv[0]);
    return 2;
  }
  try {
    return Run(argv[1]);
  } catch (const samebits::Error& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 2;
  }
}
