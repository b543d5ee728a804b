#include "samebits/engine/kv_cache.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>

#include "samebits/base/error.h"

namespace samebits {

void KvCache::Unmap::operator()(std::byte* pages) const { munmap(pages, size); }

KvCache::KvCache(const KvCache& other, int64_t capacity)
    : kv_heads_(other.kv_heads_),
      row_bytes_(other.row_bytes_),
      head_dim_(other.head_dim_),
      capacity_(capacity),
      length_(other.length_) {
  if (capacity_ == 0) return;
  keys_ = Copied(other.keys_, other.capacity_);
  values_ = Copied(other.values_, other.capacity_);
}

KvCache::Pages KvCache::Copied(const Pages& other, int64_t other_capacity) const {
  const auto size = static_cast<size_t>(kv_heads_ * capacity_ * row_bytes_);
  void* memory = mmap(nullptr, size, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) Fail(ErrorCode::kIo, "out of memory: {} bytes", size);
  Pages pages(static_cast<std::byte*>(memory), Unmap{size});
  for (int64_t head = 0; head < kv_heads_ && length_ > 0; ++head) {
    std::memcpy(pages.get() + head * capacity_ * row_bytes_,
                other.get() + head * other_capacity * row_bytes_,
                static_cast<size_t>(length_ * row_bytes_));
  }
  return pages;
}

void KvCache::Append(const void* k, const void* v, int64_t rows, ThreadPool& pool) {
  if (length_ + rows > capacity_) {
    constexpr int64_t kFirst = 4096, kGrowth = 8;  // room costs nothing, a copy a long moment
    *this = KvCache(*this, std::max({length_ + rows, kGrowth * capacity_, kFirst}));
  }
  const auto copy = [&](const void* source, const Pages& pages, int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      for (int64_t head = 0; head < kv_heads_; ++head) {
        std::memcpy(pages.get() + (head * capacity_ + length_ + t) * row_bytes_,
                    static_cast<const std::byte*>(source) + (t * kv_heads_ + head) * row_bytes_,
                    static_cast<size_t>(row_bytes_));
      }
    }
  };
  constexpr int64_t kPieceRows = 32;  // pages that the system gives take longest
  pool.ParallelFor((rows + kPieceRows - 1) / kPieceRows, [&](int64_t piece) {
    const int64_t begin = piece * kPieceRows, end = std::min(rows, begin + kPieceRows);
    copy(k, keys_, begin, end);
    copy(v, values_, begin, end);
  });
  length_ += rows;
}

}  // namespace samebits
