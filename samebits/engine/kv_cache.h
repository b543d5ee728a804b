// Keys (after the rotary embedding) and values of one attention node, in the model's dtype, the
// rows of a head one after the other. Grows by doubling, so appending is cheap.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "samebits/tensor/dtype.h"

namespace samebits {

class KvCache {
 public:
  KvCache(DType dtype, int64_t kv_heads, int64_t head_dim)
      : kv_heads_(kv_heads), row_bytes_(head_dim * DTypeSize(dtype)), head_dim_(head_dim) {}

  // k, v: [rows, kv_heads, head_dim] in the dtype.
  void Append(const void* k, const void* v, int64_t rows);

  // Forgets the rows behind the first `length` ones.
  void Truncate(int64_t length) { length_ = std::min(length, length_); }

  const void* keys() const { return keys_.data(); }
  const void* values() const { return values_.data(); }
  int64_t head_stride() const { return capacity_ * head_dim_; }  // elements
  int64_t length() const { return length_; }

 private:
  void Grow(int64_t rows);

  int64_t kv_heads_, row_bytes_, head_dim_;
  int64_t capacity_ = 0, length_ = 0;  // rows
  std::vector<std::byte> keys_, values_;
};

}  // namespace samebits
