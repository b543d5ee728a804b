// The decoder of tokenizer.json: tokens to text, as they come. Sequence, ByteLevel, Replace,
// ByteFallback, Fuse, Strip, Metaspace. Any other, and orders of them that can not be done as
// tokens come, are errors that say so.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "samebits/base/json.h"
#include "samebits/text/normalizer.h"

namespace samebits {

class Decoder {
 public:
  Decoder() = default;  // tokens with a space between them, as the library does without a decoder
  // Throws Error: kBadInput, kUnsupported.
  Decoder(const Json& json, const std::string& place);

 private:
  friend class DecoderStream;
  enum class Kind { kByteLevel, kReplace, kByteFallback, kFuse, kStrip, kMetaspace };
  struct Step {
    Kind kind;
    std::shared_ptr<const SearchPattern> pattern;  // Replace
    std::string content;                           // Replace; one character: Strip, Metaspace
    size_t start = 0, stop = 0;                    // Strip
    bool prepend = true;                           // Metaspace
    bool joined = false;                           // what comes here are parts of one long token
  };
  void Add(const Json& json, const std::string& place, int depth);
  void AddStrip(const Json& json, const std::string& place);
  void AddMetaspace(const Json& json, const std::string& place);

  std::vector<Step> steps_;
  bool joined_ = false;
  bool present_ = false;
};

// The state of decoding one text.
class DecoderStream {
 public:
  explicit DecoderStream(const Decoder& decoder);
  // Puts what is now certain of the text behind `out`.
  void Add(std::string_view token, std::string& out);
  void Finish(std::string& out);

 private:
  struct State {
    std::string pending;      // bytes that wait (ByteLevel, ByteFallback, Strip's end)
    int64_t seen = 0;         // tokens, or characters at the start
    bool past_start = false;  // Strip: nothing more is cut at the start
  };
  void Push(size_t step, std::string_view token, std::string& out);
  void FlushBytes(size_t step, std::string& out);
  void PushBytes(size_t step, std::string_view token, std::string& out);
  void PushStripped(size_t step, std::string_view token, std::string& out);
  void Emit(std::string_view text, std::string& out);

  const Decoder* decoder_;
  std::vector<State> states_;
  bool first_ = true;
};

}  // namespace samebits
