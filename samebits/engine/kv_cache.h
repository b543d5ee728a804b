// Keys (after the rotary embedding) and values of one attention node, in the model's dtype, the
// rows of a head one after the other. What is set aside grows eightfold, so that rows are hardly
// ever copied; memory is taken in pages, as rows come.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "samebits/kernels/thread_pool.h"
#include "samebits/tensor/dtype.h"

namespace samebits {

class KvCache {
 public:
  KvCache(DType dtype, int64_t kv_heads, int64_t head_dim)
      : kv_heads_(kv_heads), row_bytes_(head_dim * DTypeSize(dtype)), head_dim_(head_dim) {}

  KvCache(const KvCache& other) : KvCache(other, other.capacity_) {}
  KvCache(KvCache&&) = default;
  KvCache& operator=(KvCache&&) = default;

  // k, v: [rows, kv_heads, head_dim] in the dtype.
  void Append(const void* k, const void* v, int64_t rows, ThreadPool& pool);

  // Forgets the rows behind the first `length` ones.
  void Truncate(int64_t length) { length_ = std::min(length, length_); }

  const void* keys() const { return keys_.get(); }
  const void* values() const { return values_.get(); }
  int64_t head_stride() const { return capacity_ * head_dim_; }  // elements
  int64_t length() const { return length_; }

 private:
  struct Unmap {
    size_t size;  // of a null pointer: 0
    void operator()(std::byte* pages) const;
  };
  // Pages that the system gives when they are first written.
  using Pages = std::unique_ptr<std::byte, Unmap>;

  // The rows of `other`, with room for `capacity` of them.
  KvCache(const KvCache& other, int64_t capacity);
  Pages Copied(const Pages& other, int64_t other_capacity) const;

  int64_t kv_heads_, row_bytes_, head_dim_;
  int64_t capacity_ = 0, length_ = 0;  // rows
  Pages keys_, values_;
};

}  // namespace samebits
