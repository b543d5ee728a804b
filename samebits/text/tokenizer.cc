#include "samebits/text/tokenizer.h"

#include <algorithm>
#include <filesystem>
#include <queue>

#include "samebits/base/error.h"
#include "samebits/base/json.h"

namespace samebits {
namespace {

constexpr int64_t kMaxTokenizerBytes = 256 << 20;
constexpr const char* kQwen2Pattern =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| "
    "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

bool Letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
bool Digit(char c) { return c >= '0' && c <= '9'; }
bool Space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
bool Newline(char c) { return c == '\r' || c == '\n'; }
bool Other(char c) { return !Letter(c) && !Digit(c) && !Space(c); }

// Length of 's, 't, 're, 've, 'm, 'll or 'd at the start of s, or 0.
size_t Contraction(std::string_view s, bool ignore_case) {
  if (s.size() < 2 || s[0] != '\'') return 0;
  std::string rest(s.substr(1, 2));
  if (ignore_case) {
    for (char& c : rest) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  }
  for (const char* two : {"re", "ve", "ll"}) {
    if (rest == two) return 3;
  }
  return rest[0] == 's' || rest[0] == 't' || rest[0] == 'm' || rest[0] == 'd' ? 2 : 0;
}

template <typename Class>
size_t Run(std::string_view s, size_t from, Class&& is) {
  size_t i = from;
  while (i < s.size() && is(s[i])) ++i;
  return i;
}

// Both patterns end with \s+(?!\S)|\s+: white space, without its last character when something
// follows that is no white space.
size_t SpaceRun(std::string_view s) {
  const size_t end = Run(s, 0, Space);
  return end < s.size() && end > 1 ? end - 1 : end;
}

// Length of the first piece of s (not empty, ASCII) under the Qwen2 pattern.
size_t FirstPieceQwen2(std::string_view s) {
  if (const size_t n = Contraction(s, true)) return n;
  const size_t skip = !Newline(s[0]) && !Letter(s[0]) && !Digit(s[0]) ? 1 : 0;
  if (const size_t end = Run(s, skip, Letter); end > skip) return end;
  if (Digit(s[0])) return 1;
  const size_t space = s[0] == ' ' ? 1 : 0;
  if (const size_t end = Run(s, space, Other); end > space) return Run(s, end, Newline);
  const size_t white = Run(s, 0, Space);
  for (size_t i = white; i > 0; --i) {  // \s*[\r\n]+ : up to the last line end of the run
    if (Newline(s[i - 1])) return i;
  }
  return SpaceRun(s);
}

// The same under GPT-2's pattern.
size_t FirstPieceGpt2(std::string_view s) {
  if (const size_t n = Contraction(s, false)) return n;
  const size_t space = s[0] == ' ' ? 1 : 0;
  for (bool (*is)(char) : {&Letter, &Digit, &Other}) {
    if (const size_t end = Run(s, space, is); end > space) return end;
  }
  return SpaceRun(s);
}

// GPT-2's printable stand-ins for bytes: code point -> byte.
std::map<uint32_t, uint8_t> ByteAlphabet() {
  std::map<uint32_t, uint8_t> result;
  uint32_t next = 256;
  for (int b = 0; b < 256; ++b) {
    const bool shown = (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
    result[shown ? static_cast<uint32_t>(b) : next++] = static_cast<uint8_t>(b);
  }
  return result;
}

// A token in stand-ins as its bytes; false when a character is not one of them.
bool ToBytes(std::string_view token, const std::map<uint32_t, uint8_t>& alphabet,
             std::string& bytes) {
  for (size_t i = 0; i < token.size();) {
    const auto c = static_cast<uint8_t>(token[i]);
    uint32_t code = c;
    size_t length = 1;
    if (c >= 0x80) {  // all other stand-ins have two bytes
      if (c < 0xc2 || c > 0xdf || i + 1 == token.size()) return false;
      code = (c & 0x1fU) << 6 | (static_cast<uint8_t>(token[i + 1]) & 0x3fU);
      length = 2;
    }
    const auto found = alphabet.find(code);
    if (found == alphabet.end()) return false;
    bytes.push_back(static_cast<char>(found->second));
    i += length;
  }
  return true;
}

int64_t TokenId(const Json& value, const std::string& place) {
  if (!value.is_number_unsigned() || value.get<uint64_t>() >= (uint64_t{1} << 31)) {
    Fail(ErrorCode::kBadInput, "{}: expected a token id, found {}", place, Excerpt(value));
  }
  return value.get<int64_t>();
}

const Json& Member(const Json& object, const char* key, const std::string& place) {
  if (!object.is_object() || !object.contains(key)) {
    Fail(ErrorCode::kBadInput, "{}: '{}' is missing", place, key);
  }
  return object[key];
}

bool Is(const Json& object, const char* key, const Json& value) {
  return object.is_object() && object.contains(key) && object[key] == value;
}

bool IsByteLevel(const Json& json, bool use_regex) {
  return Is(json, "type", "ByteLevel") && Is(json, "add_prefix_space", false) &&
         Is(json, "use_regex", use_regex);
}

bool IsQwen2Split(const Json& json) {
  return Is(json, "type", "Split") && Is(json, "pattern", {{"Regex", kQwen2Pattern}}) &&
         Is(json, "behavior", "Isolated") && Is(json, "invert", false);
}

// The items of a Sequence, or the one that is none.
std::vector<Json> Items(const Json& json, const char* key) {
  if (!Is(json, "type", "Sequence")) return {json};
  if (!json.contains(key) || !json[key].is_array()) return {};
  return json[key].get<std::vector<Json>>();
}

// A template that puts the text and nothing else.
bool AddsNoTokens(const Json& processor) {
  if (processor.is_null() || Is(processor, "type", "ByteLevel")) return true;
  if (!Is(processor, "type", "TemplateProcessing") || !processor.contains("single")) return false;
  const Json& single = processor["single"];
  return single.is_array() && single.size() == 1 && single[0].is_object() &&
         single[0].contains("Sequence");
}

// Settings that would change ids, each with the values under which it does not.
void CheckSettings(const Json& json, const Json& model, const std::string& place) {
  const auto refuse = [&](const std::string& what, const Json& value, const char* supported) {
    Fail(ErrorCode::kUnsupported, "{}: {} {}: supported: {}", place, what, Excerpt(value),
         supported);
  };
  if (HasField(json, "normalizer") && json["normalizer"] != Json{{"type", "NFC"}}) {
    refuse("normalizer", json["normalizer"], "none and NFC");
  }
  if (HasField(json, "post_processor")) {
    for (const Json& processor : Items(json["post_processor"], "processors")) {
      if (!AddsNoTokens(processor)) refuse("post_processor", processor, "those that add no token");
    }
  }
  for (const char* key : {"truncation", "padding"}) {
    if (HasField(json, key)) refuse(key, json[key], "none");
  }
  for (const char* key : {"byte_fallback", "ignore_merges"}) {
    if (HasField(model, key) && model[key] != false) refuse(key, model[key], "false");
  }
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (HasField(model, key) && model[key] != "") refuse(key, model[key], "none");
  }
  if (HasField(model, "dropout") && model["dropout"] != 0) {
    refuse("dropout", model["dropout"], "none");
  }
}

uint64_t Pair(int64_t left, int64_t right) {
  return static_cast<uint64_t>(left) << 32 | static_cast<uint64_t>(right);
}

}  // namespace

Tokenizer Tokenizer::Parse(std::string_view text, const std::string& place) {
  const Json json = ParseJson(text, place);
  Tokenizer result;
  const Json& model = Member(json, "model", place);
  if (!Is(model, "type", "BPE")) {
    Fail(ErrorCode::kUnsupported, "{}: model: supported is byte-level BPE only", place);
  }
  CheckSettings(json, model, place);
  const Json& pre = Member(json, "pre_tokenizer", place);
  const std::vector<Json> parts = Items(pre, "pretokenizers");
  if (parts.size() == 2 && IsQwen2Split(parts[0]) && IsByteLevel(parts[1], false)) {
    result.pattern_ = Pattern::kQwen2;
  } else if (parts.size() == 2 && Is(parts[0], "type", "Digits") &&
             Is(parts[0], "individual_digits", true) && IsByteLevel(parts[1], true)) {
    result.pattern_ = Pattern::kDigitsGpt2;
  } else if (parts.size() == 1 && IsByteLevel(parts[0], true)) {
    result.pattern_ = Pattern::kGpt2;
  } else {
    Fail(ErrorCode::kUnsupported, "{}: pre_tokenizer {}: supported are Qwen2's and GPT-2's", place,
         Excerpt(pre));
  }
  result.ReadModel(model, place);
  if (HasField(json, "added_tokens")) result.ReadAddedTokens(json["added_tokens"], place);
  return result;
}

void Tokenizer::ReadModel(const Json& model, const std::string& place) {
  const auto alphabet = ByteAlphabet();
  const Json& vocab = Member(model, "vocab", place);
  const Json& merges = Member(model, "merges", place);
  if (!vocab.is_object() || !merges.is_array()) {
    Fail(ErrorCode::kBadInput, "{}: model: expected an object 'vocab' and a list 'merges'", place);
  }
  byte_ids_.fill(-1);
  for (const auto& [token, id] : vocab.items()) {
    std::string bytes;
    const int64_t value = TokenId(id, place + ": vocab");
    if (!ToBytes(token, alphabet, bytes)) continue;  // an added token, listed elsewhere
    vocab_[bytes] = value;
    if (!bytes_.emplace(value, bytes).second) {
      Fail(ErrorCode::kBadInput, "{}: vocab: two tokens have the id {}", place, value);
    }
    if (bytes.size() == 1) byte_ids_[static_cast<uint8_t>(bytes[0])] = value;
  }
  ReadMerges(merges, place);
}

void Tokenizer::ReadMerges(const Json& merges, const std::string& place) {
  const auto alphabet = ByteAlphabet();
  int64_t rank = 0;
  for (const Json& merge : merges) {  // ["a", "b"] or "a b"
    std::string left, right;
    if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      left = merge[0].get<std::string>();
      right = merge[1].get<std::string>();
    } else if (merge.is_string()) {
      const auto& both = merge.get_ref<const std::string&>();
      const size_t space = std::min(both.size(), both.find(' '));
      left = both.substr(0, space);
      right = both.substr(std::min(both.size(), space + 1));
    }
    std::string a, b;
    if (left.empty() || right.empty() || !ToBytes(left, alphabet, a) ||
        !ToBytes(right, alphabet, b)) {
      Fail(ErrorCode::kBadInput, "{}: merges: expected two tokens, found {}", place,
           Excerpt(merge));
    }
    const auto left_id = vocab_.find(a), right_id = vocab_.find(b), id = vocab_.find(a + b);
    if (left_id == vocab_.end() || right_id == vocab_.end() || id == vocab_.end()) {
      Fail(ErrorCode::kBadInput, "{}: merges: {} has or gives a token that vocab does not have",
           place, Excerpt(merge));
    }
    // Of equal pairs the last counts, as in the `tokenizers` library.
    merges_.insert_or_assign(Pair(left_id->second, right_id->second), Merge{rank++, id->second});
  }
}

void Tokenizer::ReadAddedTokens(const Json& tokens, const std::string& place) {
  const std::string where = place + ": added_tokens";
  if (!tokens.is_array()) {
    Fail(ErrorCode::kBadInput, "{}: expected a list, found {}", where, Excerpt(tokens));
  }
  for (const Json& token : tokens) {
    if (!token.is_object()) {
      Fail(ErrorCode::kBadInput, "{}: expected objects, found {}", where, Excerpt(token));
    }
    const std::string content = StringField(token, "content", where);
    if (content.empty()) Fail(ErrorCode::kBadInput, "{}: empty content", where);
    const int64_t id = TokenId(Member(token, "id", where), where);
    const auto flag = [&](const char* key) {
      return HasField(token, key) && BoolField(token, key, where);
    };
    for (const char* key : {"single_word", "lstrip", "rstrip"}) {
      if (!flag(key)) continue;
      Fail(ErrorCode::kUnsupported, "{}: {}: {} is true; supported: false", where,
           Excerpt(token["content"]), key);
    }
    (flag("normalized") ? normalized_ : added_)[content] = id;
    if (flag("special")) {
      special_[id] = content;
    } else {
      bytes_[id] = content;
    }
  }
}

Tokenizer Tokenizer::Open(const std::string& folder) {
  const std::string path = folder + "/tokenizer.json";
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) {
    Fail(ErrorCode::kIo, "{}: not there; without a tokenizer give token ids: --ids 1,2,3", path);
  }
  return Parse(ReadTextFile(path, kMaxTokenizerBytes), path);
}

// Merges the pair of lowest rank, leftmost first, until none is left. Pairs wait in a heap, so a
// piece of n bytes takes n log n steps.
void Tokenizer::EncodePiece(std::string_view piece, std::vector<int64_t>& ids) const {
  struct Part {
    int64_t id;
    int64_t previous, next;  // -1: none
  };
  struct Candidate {
    int64_t rank, at;  // `at`: the left part
    uint64_t pair;
    int64_t id;
    bool operator<(const Candidate& other) const {  // the heap's top is the largest
      return rank != other.rank ? rank > other.rank : at > other.at;
    }
  };
  const auto size = static_cast<int64_t>(piece.size());
  std::vector<Part> parts;
  for (int64_t i = 0; i < size; ++i) {
    const auto byte = static_cast<uint8_t>(piece[static_cast<size_t>(i)]);
    if (byte_ids_[byte] < 0) {
      Fail(ErrorCode::kBadInput, "tokenizer.json: no token for the byte {:#x}", byte);
    }
    parts.push_back({byte_ids_[byte], i - 1, i + 1 < size ? i + 1 : -1});
  }
  std::priority_queue<Candidate> candidates;
  const auto pair_at = [&](int64_t at) { return Pair(parts[at].id, parts[parts[at].next].id); };
  const auto propose = [&](int64_t at) {
    if (at < 0 || parts[at].next < 0) return;
    const auto found = merges_.find(pair_at(at));
    if (found == merges_.end()) return;
    candidates.push({found->second.rank, at, found->first, found->second.id});
  };
  for (int64_t i = 0; i < size; ++i) propose(i);
  while (!candidates.empty()) {
    const Candidate best = candidates.top();
    candidates.pop();
    Part& left = parts[best.at];
    if (left.id < 0 || left.next < 0 || pair_at(best.at) != best.pair) continue;  // gone since
    Part& right = parts[left.next];
    left.id = best.id;
    left.next = right.next;
    if (right.next >= 0) parts[right.next].previous = best.at;
    right.id = -1;
    propose(left.previous);
    propose(best.at);
  }
  for (int64_t i = 0; i >= 0; i = parts[i].next) ids.push_back(parts[i].id);
}

void Tokenizer::EncodePlain(std::string_view text, std::vector<int64_t>& ids) const {
  for (size_t i = 0; i < text.size(); ++i) {
    if (static_cast<uint8_t>(text[i]) < 0x80) continue;
    size_t end = i + 1;
    while (end < text.size() && (static_cast<uint8_t>(text[end]) & 0xc0U) == 0x80U) ++end;
    Fail(ErrorCode::kUnsupported,
         "the text has a character beyond ASCII, {}: its class is not known here yet; give token "
         "ids: --ids 1,2,3",
         Excerpt(Json(std::string(text.substr(i, end - i)))));
  }
  while (!text.empty()) {
    // Digits come apart before GPT-2's pattern sees the text in between.
    std::string_view part = text;
    if (pattern_ == Pattern::kDigitsGpt2) {
      const size_t end = Digit(text[0]) ? 1 : Run(text, 0, [](char c) { return !Digit(c); });
      part = text.substr(0, end);
    }
    text.remove_prefix(part.size());
    while (!part.empty()) {
      const size_t length =
          pattern_ == Pattern::kQwen2 ? FirstPieceQwen2(part) : FirstPieceGpt2(part);
      EncodePiece(part.substr(0, length), ids);
      part.remove_prefix(length);
    }
  }
}

// Finds added tokens from the left, the longest of those that begin at one place; what lies between
// goes to `plain`.
void Tokenizer::EncodeBetween(const std::map<std::string, int64_t>& added, std::string_view text,
                              const std::function<void(std::string_view)>& plain,
                              std::vector<int64_t>& ids) const {
  size_t begin = 0;
  for (size_t i = 0; i < text.size();) {
    std::string_view token;
    int64_t id = -1;
    const std::string first(1, text[i]);
    for (auto it = added.lower_bound(first); it != added.end() && it->first[0] == text[i]; ++it) {
      if (it->first.size() > token.size() && text.substr(i).starts_with(it->first)) {
        token = it->first;
        id = it->second;
      }
    }
    if (id < 0) {
      ++i;
      continue;
    }
    plain(text.substr(begin, i - begin));
    ids.push_back(id);
    i += token.size();
    begin = i;
  }
  plain(text.substr(begin));
}

std::vector<int64_t> Tokenizer::Encode(std::string_view text) const {
  std::vector<int64_t> ids;
  EncodeBetween(
      added_, text,
      [&](std::string_view part) {
        EncodeBetween(
            normalized_, part, [&](std::string_view rest) { EncodePlain(rest, ids); }, ids);
      },
      ids);
  return ids;
}

std::string Tokenizer::Decode(int64_t id) const {
  const auto found = bytes_.find(id);
  return found == bytes_.end() || special_.contains(id) ? "" : found->second;
}

int64_t Tokenizer::TokenToId(const std::string& token) const {
  for (const auto* added : {&added_, &normalized_}) {
    if (const auto found = added->find(token); found != added->end()) return found->second;
  }
  return -1;
}

size_t CompleteUtf8(std::string_view text) {
  for (size_t back = 1; back <= std::min<size_t>(4, text.size()); ++back) {
    const auto c = static_cast<uint8_t>(text[text.size() - back]);
    if ((c & 0xc0U) == 0x80U) continue;  // inside a character
    const size_t needed = c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : c >= 0xc0 ? 2 : 1;
    return needed > back ? text.size() - back : text.size();
  }
  return text.size();
}

}  // namespace samebits
