// Load and encode times of one tokenizer.json on one text, one thread; bench/tokenizer.py runs it
// beside the `tokenizers` library:
//   tokenizer_bench TOKENIZER.json TEXT REPETITIONS
// Prints one JSON object: seconds of each load and each encode, tokens, bytes, a hash of the ids.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "samebits/base/error.h"
#include "samebits/base/json.h"
#include "samebits/text/tokenizer.h"

namespace {

double Since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    fmt::print(stderr, "usage: {} TOKENIZER.json TEXT REPETITIONS\n", argv[0]);
    return 2;
  }
  try {
    const std::string path = argv[1];
    const std::string text = samebits::ReadTextFile(argv[2], 1 << 30);
    std::vector<double> load, encode;
    std::vector<int64_t> ids;
    for (int i = 0; i < std::atoi(argv[3]); ++i) {
      auto start = std::chrono::steady_clock::now();
      const samebits::Tokenizer tokenizer =
          samebits::Tokenizer::Parse(samebits::ReadTextFile(path, 1 << 28), path);
      load.push_back(Since(start));
      start = std::chrono::steady_clock::now();
      ids = tokenizer.Encode(text, false);
      encode.push_back(Since(start));
    }
    uint64_t hash = 0xcbf29ce484222325U;  // FNV-1a over the ids
    for (const int64_t id : ids) hash = (hash ^ static_cast<uint64_t>(id)) * 0x100000001b3U;
    fmt::print(
        "{{\"load_s\": [{:.4f}], \"encode_s\": [{:.4f}], \"tokens\": {}, \"bytes\": {}, "
        "\"hash\": \"{:016x}\"}}\n",
        fmt::join(load, ", "), fmt::join(encode, ", "), ids.size(), text.size(), hash);
  } catch (const samebits::Error& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 2;
  }
  return 0;
}
