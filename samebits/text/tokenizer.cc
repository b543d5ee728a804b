#include "samebits/text/tokenizer.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <limits>

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
    if (c >= 0xc0 && i + 1 < token.size()) {  // all stand-ins have at most two bytes
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

}  // namespace

Tokenizer Tokenizer::Parse(std::string_view text, const std::string& place) {
  const Json json = ParseJson(text, place);
  Tokenizer result;
  const Json& model = Member(json, "model", place);
  if (!model.is_object() || !model.contains("type") || model["type"] != "BPE") {
    Fail(ErrorCode::kUnsupported, "{}: model: supported is byte-level BPE only", place);
  }
  if (HasField(json, "normalizer") && json["normalizer"] != Json{{"type", "NFC"}}) {
    Fail(ErrorCode::kUnsupported, "{}: normalizer {}: supported are none and NFC", place,
         Excerpt(json["normalizer"]));
  }
  // The pre-tokenizers known here, told by the texts that matter.
  const std::string pre = Member(json, "pre_tokenizer", place).dump();
  const std::string qwen2 = Json(kQwen2Pattern).dump();
  if (pre.find(qwen2) != std::string::npos) {
    result.pattern_ = Pattern::kQwen2;
  } else if (pre.find("\"Split\"") == std::string::npos &&
             pre.find("\"use_regex\":true") != std::string::npos &&
             pre.find("\"add_prefix_space\":true") == std::string::npos) {
    result.pattern_ = pre.find("\"individual_digits\":true") != std::string::npos
                          ? Pattern::kDigitsGpt2
                          : Pattern::kGpt2;
  } else {
    Fail(ErrorCode::kUnsupported, "{}: pre_tokenizer {}: supported are Qwen2's and GPT-2's", place,
         pre.substr(0, 120));
  }
  const auto alphabet = ByteAlphabet();
  const Json& vocab = Member(model, "vocab", place);
  const Json& merges = Member(model, "merges", place);
  if (!vocab.is_object() || !merges.is_array()) {
    Fail(ErrorCode::kBadInput, "{}: model: expected an object 'vocab' and a list 'merges'", place);
  }
  for (const auto& [token, id] : vocab.items()) {
    std::string bytes;
    if (!ToBytes(token, alphabet, bytes)) continue;  // an added token, listed below
    const int64_t value = TokenId(id, place + ": vocab");
    result.vocab_[bytes] = value;
    result.bytes_[value] = bytes;
  }
  int64_t rank = 0;
  for (const Json& merge : merges) {  // ["a", "b"] or "a b"
    std::string left, right;
    if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      left = merge[0].get<std::string>();
      right = merge[1].get<std::string>();
    } else if (merge.is_string() && merge.get_ref<const std::string&>().find(' ') > 0) {
      const auto& both = merge.get_ref<const std::string&>();
      left = both.substr(0, both.find(' '));
      right = both.substr(std::min(both.size(), both.find(' ') + 1));
    }
    std::string a, b;
    if (left.empty() || right.empty() || !ToBytes(left, alphabet, a) ||
        !ToBytes(right, alphabet, b)) {
      Fail(ErrorCode::kBadInput, "{}: merges: expected two tokens, found {}", place,
           Excerpt(merge));
    }
    if (!result.vocab_.contains(a + b)) {
      Fail(ErrorCode::kBadInput, "{}: merges: {} gives a token that vocab does not have", place,
           Excerpt(merge));
    }
    result.merges_.emplace(a + '\0' + b, rank++);
  }
  if (HasField(json, "added_tokens")) {
    for (const Json& token : json["added_tokens"]) {
      const std::string content = StringField(token, "content", place + ": added_tokens");
      if (content.empty()) Fail(ErrorCode::kBadInput, "{}: added_tokens: empty content", place);
      const int64_t id = TokenId(Member(token, "id", place), place + ": added_tokens");
      result.added_[content] = id;
      if (HasField(token, "special") && BoolField(token, "special", place)) {
        result.special_[id] = content;
      } else {
        result.bytes_[id] = content;
      }
    }
  }
  return result;
}

Tokenizer Tokenizer::Open(const std::string& folder) {
  const std::string path = folder + "/tokenizer.json";
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) {
    Fail(ErrorCode::kIo, "{}: not there; without a tokenizer give token ids: --ids 1,2,3", path);
  }
  return Parse(ReadTextFile(path, kMaxTokenizerBytes), path);
}

// Merges the pair of lowest rank, leftmost first, until none is left.
void Tokenizer::EncodePiece(std::string_view piece, std::vector<int64_t>& ids) const {
  std::vector<std::string> parts;
  for (char c : piece) parts.emplace_back(1, c);
  while (parts.size() > 1) {
    int64_t best = std::numeric_limits<int64_t>::max();
    size_t at = 0;
    for (size_t i = 0; i + 1 < parts.size(); ++i) {
      const auto found = merges_.find(parts[i] + '\0' + parts[i + 1]);
      if (found != merges_.end() && found->second < best) {
        best = found->second;
        at = i;
      }
    }
    if (best == std::numeric_limits<int64_t>::max()) break;
    parts[at] += parts[at + 1];
    parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(at) + 1);
  }
  for (const std::string& part : parts) {
    const auto found = vocab_.find(part);
    if (found == vocab_.end()) {
      Fail(ErrorCode::kBadInput, "tokenizer.json: no token for the byte {:#x}",
           static_cast<uint8_t>(part[0]));
    }
    ids.push_back(found->second);
  }
}

void Tokenizer::EncodePlain(std::string_view text, std::vector<int64_t>& ids) const {
  for (size_t i = 0; i < text.size(); ++i) {
    if (static_cast<uint8_t>(text[i]) >= 0x80) {
      Fail(
          ErrorCode::kUnsupported,
          "the text has a character beyond ASCII at byte {}: its class is not known here yet; give "
          "token ids: --ids 1,2,3",
          i);
    }
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

std::vector<int64_t> Tokenizer::Encode(std::string_view text) const {
  std::vector<int64_t> ids;
  while (!text.empty()) {
    // The first added token in the text; of those that begin there, the longest.
    size_t at = std::string_view::npos;
    std::string_view token;
    int64_t id = -1;
    for (const auto& [content, token_id] : added_) {
      const size_t found = text.find(content);
      if (found == std::string_view::npos) continue;
      if (at == std::string_view::npos || found < at ||
          (found == at && content.size() > token.size())) {
        at = found;
        token = content;
        id = token_id;
      }
    }
    EncodePlain(text.substr(0, at), ids);
    if (at == std::string_view::npos) break;
    ids.push_back(id);
    text.remove_prefix(at + token.size());
  }
  return ids;
}

std::string Tokenizer::Decode(int64_t id) const {
  const auto found = bytes_.find(id);
  return found == bytes_.end() || special_.contains(id) ? "" : found->second;
}

int64_t Tokenizer::TokenToId(const std::string& token) const {
  const auto found = added_.find(token);
  return found == added_.end() ? -1 : found->second;
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

std::string FormatChat(const std::string& folder, std::string_view user) {
  std::string chat;
  const std::string path = folder + "/tokenizer_config.json";
  const std::string jinja = folder + "/chat_template.jinja";
  std::error_code ignored;
  if (std::filesystem::exists(jinja, ignored)) {
    chat = ReadTextFile(jinja, 1 << 20);
  } else {
    const Json json = ParseJson(ReadTextFile(path, 16 << 20), path);
    if (json.is_object() && HasField(json, "chat_template") && json["chat_template"].is_string()) {
      chat = json["chat_template"].get<std::string>();
    }
  }
  if (chat.find("<|im_start|>") == std::string::npos ||
      chat.find("<|im_end|>") == std::string::npos) {
    Fail(ErrorCode::kUnsupported,
         "{}: no chat template of the ChatML kind; give the text as it is with --raw, or --ids",
         folder);
  }
  // A template that puts a system message of its own in front has it as literal text.
  std::string system;
  constexpr std::string_view kSystem = "<|im_start|>system\\n";
  for (size_t at = chat.find(kSystem); at != std::string::npos; at = chat.find(kSystem, at + 1)) {
    const size_t begin = at + kSystem.size();
    const size_t end = chat.find("<|im_end|>", begin);
    const std::string literal = chat.substr(begin, end - begin);
    if (!literal.empty() && literal.find('\'') == std::string::npos &&
        literal.find('{') == std::string::npos) {
      system = literal;
      break;
    }
  }
  std::string text;
  if (!system.empty()) text += "<|im_start|>system\n" + system + "<|im_end|>\n";
  text += "<|im_start|>user\n";
  text += user;
  text += "<|im_end|>\n<|im_start|>assistant\n";
  return text;
}

}  // namespace samebits
