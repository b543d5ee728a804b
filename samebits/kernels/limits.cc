#include "samebits/kernels/limits.h"

#include <immintrin.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <chrono>
#include <cstdint>

#include "samebits/base/error.h"

namespace samebits {
namespace {

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::atomic<uint64_t> sink;  // keeps results alive

// Memory is read fastest in several streams, each prefetched, that do not meet in the same sets of
// a cache: their distance is no multiple of a page.
constexpr size_t kStreams = 4, kAhead = 1024;
size_t PartOf(size_t bytes) {
  const size_t pages = bytes / kStreams / 4096;
  return pages == 0 ? 0 : pages * 4096 - 1152;
}

template <int locality>
__attribute__((target("avx512f"))) uint64_t Sum512(const std::byte* p, size_t bytes) {
  const size_t part = PartOf(bytes);
  __m512i s[2 * kStreams];
  for (auto& v : s) v = _mm512_setzero_si512();
  for (size_t i = 0; i < part; i += 128) {
    for (size_t j = 0; j < kStreams; ++j) {
      const std::byte* at = p + j * part + i;
      for (size_t line = 0; line < 2; ++line) {
        __builtin_prefetch(at + kAhead + 64 * line, 0, locality);
        s[2 * j + line] = _mm512_xor_si512(s[2 * j + line], _mm512_load_si512(at + 64 * line));
      }
    }
  }
  for (size_t j = 1; j < 2 * kStreams; ++j) s[0] = _mm512_xor_si512(s[0], s[j]);
  uint64_t words[8];
  _mm512_storeu_si512(words, s[0]);
  return words[0] ^ words[1] ^ words[2] ^ words[3] ^ words[4] ^ words[5] ^ words[6] ^ words[7];
}

template <int locality>
uint64_t SumPlain(const std::byte* p, size_t bytes) {
  const size_t part = PartOf(bytes);
  __m128i s[4];
  for (auto& v : s) v = _mm_setzero_si128();
  for (size_t i = 0; i < part; i += 64) {
    for (size_t j = 0; j < kStreams; ++j) {
      const std::byte* at = p + j * part + i;
      __builtin_prefetch(at + kAhead, 0, locality);
      for (size_t k = 0; k < 4; ++k) {
        s[k] = _mm_xor_si128(s[k], _mm_load_si128(reinterpret_cast<const __m128i*>(at) + k));
      }
    }
  }
  const __m128i all = _mm_xor_si128(_mm_xor_si128(s[0], s[1]), _mm_xor_si128(s[2], s[3]));
  return static_cast<uint64_t>(_mm_cvtsi128_si64(_mm_xor_si128(all, _mm_srli_si128(all, 8))));
}

constexpr int kChains = 12;      // at a latency of 4, two units
constexpr int kPairChains = 16;  // at one of 6 (AMD Zen 5), where 12 reach only 92 %
constexpr int64_t kSteps = 4 << 20;

__attribute__((target("avx512f"))) uint64_t Fma512() {
  __m512 acc[kChains];
  const __m512 a = _mm512_set1_ps(0.999F), b = _mm512_set1_ps(0.001F);
  for (auto& v : acc) v = b;
  for (int64_t i = 0; i < kSteps; ++i) {
    for (auto& v : acc) v = _mm512_fmadd_ps(v, a, b);
  }
  for (int j = 1; j < kChains; ++j) acc[0] = _mm512_add_ps(acc[0], acc[j]);
  return std::bit_cast<uint32_t>(_mm512_cvtss_f32(acc[0]));
}

__attribute__((target("avx512f,avx512bf16"))) uint64_t Bf16Pairs512() {
  __m512 acc[kPairChains];
  const auto pairs = (__m512bh)_mm512_set1_epi32(0x3c003c00);
  for (auto& v : acc) v = _mm512_setzero_ps();
  for (int64_t i = 0; i < kSteps; ++i) {
    for (auto& v : acc) v = _mm512_dpbf16_ps(v, pairs, pairs);
  }
  for (int j = 1; j < kPairChains; ++j) acc[0] = _mm512_add_ps(acc[0], acc[j]);
  return std::bit_cast<uint32_t>(_mm512_cvtss_f32(acc[0]));
}

__attribute__((target("avx2,fma"))) uint64_t Fma256() {
  __m256 acc[kChains];
  const __m256 a = _mm256_set1_ps(0.999F), b = _mm256_set1_ps(0.001F);
  for (auto& v : acc) v = b;
  for (int64_t i = 0; i < kSteps; ++i) {
    for (auto& v : acc) v = _mm256_fmadd_ps(v, a, b);
  }
  for (int j = 1; j < kChains; ++j) acc[0] = _mm256_add_ps(acc[0], acc[j]);
  return std::bit_cast<uint32_t>(_mm256_cvtss_f32(acc[0]));
}

}  // namespace

PagedBuffer::PagedBuffer(size_t bytes) : size_((bytes + 4095) / 4096 * 4096) {
  void* p = mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) Fail(ErrorCode::kIo, "{} bytes of memory: not available", size_);
  data_ = static_cast<std::byte*>(p);
  for (size_t i = 0; i < size_; i += 4096) data_[i] = std::byte{1};
}

PagedBuffer::~PagedBuffer() { munmap(data_, size_); }

double ReadBandwidth(const PagedBuffer& buffer, ThreadPool& pool) {
  const bool wide = IsaSupported(Isa::kAvx512);
  const int64_t pieces = pool.threads() * int64_t{8};
  const size_t piece_bytes = buffer.size() / static_cast<size_t>(pieces) / 4096 * 4096;
  const size_t read_bytes = kStreams * PartOf(piece_bytes);
  SAMEBITS_CHECK(read_bytes > 0, "a buffer of some pages a thread");
  const auto measure = [&](uint64_t (*sum)(const std::byte*, size_t)) {
    const double start = Now();
    pool.ParallelFor(pieces, [&](int64_t piece) {
      sink += sum(buffer.data() + static_cast<size_t>(piece) * piece_bytes, piece_bytes);
    });
    return static_cast<double>(read_bytes) * static_cast<double>(pieces) / (Now() - start);
  };
  // Fetched into the second cache, or into the first, around it: CPUs differ.
  return std::max(measure(wide ? Sum512<2> : SumPlain<2>), measure(wide ? Sum512<0> : SumPlain<0>));
}

double PeakFlops(Isa isa, bool bfloat16, ThreadPool& pool) {
  uint64_t (*run)() = nullptr;
  double lanes = 0;
  switch (isa) {
    case Isa::kPortable:
      return 0;
    case Isa::kAvx2:
      run = &Fma256;
      lanes = 8;
      break;
    case Isa::kAvx512:
    case Isa::kAvx512Bf16:
      run = &Fma512;
      lanes = 16;
      break;
  }
  const auto measure = [&pool](uint64_t (*run_chains)(), int chains, double flops) {
    const double start = Now();
    pool.ParallelFor(pool.threads(), [&](int64_t) { sink += run_chains(); });
    return flops * chains * static_cast<double>(kSteps) * pool.threads() / (Now() - start);
  };
  const double peak = measure(run, kChains, 2 * lanes);
  // Not on every CPU do pairs pay.
  if (bfloat16 && isa == Isa::kAvx512Bf16) {
    return std::max(peak, measure(&Bf16Pairs512, kPairChains, 4 * lanes));
  }
  return peak;
}

}  // namespace samebits
