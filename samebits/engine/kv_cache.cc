#include "samebits/engine/kv_cache.h"

#include <algorithm>
#include <cstring>

namespace samebits {

void KvCache::Grow(int64_t rows) {
  const int64_t capacity = std::max({rows, 2 * capacity_, int64_t{64}});
  for (std::vector<std::byte>* memory : {&keys_, &values_}) {
    std::vector<std::byte> larger(static_cast<size_t>(kv_heads_ * capacity * row_bytes_));
    for (int64_t head = 0; head < kv_heads_ && length_ > 0; ++head) {
      std::memcpy(larger.data() + head * capacity * row_bytes_,
                  memory->data() + head * capacity_ * row_bytes_,
                  static_cast<size_t>(length_ * row_bytes_));
    }
    memory->swap(larger);
  }
  capacity_ = capacity;
}

void KvCache::Append(const void* k, const void* v, int64_t rows) {
  if (length_ + rows > capacity_) Grow(length_ + rows);
  const auto copy = [&](const void* source, std::vector<std::byte>& memory) {
    for (int64_t t = 0; t < rows; ++t) {
      for (int64_t head = 0; head < kv_heads_; ++head) {
        std::memcpy(memory.data() + (head * capacity_ + length_ + t) * row_bytes_,
                    static_cast<const std::byte*>(source) + (t * kv_heads_ + head) * row_bytes_,
                    static_cast<size_t>(row_bytes_));
      }
    }
  };
  copy(k, keys_);
  copy(v, values_);
  length_ += rows;
}

}  // namespace samebits
