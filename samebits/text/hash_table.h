// Flat hash tables for loading a vocabulary fast: open addressing, sized once for a known number of
// entries. The hash is seeded at random for each process, so that no file can be made to collide;
// no result depends on it. Left out: removal, growth.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

namespace samebits {

uint64_t HashSeed();  // the same for the whole process

inline uint64_t MixHash(uint64_t a, uint64_t b) {
  const auto product = static_cast<unsigned __int128>(a) * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

inline uint64_t HashNumber(uint64_t value, uint64_t seed) {
  return MixHash(value ^ seed, 0x9e3779b97f4a7c15U);
}

inline uint64_t HashBytes(std::string_view bytes, uint64_t seed) {
  const auto load = [](const char* p, size_t n) {
    uint64_t value = 0;
    std::memcpy(&value, p, n);
    return value;
  };
  uint64_t hash = seed ^ bytes.size();
  const char* p = bytes.data();
  size_t left = bytes.size();
  for (; left >= 8; left -= 8, p += 8) hash = MixHash(hash ^ load(p, 8), 0xa0761d6478bd642fU);
  uint64_t tail = 0;
  if (left >= 4) {
    tail = load(p, 4) | load(p + left - 4, 4) << 32;
  } else if (left > 0) {
    const auto at = [p](size_t i) { return static_cast<uint64_t>(static_cast<uint8_t>(p[i])); };
    tail = at(0) | at(left / 2) << 8 | at(left - 1) << 16;
  }
  return MixHash(hash ^ tail, 0xe7037ed1a0b428dbU ^ seed);
}

// 64-bit keys (not all ones) to two 32-bit numbers.
class PairTable {
 public:
  struct Slot {
    uint64_t key = kEmpty;
    uint32_t first = 0, second = 0;
  };

  explicit PairTable(size_t entries = 0) { Reset(entries); }

  void Reset(size_t entries) {
    slots_.assign(std::bit_ceil(entries * 2 + 2), Slot());
    mask_ = slots_.size() - 1;
    seed_ = HashSeed();
  }

  // The slot of the key, which is made if it is not there. At most `entries` different keys.
  Slot& Insert(uint64_t key) {
    Slot& slot = slots_[Place(key)];
    slot.key = key;
    return slot;
  }

  const Slot* Find(uint64_t key) const {
    const Slot& slot = slots_[Place(key)];
    return slot.key == key ? &slot : nullptr;
  }

 private:
  static constexpr uint64_t kEmpty = ~uint64_t{0};

  size_t Place(uint64_t key) const {
    size_t at = HashNumber(key, seed_) & mask_;
    while (slots_[at].key != key && slots_[at].key != kEmpty) at = (at + 1) & mask_;
    return at;
  }

  std::vector<Slot> slots_;
  size_t mask_ = 0;
  uint64_t seed_ = 0;
};

}  // namespace samebits
