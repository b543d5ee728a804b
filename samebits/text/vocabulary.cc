#include "samebits/text/vocabulary.h"

#include <algorithm>
#include <array>
#include <bit>
#include <random>

#include "samebits/base/error.h"
#include "samebits/text/hash_table.h"

namespace samebits {
namespace {

constexpr uint64_t kUpper = 0xffffffff00000000U;

}  // namespace

uint64_t HashSeed() {
  static const uint64_t seed = [] {
    std::random_device device;
    return static_cast<uint64_t>(device()) << 32 | device();
  }();
  return seed;
}

void Vocabulary::Reserve(size_t tokens, size_t bytes) {
  bytes_.reserve(bytes);
  entries_.reserve(tokens);
  slots_.assign(std::bit_ceil(tokens * 2 + 2), 0);
  seed_ = HashSeed();
}

bool Vocabulary::Add(std::string_view token, uint32_t id) {
  SAMEBITS_CHECK(2 * entries_.size() + 2 <= slots_.size(), "Reserve was for fewer tokens");
  const uint64_t hash = HashBytes(token, seed_);
  const size_t mask = slots_.size() - 1;
  size_t at = hash & mask;
  for (; slots_[at] != 0; at = (at + 1) & mask) {
    if (((slots_[at] ^ hash) & kUpper) == 0 &&
        Text(entries_[(slots_[at] & ~kUpper) - 1]) == token) {
      return false;
    }
  }
  entries_.push_back(
      {static_cast<uint32_t>(bytes_.size()), static_cast<uint32_t>(token.size()), id});
  bytes_ += token;
  slots_[at] = (hash & kUpper) | entries_.size();
  max_id_ = std::max<int64_t>(max_id_, id);
  return true;
}

int64_t Vocabulary::IndexIds() {
  by_id_.assign(static_cast<size_t>(max_id_ + 1), 0);
  for (size_t i = 0; i < entries_.size(); ++i) {
    uint32_t& entry = by_id_[entries_[i].id];
    if (entry != 0) return entries_[i].id;
    entry = static_cast<uint32_t>(i + 1);
  }
  return -1;
}

int64_t Vocabulary::Find(std::string_view token) const {
  if (slots_.empty()) return -1;
  const uint64_t hash = HashBytes(token, seed_);
  const size_t mask = slots_.size() - 1;
  for (size_t at = hash & mask; slots_[at] != 0; at = (at + 1) & mask) {
    if (((slots_[at] ^ hash) & kUpper) != 0) continue;
    const Entry& entry = entries_[(slots_[at] & ~kUpper) - 1];
    if (Text(entry) == token) return entry.id;
  }
  return -1;
}

int64_t Vocabulary::FindJoined(std::string_view a, std::string_view b) const {
  std::array<char, 256> buffer;
  if (a.size() + b.size() > buffer.size()) return Find(std::string(a) + std::string(b));
  std::copy(a.begin(), a.end(), buffer.begin());
  std::copy(b.begin(), b.end(), buffer.begin() + static_cast<std::ptrdiff_t>(a.size()));
  return Find({buffer.data(), a.size() + b.size()});
}

bool Vocabulary::Has(int64_t id) const {
  return id >= 0 && id < static_cast<int64_t>(by_id_.size()) &&
         by_id_[static_cast<size_t>(id)] != 0;
}

std::string_view Vocabulary::Token(int64_t id) const {
  return Has(id) ? Text(entries_[by_id_[static_cast<size_t>(id)] - 1]) : std::string_view();
}

}  // namespace samebits
