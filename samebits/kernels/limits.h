// What this machine can do at most: memory read bandwidth, fused multiply-adds. Speeds of kernels
// are read as shares of these, measured in the same run, since both move with the machine's load.
#pragma once

#include <cstddef>

#include "samebits/kernels/kernels.h"
#include "samebits/kernels/thread_pool.h"

namespace samebits {

// Memory that is touched once, so that pages exist; freed with the object.
class PagedBuffer {
 public:
  explicit PagedBuffer(size_t bytes);
  ~PagedBuffer();
  PagedBuffer(const PagedBuffer&) = delete;
  PagedBuffer& operator=(const PagedBuffer&) = delete;
  std::byte* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  std::byte* data_;
  size_t size_;
};

// Bytes a second of a pass of 64-byte loads over the buffer, by all threads of the pool: the faster
// one of two ways to fetch what comes next.
double ReadBandwidth(const PagedBuffer& buffer, ThreadPool& pool);

// Floating-point operations a second (two a fused multiply-add) on registers alone, by all threads:
// float32; for bfloat16 pairs, too, where the instruction set has them and they are faster. 0 for
// `portable`.
double PeakFlops(Isa isa, bool bfloat16, ThreadPool& pool);

}  // namespace samebits
