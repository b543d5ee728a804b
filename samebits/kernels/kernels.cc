#include "samebits/kernels/kernels.h"

#include <cpuid.h>
#include <unistd.h>

#include <algorithm>

#include "samebits/base/error.h"
#include "samebits/kernels/tables.h"
#include "samebits/numerics/canonical.h"

namespace samebits {
namespace {

const Kernels kPortableKernels = {Isa::kPortable,     &canonical::Linear,   &canonical::RmsNorm,
                                  &canonical::Rotary, &canonical::Rope,     &canonical::Attention,
                                  &canonical::Add,    &canonical::Multiply, &canonical::Silu};

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

constexpr Isa kIsas[] = {Isa::kAvx512Bf16, Isa::kAvx512, Isa::kAvx2, Isa::kPortable};

constexpr int64_t kFewestRows = 32;  // of a row block: fewer do not pay for reading all weights

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

int64_t LinearRowBytes() { return LinearBytes() / kFewestRows; }

int64_t LinearRows(int64_t row_bytes) {
  return std::clamp(LinearBytes() / row_bytes, kFewestRows, kMostLinearRows);
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
