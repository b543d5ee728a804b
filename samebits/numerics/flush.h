// Sets the CPU to flush denormals (inputs and results) for a scope: part of the order of bfloat16
// dot products, which is that of the VDPBF16PS instruction. The one place that touches the mode.
// Floating-point work inside the scope belongs into a function that is not inlined, since compilers
// do not see the mode.
#pragma once

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace samebits {

class FlushDenormals {
 public:
#if defined(__x86_64__)
  explicit FlushDenormals(bool flush) : saved_(_mm_getcsr()) {
    if (flush) _mm_setcsr(saved_ | 0x8040U);  // FTZ and DAZ
  }
  ~FlushDenormals() { _mm_setcsr(saved_); }

 private:
  unsigned saved_;
#else
#error "the flush mode of this CPU is not written yet"
#endif

 public:
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;
};

}  // namespace samebits
