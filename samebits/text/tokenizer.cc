#include "samebits/text/tokenizer.h"

#include <algorithm>
#include <filesystem>
#include <mutex>
#include <utility>

#include "samebits/base/error.h"
#include "samebits/base/json.h"
#include "samebits/text/tokenizer_json.h"

namespace samebits {
namespace {

constexpr int64_t kMaxTokenizerBytes = 256 << 20;

}  // namespace

struct Tokenizer::Impl {
  TokenizerParts parts;
  mutable std::mutex cache_mutex;
  mutable WordCache cache;

  explicit Impl(TokenizerParts the_parts) : parts(std::move(the_parts)) {}

  // False: none. As in the library, added tokens come first, and as they are normalized.
  bool TokenOf(int64_t id, std::string_view& token) const {
    if (const AddedToken* added = parts.added.Find(id)) {
      token = added->shown;
      return true;
    }
    token = parts.bpe.vocabulary().Token(id);
    return parts.bpe.vocabulary().Has(id);
  }

  // Of a text without added tokens of the first kind.
  void EncodeBetween(std::string_view text, bool at_start, WordCache* words,
                     std::vector<int64_t>& ids) const {
    std::string storage;
    const std::string_view normalized = parts.normalizer.Run(text, storage);
    const auto encode = [&](std::string_view part, bool start) {
      parts.pre_tokenizer.Run(
          part, start, [&](std::string_view word) { parts.bpe.EncodeWord(word, words, ids); });
    };
    if (!parts.added.any(true)) return encode(normalized, at_start);
    for (const AddedTokens::Part& part : parts.added.Split(normalized, true)) {
      if (part.id >= 0) {
        ids.push_back(part.id);
      } else {
        encode(normalized.substr(part.begin, part.end - part.begin), at_start && part.begin == 0);
      }
    }
  }
};

Tokenizer Tokenizer::Parse(std::string_view json, const std::string& place) {
  Tokenizer result;
  result.impl_ = std::make_shared<const Impl>(ParseTokenizerJson(json, place));
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

std::vector<int64_t> Tokenizer::Encode(std::string_view text, bool add_special_tokens) const {
  std::string replaced;
  if (!IsValidUtf8(text)) {
    replaced = ReplaceInvalidUtf8(text);
    text = replaced;
  }
  // One thread at a time has the cache; another does without.
  const std::unique_lock<std::mutex> lock(impl_->cache_mutex, std::try_to_lock);
  if (lock.owns_lock()) impl_->cache.Grow(text.size());
  WordCache* const words = lock.owns_lock() && impl_->cache.enabled() ? &impl_->cache : nullptr;
  const TokenizerParts& parts = impl_->parts;
  std::vector<int64_t> ids;
  ids.reserve(text.size() / 3 + 8);
  if (add_special_tokens) ids = parts.prefix;
  if (!parts.added.any(false)) {
    if (!text.empty()) impl_->EncodeBetween(text, true, words, ids);
  } else {
    for (const AddedTokens::Part& part : parts.added.Split(text, false)) {
      if (part.id >= 0) {
        ids.push_back(part.id);
      } else {
        impl_->EncodeBetween(text.substr(part.begin, part.end - part.begin), part.begin == 0, words,
                             ids);
      }
    }
  }
  if (add_special_tokens) ids.insert(ids.end(), parts.suffix.begin(), parts.suffix.end());
  return ids;
}

std::string Tokenizer::Decode(std::span<const int64_t> ids, bool skip_special_tokens) const {
  TextStream stream(*this, skip_special_tokens);
  std::string text;
  for (const int64_t id : ids) text += stream.Add(id);
  return text + stream.Finish();
}

int64_t Tokenizer::TokenToId(std::string_view token) const {
  const AddedToken* added = impl_->parts.added.Find(token);
  return added != nullptr ? added->id : impl_->parts.bpe.vocabulary().Find(token);
}

std::string Tokenizer::IdToToken(int64_t id) const {
  std::string_view token;
  return impl_->TokenOf(id, token) ? std::string(token) : "";
}

bool Tokenizer::IsSpecial(int64_t id) const {
  const AddedToken* added = impl_->parts.added.Find(id);
  return added != nullptr && added->special;
}

int64_t Tokenizer::size() const {
  return std::max(impl_->parts.bpe.vocabulary().max_id(), impl_->parts.added.max_id()) + 1;
}

struct TextStream::State {
  std::shared_ptr<const Tokenizer::Impl> impl;
  DecoderStream decoder;
  bool skip_special;
};

TextStream::TextStream(const Tokenizer& tokenizer, bool skip_special_tokens)
    : state_(new State{tokenizer.impl_, DecoderStream(tokenizer.impl_->parts.decoder),
                       skip_special_tokens}) {}
TextStream::TextStream(TextStream&&) noexcept = default;
TextStream& TextStream::operator=(TextStream&&) noexcept = default;
TextStream::~TextStream() = default;

std::string TextStream::Add(int64_t id) {
  std::string_view token;
  std::string text;
  const AddedTokens& added = state_->impl->parts.added;
  if (!state_->impl->TokenOf(id, token)) return text;
  // As in the library: a special token that normalization changed is shown.
  if (state_->skip_special && added.IsSpecial(token)) return text;
  state_->decoder.Add(token, text);
  return text;
}

std::string TextStream::Finish() {
  std::string text;
  state_->decoder.Finish(text);
  return text;
}

}  // namespace samebits
