#include "samebits/text/tokenizer.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <filesystem>
#include <mutex>
#include <thread>
#include <utility>

#include "samebits/base/error.h"
#include "samebits/base/json.h"
#include "samebits/text/tokenizer_json.h"
#include "samebits/text/unicode.h"

namespace samebits {
namespace {

constexpr int64_t kMaxTokenizerBytes = 256 << 20;

using Part = AddedTokens::Part;

// Parts of a text that follow one another, the work of one thread.
struct Piece {
  std::string_view text;  // the whole
  std::vector<Part> parts;
  size_t bytes = 0;
  std::vector<int64_t> ids;
};

uint8_t KindAt(std::string_view text, size_t at) { return ClassAt(text, at) & kKindMask; }

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

  // Where a part begins, behind `from`, that can be encoded apart from what is before it: behind a
  // line end, at a letter. npos: nowhere.
  size_t NextCut(std::string_view text, size_t from) const {
    std::string storage;
    for (size_t at = text.find('\n', from); at < text.size() - 1; at = text.find('\n', at + 1)) {
      if (at == 0) continue;
      const size_t left = PreviousUtf8(text, at);
      const std::string_view last = parts.normalizer.Run(text.substr(left, at - left), storage);
      if (IsSpace(KindAt(last, PreviousUtf8(last, last.size())))) continue;
      const std::string_view next = text.substr(at + 1, Utf8Length(text[at + 1]));
      if (IsLetter(KindAt(parts.normalizer.Run(next, storage), 0))) return at + 1;
    }
    return std::string_view::npos;
  }

  // The text in pieces of some `bytes`; of an empty one, too, there is one.
  std::vector<Piece> Pieces(std::string_view text, size_t bytes) const {
    std::vector<Part> whole;
    if (parts.added.any(false)) {
      whole = parts.added.Split(text, false);
    } else if (!text.empty()) {
      whole.push_back({-1, 0, text.size()});
    }
    std::vector<Piece> pieces = {{text, {}, 0, {}}};
    const auto add = [&](const Part& part) {
      if (pieces.back().bytes >= bytes) pieces.push_back({text, {}, 0, {}});
      pieces.back().parts.push_back(part);
      pieces.back().bytes += part.end - part.begin;
    };
    const bool cuts = !parts.added.any(true) && parts.normalizer.only_forms() &&
                      parts.pre_tokenizer.ends_at_lines();
    for (Part part : whole) {
      while (part.id < 0 && cuts && part.end - part.begin > bytes) {
        const size_t cut = NextCut(text.substr(part.begin, part.end - part.begin), bytes);
        if (cut == std::string_view::npos) break;
        add({-1, part.begin, part.begin + cut});
        part.begin += cut;
      }
      add(part);
    }
    return pieces;
  }

  void EncodePiece(Piece& piece, WordCache* words) const {
    piece.ids.reserve(piece.ids.size() + piece.bytes / 3 + 8);
    for (const Part& part : piece.parts) {
      if (part.id >= 0) {
        piece.ids.push_back(part.id);
      } else {
        EncodeBetween(piece.text.substr(part.begin, part.end - part.begin), part.begin == 0, words,
                      piece.ids);
      }
    }
  }

  void EncodePieces(std::span<Piece* const> pieces, int threads, size_t bytes) const {
    std::atomic<size_t> next = 0;
    std::vector<std::exception_ptr> errors(pieces.size());
    const auto work = [&] {
      WordCache words;
      words.Grow(bytes / static_cast<size_t>(threads));
      for (size_t i = next++; i < pieces.size(); i = next++) {
        try {
          EncodePiece(*pieces[i], words.enabled() ? &words : nullptr);
        } catch (...) {
          errors[i] = std::current_exception();
        }
      }
    };
    std::vector<std::jthread> others;
    for (int i = 1; i < threads; ++i) others.emplace_back(work);
    work();
    others.clear();
    for (const std::exception_ptr& error : errors) {
      if (error) std::rethrow_exception(error);
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
  return EncodeBatch({&text, 1}, add_special_tokens, 1)[0];
}

std::vector<std::vector<int64_t>> Tokenizer::EncodeBatch(std::span<const std::string_view> texts,
                                                         bool add_special_tokens, int threads,
                                                         size_t piece_bytes) const {
  const TokenizerParts& parts = impl_->parts;
  std::vector<std::string> replaced(texts.size());
  std::vector<std::vector<Piece>> pieces(texts.size());
  std::vector<Piece*> all;
  size_t bytes = 0;
  for (size_t i = 0; i < texts.size(); ++i) {
    std::string_view text = texts[i];
    if (!IsValidUtf8(text)) {
      replaced[i] = ReplaceInvalidUtf8(text);
      text = replaced[i];
    }
    pieces[i] = impl_->Pieces(text, threads > 1 ? piece_bytes : text.size());
    if (add_special_tokens) pieces[i][0].ids = parts.prefix;
    for (Piece& piece : pieces[i]) all.push_back(&piece);
    bytes += text.size();
  }
  if (threads > 1 && all.size() > 1) {
    impl_->EncodePieces(all, std::min(threads, static_cast<int>(all.size())), bytes);
  } else {
    // One thread at a time has the cache; another does without.
    const std::unique_lock<std::mutex> lock(impl_->cache_mutex, std::try_to_lock);
    if (lock.owns_lock()) impl_->cache.Grow(bytes);
    WordCache* const words = lock.owns_lock() && impl_->cache.enabled() ? &impl_->cache : nullptr;
    for (Piece* piece : all) impl_->EncodePiece(*piece, words);
  }
  std::vector<std::vector<int64_t>> result(texts.size());
  for (size_t i = 0; i < texts.size(); ++i) {
    std::vector<int64_t>& ids = result[i];
    ids = std::move(pieces[i][0].ids);
    size_t count = parts.suffix.size();
    for (const Piece& piece : pieces[i]) count += piece.ids.size();
    ids.reserve(ids.size() + count);
    for (size_t j = 1; j < pieces[i].size(); ++j) {
      std::vector<int64_t>& more = pieces[i][j].ids;
      ids.insert(ids.end(), more.begin(), more.end());
      more = {};
    }
    if (add_special_tokens) ids.insert(ids.end(), parts.suffix.begin(), parts.suffix.end());
  }
  return result;
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
