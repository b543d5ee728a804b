#include "samebits/kernels/kernels.h"

#include <cpuid.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <limits>

#include "samebits/base/error.h"
#include "samebits/kernels/tables.h"
#include "samebits/numerics/canonical.h"

namespace samebits {
namespace {

const Kernels kPortableKernels = {Isa::kPortable,     &canonical::Linear,   &canonical::RmsNorm,
                                  &canonical::Rotary, &canonical::Rope,     &canonical::Attention,
                                  &canonical::Add,    &canonical::Multiply, &canonical::Silu,
                                  &PackedCut};

// Two that clang 14's __builtin_cpu_supports does not know; their registers are those of AVX2 and
// AVX-512.
bool CpuHasF16c() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & (1U << 29)) != 0;
}
bool CpuHasAvx512Bf16() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && (a & (1U << 5)) != 0;
}

bool CpuIsZen5OrLater() {
  unsigned most = 0, b = 0, c = 0, d = 0, version = 0;
  if (__get_cpuid(0, &most, &b, &c, &d) == 0 || b != signature_AMD_ebx) return false;
  if (__get_cpuid(1, &version, &b, &c, &d) == 0) return false;
  return (version >> 8 & 0xf) + (version >> 20 & 0xff) >= 0x1a;  // the family
}

constexpr Isa kIsas[] = {Isa::kAvx512Bf16, Isa::kAvx512, Isa::kAvx2, Isa::kPortable};

std::atomic<int64_t> assumed_first_cache{0};
int64_t FirstCache() {
  static const int64_t bytes = sysconf(_SC_LEVEL1_DCACHE_SIZE);  // 0 or less: not known
  const int64_t assumed = assumed_first_cache.load();
  return assumed > 0 ? assumed : bytes;
}

// Of a row block: fewer do not pay for reading all weights.
int64_t FewestRows() { return FirstCacheHoldsPanels() ? 64 : 32; }

// Of the rows that stay in the second-level cache.
int64_t LinearBytes() {
  static const int64_t bytes = [] {
    const int64_t cache = sysconf(_SC_LEVEL2_CACHE_SIZE);  // 0 or less: not known
    return std::max<int64_t>(cache, 512 << 10) / 8 * 5;    // weights and sums pass by, too
  }();
  return bytes;
}

}  // namespace

std::byte* AllocateScratch(size_t bytes) {
  auto* data = static_cast<std::byte*>(std::aligned_alloc(64, bytes));
  SAMEBITS_CHECK(data != nullptr, "out of memory");
  return data;
}

LinearCut PackedCut(const LinearArgs&) { return {24, 96, kMostLinearRows}; }

bool WeightsGoNear() {
  static const bool near = CpuIsZen5OrLater();
  return near;
}

// One of 48 KB holds panels of half a thousand words and goes with units that multiply faster than
// the second cache brings both operands (AMD Zen 5, Intel). One of 32 KB is not worth it: there
// whole panels reach 84 to 92 % of the peak (AMD Zen 4).
bool FirstCacheHoldsPanels() { return FirstCache() >= 48 << 10; }

int64_t LinearRowBytes(int64_t rows) { return LinearBytes() / std::min(rows, FewestRows()); }

int64_t LinearSteps(int64_t rows, int64_t outs) {
  constexpr int64_t kLine = 64;
  if (!FirstCacheHoldsPanels()) return std::numeric_limits<int32_t>::max();
  return (FirstCache() / kLine - 2 * rows * outs) / (rows + outs);  // sums come and go, too
}

void AssumeFirstCache(int64_t bytes) { assumed_first_cache.store(bytes); }

int64_t LinearRows(int64_t row_bytes) {
  return std::clamp(LinearBytes() / row_bytes, FewestRows(), kMostLinearRows);
}

std::string_view IsaName(Isa isa) {
  switch (isa) {
    case Isa::kPortable:
      return "portable";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvx512:
      return "avx512";
    case Isa::kAvx512Bf16:
      return "avx512bf16";
  }
  return "";
}

std::optional<Isa> IsaFromName(std::string_view name) {
  if (name == "native") return BestIsa();
  for (Isa isa : kIsas) {
    if (IsaName(isa) == name) return isa;
  }
  return std::nullopt;
}

bool IsaSupported(Isa isa) {
  // The compiler's run time asks the operating system, too, whether it saves the registers.
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && CpuHasF16c();
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl");
  switch (isa) {
    case Isa::kPortable:
      return true;
    case Isa::kAvx2:
      return avx2;
    case Isa::kAvx512:
      return avx512;
    case Isa::kAvx512Bf16:
      return avx512 && CpuHasAvx512Bf16();
  }
  return false;
}

Isa BestIsa() {
  for (Isa isa : kIsas) {
    if (IsaSupported(isa)) return isa;
  }
  return Isa::kPortable;
}

const Kernels& SelectKernels(Isa isa) {
  if (!IsaSupported(isa)) {
    Fail(ErrorCode::kUnsupported, "--cpu {}: this CPU does not have it; the best it has is {}",
         IsaName(isa), IsaName(BestIsa()));
  }
  switch (isa) {
    case Isa::kPortable:
      return kPortableKernels;
    case Isa::kAvx2:
      return kAvx2Kernels;
    case Isa::kAvx512:
      return kAvx512Kernels;
    case Isa::kAvx512Bf16:
      return kAvx512Bf16Kernels;
  }
  CheckFailed(__FILE__, __LINE__, "isa", "not an Isa");
}

}  // namespace samebits
