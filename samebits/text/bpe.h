// The model of tokenizer.json, BPE: a word becomes characters (or bytes), and the pair with the
// lowest rank is merged, leftmost first, until none is left. With byte_fallback, fuse_unk and
// ignore_merges as in the library. Left out: dropout, prefixes and suffixes of subwords.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "samebits/text/hash_table.h"
#include "samebits/text/vocabulary.h"

namespace samebits {

// Ids of words that were seen lately: bounded, one place a word. Not for two threads at once.
class WordCache {
 public:
  // Sized for a text of so many bytes.
  void Grow(size_t text_bytes);
  bool enabled() const { return !slots_.empty(); }

  static constexpr size_t kMaxKey = 22;
  static constexpr size_t kMaxIds = 10;
  struct Slot {
    char key[kMaxKey];
    uint8_t key_size;  // 0: empty
    uint8_t count;
    uint32_t ids[kMaxIds];
  };
  static_assert(sizeof(Slot) == 64);
  Slot& Of(std::string_view word) { return slots_[HashBytes(word, seed_) & (slots_.size() - 1)]; }

 private:
  std::vector<Slot> slots_;
  uint64_t seed_ = 0;
};

struct BpeSettings {
  std::string unk_token;
  bool has_unk = false, fuse_unk = false, byte_fallback = false, ignore_merges = false;
  bool byte_level = false;  // words are bytes, the vocabulary their stand-ins
};

class Bpe {
 public:
  static constexpr const char* kMergeUnknown = "has or gives a token that vocab does not have";

  // The vocabulary first, then merges in the order of their ranks, then Finish.
  void SetVocabulary(Vocabulary vocabulary) { vocabulary_ = std::move(vocabulary); }
  void ReserveMerges(size_t merges) { merges_.Reset(merges); }
  bool AddMerge(std::string_view left, std::string_view right);  // false: kMergeUnknown
  void Finish(BpeSettings settings);

  const Vocabulary& vocabulary() const { return vocabulary_; }

  // Ids of a word that is not empty, put behind `ids`. Throws Error when the unknown token is not
  // in the vocabulary.
  void EncodeWord(std::string_view word, WordCache* cache, std::vector<int64_t>& ids) const;

 private:
  struct Part {
    uint32_t id;
    int32_t previous, next;  // -1: none
  };

  void EncodeAnew(std::string_view word, std::vector<int64_t>& ids) const;
  template <typename Put>
  void InitialParts(std::string_view word, Put&& put) const;
  template <typename Put>
  void UnknownPart(std::string_view token, int64_t& unknown, Put&& put) const;
  void MergeShort(uint32_t* ids, size_t& count) const;
  void MergeLong(std::vector<Part>& parts) const;

  Vocabulary vocabulary_;
  PairTable merges_;  // left id << 32 | right id -> rank, id
  uint32_t rank_ = 0;
  BpeSettings settings_;
  std::array<int64_t, 256> byte_ids_;      // of one byte (byte_level), or one ASCII character
  std::array<int64_t, 256> fallback_ids_;  // <0x00> to <0xFF>
};

}  // namespace samebits
