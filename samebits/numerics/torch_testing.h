// Rows of numbers as tests/fixtures/make_torch_sampling.py makes them, its hash, and what it
// recorded from torch.
#pragma once

#include <fmt/format.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "samebits/base/json.h"

namespace samebits {

inline Json LoadTorchFixture(const std::string& name) {
  const std::string path = SAMEBITS_SOURCE_DIR "/tests/fixtures/torch_sampling/" + name;
  return ParseJson(ReadTextFile(path, 64 << 20), path);
}

// Sums of four numbers, around zero, exact in fp32: see KINDS of the script.
inline std::vector<float> MakeTorchLogits(const std::string& kind, uint64_t seed, int64_t count) {
  const int bits = kind == "fine" ? 16 : kind == "coarse" ? 5 : 2;
  const int exponent = kind == "fine" ? -14 : kind == "coarse" ? -3 : 0;
  std::vector<float> values(count);
  for (float& value : values) {
    seed += 0x9e3779b97f4a7c15U;  // splitmix64
    uint64_t z = seed;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
    z ^= z >> 31;
    int64_t total = 0;
    for (int part = 0; part < 4; ++part) {
      total += static_cast<int64_t>(((z >> (16 * part)) & 0xffff) >> (16 - bits));
    }
    value = std::ldexp(static_cast<float>(total - (int64_t{2} << bits)), exponent);
  }
  return values;
}

// FNV-1a over 32-bit words, in 16 hexadecimal digits.
template <typename T>
std::string HashOf(std::span<const T> values) {
  uint64_t hash = 0xcbf29ce484222325U;
  for (const T& value : values) {
    hash = (hash ^ std::bit_cast<uint32_t>(value)) * 0x100000001b3U;
  }
  return fmt::format("{:016x}", hash);
}

}  // namespace samebits
