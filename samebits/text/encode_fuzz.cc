// The first byte chooses a small tokenizer, the rest is text, valid or not: it is encoded, decoded
// at once and as a stream, and encoded in pieces by two threads. Byte-level tokenizers without a
// normalizer must give the text back.
#include <fmt/format.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "samebits/base/error.h"
#include "samebits/text/byte_alphabet.h"
#include "samebits/text/tokenizer.h"

namespace {

using samebits::Tokenizer;

struct Kind {
  Tokenizer tokenizer;
  bool round_trip;
};

constexpr const char* kQwen2 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+)";
constexpr const char* kTekken =
    R"([^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+)";
constexpr const char* kOther = R"(\\s+(?!\\S)|(?:ab)+c?|\\p{Lu}+|.|\\n)";

std::string Split(const char* pattern) {
  return std::string(
             R"({"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":")") +
         pattern +
         R"("},"behavior":"Isolated","invert":false},{"type":"ByteLevel","add_prefix_space":false,)"
         R"("use_regex":false}]})";
}

// A vocabulary of all bytes, or of <0x00> to <0xFF>, with a few merges.
std::string File(const std::string& normalizer, const std::string& pre, const std::string& decoder,
                 bool bytes, const std::string& added) {
  std::string vocab, merges;
  size_t id = 0;
  const auto add = [&](const std::string& token) {
    const char* escape = token == "\"" || token == "\\" ? "\\" : "";
    vocab += fmt::format("{}\"{}{}\":{}", id == 0 ? "" : ",", escape, token, id);
    ++id;
  };
  for (int b = 0; b < 256; ++b) {
    add(bytes ? fmt::format("<0x{:02X}>", b) : samebits::Gpt2Alphabet().stand_in[b]);
  }
  const std::string space = bytes ? "\xe2\x96\x81" : samebits::Gpt2Alphabet().stand_in[' '];
  if (bytes) {
    for (const char* token : {"a", "b", "c", "e", "t", "<unk>"}) add(token);
    add(space);
  }
  for (const auto& [left, right] : {std::pair<std::string, std::string>{"a", "b"},
                                    {"ab", "ab"},
                                    {space, "t"},
                                    {"e", "e"},
                                    {space, "ab"},
                                    {space, space},
                                    {"c", "ab"}}) {
    merges += fmt::format("{}[\"{}\",\"{}\"]", merges.empty() ? "" : ",", left, right);
    add(left + right);
  }
  return fmt::format(
      R"({{"normalizer":{},"pre_tokenizer":{},"decoder":{},"added_tokens":[{}],"post_processor":null,)"
      R"("model":{{"type":"BPE","byte_fallback":{},"fuse_unk":{},"unk_token":{},"vocab":{{{}}},"merges":[{}]}}}})",
      normalizer, pre, decoder, fmt::format(fmt::runtime(added), id, id + 1, id + 2), bytes, bytes,
      bytes ? "\"<unk>\"" : "null", vocab, merges);
}

const std::vector<Kind>& Kinds() {
  static const std::vector<Kind> kinds = [] {
    const std::string level = R"({"type":"ByteLevel"})";
    const std::string plain =
        R"({{"id":{},"content":"<s>","special":true}},{{"id":{},"content":"<ab","single_word":true}},)"
        R"({{"id":{},"content":"<abc>"}})";
    const std::string odd =
        R"({{"id":{},"content":"<s>","special":true,"lstrip":true,"rstrip":true}},)"
        R"({{"id":{},"content":"xab","single_word":true,"normalized":true}},)"
        R"({{"id":{},"content":" t","lstrip":true}})";
    const std::string pieces =
        R"({"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"▁"},"content":" "},)"
        R"({"type":"ByteFallback"},{"type":"Fuse"},{"type":"Strip","content":" ","start":1,"stop":1}]})";
    std::vector<Kind> result;
    const auto add = [&](const std::string& json, bool round_trip) {
      result.push_back({Tokenizer::Parse(json, "fuzz"), round_trip});
    };
    add(File("null", Split(kQwen2), level, false, plain), true);
    add(File("null", Split(kTekken), level, false, plain), true);
    add(File("null", R"({"type":"ByteLevel","add_prefix_space":false})", level, false, plain),
        true);
    add(File("null", Split(kOther), level, false, plain), true);
    add(File(R"({"type":"NFC"})", Split(kQwen2), level, false, odd), false);
    add(File(R"({"type":"Sequence","normalizers":[{"type":"Prepend","prepend":"▁"},)"
             R"({"type":"Replace","pattern":{"String":" "},"content":"▁"}]})",
             "null", pieces, true, odd),
        false);
    add(File(R"({"type":"NFKD"})",
             R"({"type":"Metaspace","replacement":"▁","prepend_scheme":"first","split":true})",
             pieces, true, odd),
        false);
    return result;
  }();
  return kinds;
}

std::string Streamed(const Tokenizer& tokenizer, const std::vector<int64_t>& ids, bool skip) {
  samebits::TextStream stream(tokenizer, skip);
  std::string text;
  for (const int64_t id : ids) {
    const std::string more = stream.Add(id);
    SAMEBITS_CHECK(samebits::IsValidUtf8(more), "a part of a character");
    text += more;
  }
  return text + stream.Finish();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace samebits;
  if (size == 0 || size > 512) return 0;  // long texts are for tests: here many count
  const Kind& kind = Kinds()[data[0] % Kinds().size()];
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  std::vector<int64_t> ids;
  try {
    ids = kind.tokenizer.Encode(text);
  } catch (const Error&) {  // a pattern that takes too many steps
    return 0;
  }
  SAMEBITS_CHECK(kind.tokenizer.EncodeBatch({&text, 1}, true, 2, 1)[0] == ids,
                 "two threads give other ids");
  bool special = false;
  for (const int64_t id : ids) {
    SAMEBITS_CHECK(id >= 0 && id < kind.tokenizer.size(), "an id that is no token");
    special = special || kind.tokenizer.IsSpecial(id);
  }
  const std::string all = Streamed(kind.tokenizer, ids, false);
  SAMEBITS_CHECK(!kind.round_trip || all == ReplaceInvalidUtf8(text),
                 "decoding does not give the text back");
  // Without a special token there is nothing to skip, and the text is the same.
  const std::string kept = special ? Streamed(kind.tokenizer, ids, true) : all;
  SAMEBITS_CHECK(kind.tokenizer.Decode(ids, true) == kept, "streaming gives another text");
  return 0;
}
