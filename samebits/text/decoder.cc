#include "samebits/text/decoder.h"

#include <algorithm>
#include <charconv>
#include <memory>
#include <utility>

#include "samebits/base/error.h"
#include "samebits/text/byte_alphabet.h"
#include "samebits/text/utf8.h"

namespace samebits {
namespace {

constexpr int kMaxDepth = 8;
constexpr int64_t kMaxStrip = 1024;
constexpr std::string_view kReplacement = "\xef\xbf\xbd";

bool OneCharacter(std::string_view text) {
  return !text.empty() && Utf8Length(text[0]) == text.size();
}

// The byte of <0xHH>, or -1. A sign before one digit is taken, as Rust's parser takes it.
int ByteOf(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return -1;
  std::string_view digits = token.substr(3, 2);
  if (digits[0] == '+') digits.remove_prefix(1);
  int value = -1;
  const auto [end, error] =
      std::from_chars(digits.data(), digits.data() + digits.size(), value, 16);
  return error == std::errc() && end == digits.data() + digits.size() && digits[0] != '-' ? value
                                                                                          : -1;
}

// A token that is whole without up to `start` and `stop` of the character at its ends.
std::string_view Strip(std::string_view token, std::string_view c, size_t start, size_t stop) {
  for (size_t i = 0; i < start && token.starts_with(c); ++i) token.remove_prefix(c.size());
  for (size_t i = 0; i < stop && token.ends_with(c); ++i) token.remove_suffix(c.size());
  return token;
}

}  // namespace

Decoder::Decoder(const Json& json, const std::string& place) {
  present_ = true;
  Add(json, place, 0);
}

void Decoder::Add(const Json& json, const std::string& place, int depth) {
  const std::string type = StringField(json, "type", place);
  const auto whole_tokens_only = [&] {
    if (!joined_) return;
    Fail(ErrorCode::kUnsupported, "{}: '{}' behind Fuse or ByteLevel is not supported", place,
         type);
  };
  if (type == "Sequence") {
    if (depth == kMaxDepth) Fail(ErrorCode::kBadInput, "{}: nested too deep", place);
    if (!json.contains("decoders") || !json["decoders"].is_array()) {
      Fail(ErrorCode::kBadInput, "{}: a Sequence without a list 'decoders'", place);
    }
    for (const Json& item : json["decoders"]) Add(item, place, depth + 1);
  } else if (type == "ByteLevel") {
    whole_tokens_only();
    steps_.push_back({Kind::kByteLevel, nullptr, "", 0, 0, true, false});
    joined_ = true;
  } else if (type == "Fuse") {
    joined_ = true;  // nothing to do: the parts follow each other
  } else if (type == "ByteFallback") {
    whole_tokens_only();
    steps_.push_back({Kind::kByteFallback, nullptr, "", 0, 0, true, false});
  } else if (type == "Replace") {
    if (!json.contains("pattern")) Fail(ErrorCode::kBadInput, "{}: 'pattern' is missing", place);
    auto pattern = std::make_shared<const SearchPattern>(json["pattern"], place);
    // A character is never cut in two, so it may be replaced in parts of a token.
    if (pattern->is_regex() || !OneCharacter(pattern->source())) whole_tokens_only();
    steps_.push_back({Kind::kReplace, std::move(pattern), StringField(json, "content", place), 0, 0,
                      true, joined_});
  } else if (type == "Strip") {
    AddStrip(json, place);
  } else if (type == "Metaspace") {
    whole_tokens_only();
    AddMetaspace(json, place);
  } else {
    Fail(ErrorCode::kUnsupported,
         "{}: '{}' is not supported; supported: Sequence, ByteLevel, Replace, ByteFallback, Fuse, "
         "Strip, Metaspace",
         place, type);
  }
}

void Decoder::AddStrip(const Json& json, const std::string& place) {
  std::string content = StringField(json, "content", place);
  if (!OneCharacter(content)) {
    Fail(ErrorCode::kBadInput, "{}: Strip: 'content' must be one character", place);
  }
  const auto start = static_cast<size_t>(IntegerField(json, "start", 0, kMaxStrip, place));
  const auto stop = static_cast<size_t>(IntegerField(json, "stop", 0, kMaxStrip, place));
  steps_.push_back({Kind::kStrip, nullptr, std::move(content), start, stop, true, joined_});
}

void Decoder::AddMetaspace(const Json& json, const std::string& place) {
  std::string replacement = StringField(json, "replacement", place);
  if (!OneCharacter(replacement)) {
    Fail(ErrorCode::kBadInput, "{}: Metaspace: 'replacement' must be one character", place);
  }
  bool prepend = !HasField(json, "add_prefix_space") || BoolField(json, "add_prefix_space", place);
  if (HasField(json, "prepend_scheme")) {
    prepend = StringField(json, "prepend_scheme", place) != "never";
  }
  steps_.push_back({Kind::kMetaspace, nullptr, std::move(replacement), 0, 0, prepend, false});
}

DecoderStream::DecoderStream(const Decoder& decoder)
    : decoder_(&decoder), states_(decoder.steps_.size()) {}

void DecoderStream::Add(std::string_view token, std::string& out) {
  if (!decoder_->present_ && !first_) out += ' ';
  first_ = false;
  Push(0, token, out);
}

void DecoderStream::Push(size_t step, std::string_view token, std::string& out) {
  if (step == states_.size()) {
    out += token;
    return;
  }
  const Decoder::Step& what = decoder_->steps_[step];
  State& state = states_[step];
  switch (what.kind) {
    case Decoder::Kind::kByteLevel: {
      // A token with characters that stand for no byte (an added one) is text as it is.
      if (!AppendBytesOfToken(token, state.pending)) state.pending += token;
      const size_t complete = CompleteUtf8(state.pending);
      if (complete == 0) return;
      const std::string text =
          ReplaceInvalidUtf8(std::string_view(state.pending).substr(0, complete));
      state.pending.erase(0, complete);
      return Push(step + 1, text, out);
    }
    case Decoder::Kind::kByteFallback:
      return PushBytes(step, token, out);
    case Decoder::Kind::kReplace:
      return Push(step + 1, what.pattern->ReplaceAll(token, what.content), out);
    case Decoder::Kind::kStrip:
      if (what.joined) return PushStripped(step, token, out);
      return Push(step + 1, Strip(token, what.content, what.start, what.stop), out);
    case Decoder::Kind::kMetaspace: {
      const bool drop = state.seen++ == 0 && what.prepend;
      std::string text;
      for (size_t i = 0, length = 0; i < token.size(); i += length) {
        length = Utf8Length(token[i]);
        const std::string_view c = token.substr(i, length);
        if (c != what.content) {
          text += c;
        } else if (!drop) {
          text += ' ';
        }
      }
      return Push(step + 1, text, out);
    }
    case Decoder::Kind::kFuse:
      return Push(step + 1, token, out);
  }
}

// ByteFallback: bytes in a row are text when all of them together are valid, and otherwise U+FFFD
// each. So they wait for the end of their row.
void DecoderStream::PushBytes(size_t step, std::string_view token, std::string& out) {
  if (const int byte = ByteOf(token); byte >= 0) {
    states_[step].pending.push_back(static_cast<char>(byte));
    return;
  }
  FlushBytes(step, out);
  Push(step + 1, token, out);
}

void DecoderStream::FlushBytes(size_t step, std::string& out) {
  const std::string bytes = std::exchange(states_[step].pending, {});
  if (bytes.empty()) return;
  if (IsValidUtf8(bytes)) return Push(step + 1, bytes, out);
  for (size_t i = 0; i < bytes.size(); ++i) Push(step + 1, kReplacement, out);
}

// Strip of one long token: at its start what comes first is cut; what may be its end waits.
void DecoderStream::PushStripped(size_t step, std::string_view token, std::string& out) {
  const Decoder::Step& what = decoder_->steps_[step];
  State& state = states_[step];
  while (!state.past_start && !token.empty()) {
    state.past_start =
        state.seen == static_cast<int64_t>(what.start) || !token.starts_with(what.content);
    if (state.past_start) break;
    token.remove_prefix(what.content.size());
    ++state.seen;
  }
  if (token.empty()) return;
  std::string text = std::exchange(state.pending, {});
  text += token;
  const std::string_view kept = Strip(text, what.content, 0, what.stop);
  state.pending = text.substr(kept.size());
  if (!kept.empty()) Push(step + 1, kept, out);
}

void DecoderStream::Finish(std::string& out) {
  for (size_t step = 0; step < states_.size(); ++step) {
    const Decoder::Kind kind = decoder_->steps_[step].kind;
    if (kind == Decoder::Kind::kByteFallback) FlushBytes(step, out);
    if (kind == Decoder::Kind::kByteLevel && !states_[step].pending.empty()) {
      Push(step + 1, ReplaceInvalidUtf8(std::exchange(states_[step].pending, {})), out);
    }
    // What waits in a Strip is its end, which goes.
  }
}

}  // namespace samebits
