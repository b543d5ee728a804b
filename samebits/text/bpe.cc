#include "samebits/text/bpe.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <queue>

#include "samebits/base/error.h"
#include "samebits/text/byte_alphabet.h"
#include "samebits/text/utf8.h"

namespace samebits {
namespace {

constexpr size_t kMinCachedText = 2048;
constexpr size_t kMaxCacheSlots = 1 << 15;
// Up to here a search of all pairs for each merge is faster than a heap.
constexpr size_t kShort = 48;
constexpr uint32_t kNoRank = ~uint32_t{0};

uint64_t Pair(uint32_t left, uint32_t right) { return uint64_t{left} << 32 | right; }

}  // namespace

void WordCache::Grow(size_t text_bytes) {
  if (text_bytes < kMinCachedText) return;
  const size_t wanted = std::min(kMaxCacheSlots, std::bit_ceil(text_bytes / 8));
  if (wanted <= slots_.size()) return;
  slots_.assign(wanted, Slot());
  seed_ = HashSeed();
}

bool Bpe::AddMerge(std::string_view left, std::string_view right) {
  const int64_t a = vocabulary_.Find(left), b = vocabulary_.Find(right);
  const int64_t both = vocabulary_.FindJoined(left, right);
  if (a < 0 || b < 0 || both < 0) return false;
  // Of equal pairs the last counts, as in the library.
  PairTable::Slot& slot = merges_.Insert(Pair(static_cast<uint32_t>(a), static_cast<uint32_t>(b)));
  slot.first = rank_++;
  slot.second = static_cast<uint32_t>(both);
  return true;
}

void Bpe::Finish(BpeSettings settings) {
  settings_ = std::move(settings);
  const ByteAlphabet& alphabet = Gpt2Alphabet();
  for (size_t b = 0; b < 256; ++b) {
    const char c = static_cast<char>(b);
    byte_ids_[b] = settings_.byte_level ? vocabulary_.Find(alphabet.stand_in[b])
                   : b < 0x80           ? vocabulary_.Find({&c, 1})
                                        : -1;
    fallback_ids_[b] = vocabulary_.Find(fmt::format("<0x{:02X}>", b));
  }
}

void Bpe::EncodeWord(std::string_view word, WordCache* cache, std::vector<int64_t>& ids) const {
  if (cache == nullptr || word.size() > WordCache::kMaxKey) return EncodeAnew(word, ids);
  WordCache::Slot& slot = cache->Of(word);
  if (slot.key_size == word.size() && std::memcmp(slot.key, word.data(), word.size()) == 0) {
    for (size_t i = 0; i < slot.count; ++i) ids.push_back(slot.ids[i]);
    return;
  }
  const size_t before = ids.size();
  EncodeAnew(word, ids);
  const size_t count = ids.size() - before;
  if (count > WordCache::kMaxIds) return;
  slot.key_size = static_cast<uint8_t>(word.size());
  slot.count = static_cast<uint8_t>(count);
  std::memcpy(slot.key, word.data(), word.size());
  for (size_t i = 0; i < count; ++i) slot.ids[i] = static_cast<uint32_t>(ids[before + i]);
}

// A character (as it stands in the vocabulary) that is not there: its bytes, or the unknown token,
// or nothing. `unknown` is an unknown token that waits for more of its kind; -1: none.
template <typename Put>
void Bpe::UnknownPart(std::string_view token, int64_t& unknown, Put&& put) const {
  if (settings_.byte_fallback) {
    const auto id_of = [&](char c) { return fallback_ids_[static_cast<uint8_t>(c)]; };
    if (std::all_of(token.begin(), token.end(), [&](char c) { return id_of(c) >= 0; })) {
      // As in the library, these go before an unknown token that waits.
      for (const char c : token) put(static_cast<uint32_t>(id_of(c)));
      return;
    }
  }
  if (!settings_.has_unk) return;
  if (unknown >= 0 && settings_.fuse_unk) return;
  if (unknown >= 0) put(static_cast<uint32_t>(unknown));
  unknown = vocabulary_.Find(settings_.unk_token);
  if (unknown < 0) {
    Fail(ErrorCode::kBadInput, "tokenizer.json: model: the unk_token '{}' is not in vocab",
         settings_.unk_token);
  }
}

template <typename Put>
void Bpe::InitialParts(std::string_view word, Put&& put) const {
  int64_t unknown = -1;
  const auto known = [&](int64_t id) {
    if (unknown >= 0) put(static_cast<uint32_t>(unknown));
    unknown = -1;
    put(static_cast<uint32_t>(id));
  };
  for (size_t i = 0; i < word.size();) {
    const auto byte = static_cast<uint8_t>(word[i]);
    const size_t length = settings_.byte_level ? 1 : Utf8Length(word[i]);
    const std::string_view token = settings_.byte_level
                                       ? std::string_view(Gpt2Alphabet().stand_in[byte])
                                       : word.substr(i, length);
    const int64_t id = length == 1 ? byte_ids_[byte] : vocabulary_.Find(token);
    if (id >= 0) {
      known(id);
    } else {
      UnknownPart(token, unknown, put);
    }
    i += length;
  }
  if (unknown >= 0) put(static_cast<uint32_t>(unknown));
}

void Bpe::EncodeAnew(std::string_view word, std::vector<int64_t>& ids) const {
  if (settings_.ignore_merges) {
    std::string token;
    if (settings_.byte_level) {
      for (const char c : word) token += Gpt2Alphabet().stand_in[static_cast<uint8_t>(c)];
    }
    const int64_t id = vocabulary_.Find(settings_.byte_level ? std::string_view(token) : word);
    if (id >= 0) {
      ids.push_back(id);
      return;
    }
  }
  // A character gives at most as many parts as it has bytes, or one; a stand-in two.
  if (word.size() <= kShort / 2) {
    uint32_t parts[kShort + 2];
    size_t count = 0;
    InitialParts(word, [&](uint32_t id) { parts[count++] = id; });
    MergeShort(parts, count);
    for (size_t i = 0; i < count; ++i) ids.push_back(parts[i]);
    return;
  }
  std::vector<Part> parts;
  parts.reserve(word.size());
  InitialParts(word, [&](uint32_t id) {
    const auto at = static_cast<int32_t>(parts.size());
    parts.push_back({id, at - 1, at + 1});
  });
  if (parts.empty()) return;
  parts.back().next = -1;
  MergeLong(parts);
  for (int32_t i = 0; i >= 0; i = parts[static_cast<size_t>(i)].next) {
    ids.push_back(parts[static_cast<size_t>(i)].id);
  }
}

void Bpe::MergeShort(uint32_t* ids, size_t& count) const {
  uint32_t ranks[kShort + 2], merged[kShort + 2];
  const auto look = [&](size_t i) {
    const PairTable::Slot* slot = merges_.Find(Pair(ids[i], ids[i + 1]));
    ranks[i] = slot == nullptr ? kNoRank : slot->first;
    merged[i] = slot == nullptr ? 0 : slot->second;
  };
  for (size_t i = 0; i + 1 < count; ++i) look(i);
  while (count > 1) {
    const size_t pairs = count - 1;
    size_t best = 0;
    for (size_t i = 1; i < pairs; ++i) best = ranks[i] < ranks[best] ? i : best;
    if (ranks[best] == kNoRank) return;
    ids[best] = merged[best];
    for (size_t i = best + 1; i < pairs; ++i) {
      ids[i] = ids[i + 1];
      ranks[i - 1] = ranks[i];
      merged[i - 1] = merged[i];
    }
    --count;
    if (best > 0) look(best - 1);
    if (best + 1 < count) look(best);
  }
}

// Pairs wait in a heap, so a word of n bytes takes n log n steps.
void Bpe::MergeLong(std::vector<Part>& parts) const {
  struct Candidate {
    uint32_t rank;
    int32_t at;  // the left part
    uint32_t id;
    bool operator<(const Candidate& other) const {  // the heap's top is the largest
      return rank != other.rank ? rank > other.rank : at > other.at;
    }
  };
  constexpr uint32_t kGone = ~uint32_t{0};
  SAMEBITS_CHECK(parts.size() < (size_t{1} << 31), "a word of 2 GiB");
  const auto part = [&](int32_t i) -> Part& { return parts[static_cast<size_t>(i)]; };
  const auto find = [&](int32_t at) {
    return merges_.Find(Pair(part(at).id, part(part(at).next).id));
  };
  std::vector<Candidate> waiting;
  waiting.reserve(parts.size());
  for (int32_t i = 0; part(i).next >= 0; ++i) {
    if (const PairTable::Slot* slot = find(i)) waiting.push_back({slot->first, i, slot->second});
  }
  std::priority_queue<Candidate> queue(std::less<Candidate>(), std::move(waiting));
  const auto propose = [&](int32_t at) {
    if (at < 0 || part(at).next < 0) return;
    if (const PairTable::Slot* slot = find(at)) queue.push({slot->first, at, slot->second});
  };
  while (!queue.empty()) {
    const Candidate best = queue.top();
    queue.pop();
    if (part(best.at).id == kGone || part(best.at).next < 0) continue;
    // Another pair since then, unless it gives the same token: as the library decides.
    const PairTable::Slot* slot = find(best.at);
    if (slot == nullptr || slot->second != best.id) continue;
    Part& left = part(best.at);
    Part& right = part(left.next);
    left.id = best.id;
    left.next = right.next;
    if (right.next >= 0) part(right.next).previous = best.at;
    right.id = kGone;
    propose(left.previous);
    propose(best.at);
  }
}

}  // namespace samebits
