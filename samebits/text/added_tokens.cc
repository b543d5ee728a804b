#include "samebits/text/added_tokens.h"

#include <algorithm>
#include <utility>

#include "samebits/base/error.h"
#include "samebits/text/unicode.h"
#include "samebits/text/utf8.h"

namespace samebits {
namespace {

constexpr size_t kMaxContent = 1024;

bool IsSpaceAt(std::string_view text, size_t at) { return IsSpace(ClassAt(text, at) & kKindMask); }

}  // namespace

AddedTokens::AddedTokens(const Json& list, const Vocabulary& vocabulary,
                         const Normalizer& normalizer, const std::string& place) {
  if (!list.is_array()) {
    Fail(ErrorCode::kBadInput, "{}: expected a list, found {}", place, Excerpt(list));
  }
  tokens_.reserve(list.size());
  for (const Json& item : list) Read(item, vocabulary, place);
  std::vector<std::pair<std::string, uint32_t>> entries[2];
  for (size_t i = 0; i < tokens_.size(); ++i) {
    std::string storage;
    std::string_view content = tokens_[i].content;
    if (tokens_[i].normalized) content = normalizer.Run(content, storage);
    if (content.empty()) {
      Fail(ErrorCode::kUnsupported, "{}: '{}' is empty when normalized", place, tokens_[i].content);
    }
    tokens_[i].shown = content;
    entries[tokens_[i].normalized ? 1 : 0].emplace_back(content, static_cast<uint32_t>(i));
  }
  for (int i = 0; i < 2; ++i) {
    if (!entries[i].empty()) Build(tries_[i], entries[i]);
  }
}

void AddedTokens::Read(const Json& item, const Vocabulary& vocabulary, const std::string& place) {
  if (!item.is_object()) {
    Fail(ErrorCode::kBadInput, "{}: expected objects, found {}", place, Excerpt(item));
  }
  AddedToken token;
  token.content = StringField(item, "content", place);
  if (token.content.empty()) Fail(ErrorCode::kBadInput, "{}: empty content", place);
  if (token.content.size() > kMaxContent) {
    Fail(ErrorCode::kUnsupported, "{}: a content of {} bytes; supported: up to {}", place,
         token.content.size(), kMaxContent);
  }
  if (!item.contains("id") || !item["id"].is_number_unsigned() ||
      item["id"].get<uint64_t>() >= uint64_t{1} << 31) {
    Fail(ErrorCode::kBadInput, "{}: {}: expected a token id, found {}", place,
         Excerpt(item["content"]), item.contains("id") ? Excerpt(item["id"]) : "none");
  }
  token.id = item["id"].get<int64_t>();
  const auto flag = [&](const char* key) {
    return HasField(item, key) && BoolField(item, key, place);
  };
  token.single_word = flag("single_word");
  token.lstrip = flag("lstrip");
  token.rstrip = flag("rstrip");
  token.normalized = flag("normalized");
  token.special = flag("special");

  int64_t id = vocabulary.Find(token.content);
  if (const AddedToken* same = Find(token.content)) {
    if (same->id == token.id && same->single_word == token.single_word &&
        same->lstrip == token.lstrip && same->rstrip == token.rstrip &&
        same->normalized == token.normalized && same->special == token.special) {
      return;
    }
    Fail(ErrorCode::kBadInput, "{}: {} is there twice", place, Excerpt(item["content"]));
  }
  const auto vocabulary_size = static_cast<int64_t>(vocabulary.count());
  if (id < 0) {
    id = vocabulary_size == 0 ? max_id() + 1 : std::max(vocabulary_size, max_id() + 1);
  }
  if (id != token.id) {
    Fail(ErrorCode::kBadInput,
         "{}: {} has the id {}, but gets {} (its id in vocab, or the next one behind all others) "
         "when the file is loaded",
         place, Excerpt(item["content"]), token.id, id);
  }
  by_content_[token.content] = tokens_.size();
  by_id_[token.id] = tokens_.size();
  tokens_.push_back(std::move(token));
}

void AddedTokens::Build(Trie& trie, const std::vector<std::pair<std::string, uint32_t>>& entries) {
  size_t bytes = 0;
  for (const auto& [content, index] : entries) bytes += content.size();
  trie.edges.Reset(bytes);
  trie.tokens.assign(1, 0);
  for (const auto& [content, index] : entries) {
    uint32_t node = 0;
    trie.starts[static_cast<uint8_t>(content[0])] = true;
    for (const char c : content) {
      const uint64_t key = uint64_t{node} << 8 | static_cast<uint8_t>(c);
      PairTable::Slot& slot = trie.edges.Insert(key);
      if (slot.first == 0) {
        slot.first = static_cast<uint32_t>(trie.tokens.size());
        trie.tokens.push_back(0);
      }
      node = slot.first;
    }
    if (trie.tokens[node] == 0) trie.tokens[node] = index + 1;
  }
}

const AddedToken* AddedTokens::Find(std::string_view content) const {
  const auto found = by_content_.find(content);
  return found == by_content_.end() ? nullptr : &tokens_[found->second];
}

const AddedToken* AddedTokens::Find(int64_t id) const {
  const auto found = by_id_.find(id);
  return found == by_id_.end() ? nullptr : &tokens_[found->second];
}

bool AddedTokens::IsSpecial(std::string_view content) const {
  const AddedToken* token = Find(content);
  return token != nullptr && token->special;
}

std::pair<size_t, uint32_t> AddedTokens::Longest(const Trie& trie, std::string_view text,
                                                 size_t at) {
  std::pair<size_t, uint32_t> longest{0, 0};
  uint32_t node = 0;
  for (size_t i = at; i < text.size(); ++i) {
    const uint64_t key = uint64_t{node} << 8 | static_cast<uint8_t>(text[i]);
    const PairTable::Slot* slot = trie.edges.Find(key);
    if (slot == nullptr) break;
    node = slot->first;
    if (trie.tokens[node] != 0) longest = {i + 1 - at, trie.tokens[node] - 1};
  }
  return longest;
}

std::vector<AddedTokens::Part> AddedTokens::Split(std::string_view text, bool normalized) const {
  const Trie& trie = tries_[normalized ? 1 : 0];
  std::vector<Part> parts;
  size_t covered = 0;
  for (size_t at = 0; at < text.size();) {
    if (!trie.starts[static_cast<uint8_t>(text[at])]) {
      ++at;
      continue;
    }
    const auto [length, index] = Longest(trie, text, at);
    if (length == 0) {
      ++at;
      continue;
    }
    size_t begin = at, end = at + length;
    at = end;  // also when it is discarded
    const AddedToken& token = tokens_[index];
    if (token.single_word) {
      const bool before = begin > 0 && (ClassAt(text, PreviousUtf8(text, begin)) & kWordFlag) != 0;
      const bool behind = end < text.size() && (ClassAt(text, end) & kWordFlag) != 0;
      if (before || behind) continue;
    }
    if (token.lstrip) {
      while (begin > 0 && IsSpaceAt(text, PreviousUtf8(text, begin)))
        begin = PreviousUtf8(text, begin);
      begin = std::max(begin, covered);
    }
    if (token.rstrip) {
      while (end < text.size() && IsSpaceAt(text, end)) end += Utf8Length(text[end]);
    }
    if (covered < begin) parts.push_back({-1, covered, begin});
    // Nothing is left of one that another one stripped with its blanks.
    if (begin < end) parts.push_back({token.id, begin, end});
    covered = end;
  }
  if (covered != text.size()) parts.push_back({-1, covered, text.size()});
  return parts;
}

}  // namespace samebits
