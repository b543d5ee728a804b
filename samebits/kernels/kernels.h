// The fast kernels of `canonical` arithmetic (numerics/canonical.h): one table of functions for
// each instruction set, all with the same bits. `portable` is the interpreter itself.
#pragma once

#include <optional>
#include <string_view>

#include "samebits/numerics/ops.h"

namespace samebits {

enum class Isa { kPortable, kAvx2, kAvx512, kAvx512Bf16 };

std::string_view IsaName(Isa isa);  // "portable", "avx2", "avx512", "avx512bf16"
// "native" gives the best that this CPU supports; nullopt for unknown names.
std::optional<Isa> IsaFromName(std::string_view name);
bool IsaSupported(Isa isa);
Isa BestIsa();

// `linear` takes as many rows of x at a time, these at most, as stay in this CPU's second-level
// cache while the weights pass by. row_bytes: what is read of each.
inline constexpr int64_t kMostLinearRows = 128;
int64_t LinearRows(int64_t row_bytes);
int64_t LinearRowBytes(int64_t rows);  // of so many rows; longer ones are read in parts
// Steps, each a cache line of every row and output, that the first-level cache holds at once.
int64_t LinearSteps(int64_t rows, int64_t outs);
void AssumeFirstCache(int64_t bytes);  // for tests of what other CPUs do; 0: this CPU's again

// How `linear` is best cut into pieces: at multiples of so many outputs, so many of them and so
// many rows. (Of one row: as many outputs as take long enough, parallel_linear.cc.)
struct LinearCut {
  int64_t unit_outs, fewest_outs, most_rows;
};

// Signatures as in canonical.h: half-open ranges of outputs.
struct Kernels {
  Isa isa;
  void (*linear)(const LinearArgs&, int64_t row_begin, int64_t row_end, int64_t out_begin,
                 int64_t out_end);
  void (*rms_norm)(const RmsNormArgs&, int64_t row_begin, int64_t row_end);
  void (*rotary)(const RotaryArgs&, int64_t row_begin, int64_t row_end);
  void (*rope)(const RopeArgs&, int64_t row_begin, int64_t row_end);
  void (*attention)(const AttentionArgs&, int64_t head_begin, int64_t head_end, int64_t row_begin,
                    int64_t row_end);
  void (*add)(DType, const void* a, const void* b, void* y, int64_t n);
  void (*multiply)(DType, const void* a, const void* b, void* y, int64_t n);
  void (*silu)(DType, const void* x, void* y, int64_t n);
  LinearCut (*linear_cut)(const LinearArgs&);
};

// Throws Error(kUnsupported) when this CPU lacks the instruction set, naming what is missing.
const Kernels& SelectKernels(Isa isa);

}  // namespace samebits
