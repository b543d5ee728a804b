// Where the runtime keeps what nodes make.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>

#include "samebits/base/error.h"

namespace samebits {

// Memory that several tensors use one after the other: as large as the largest so far.
class Slot {
 public:
  std::byte* Reserve(int64_t bytes) {
    if (bytes > size_) {
      // The rows of a prompt lie in large pages, where the system gives them: outputs are written
      // a few columns of many rows at a time.
      constexpr int64_t kPage = 4096, kLargePage = 2 << 20;
      const bool large = bytes >= kLargePage / 2;
      const int64_t unit = large ? kLargePage : kPage;
      size_ = (bytes + unit - 1) / unit * unit;
      const auto size = static_cast<size_t>(size_);
      memory_.reset(static_cast<std::byte*>(std::aligned_alloc(static_cast<size_t>(unit), size)));
      if (memory_ == nullptr) Fail(ErrorCode::kIo, "out of memory: {} bytes", size_);
      if (large) madvise(memory_.get(), size, MADV_HUGEPAGE);  // a wish
    }
    return memory_.get();
  }

 private:
  struct Free {
    void operator()(std::byte* p) const { std::free(p); }
  };
  std::unique_ptr<std::byte, Free> memory_;
  int64_t size_ = 0;
};

}  // namespace samebits
