// What vector_kernels.h needs from outside, and the tables of the instruction sets, each defined in
// the source file that is built for it.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <type_traits>

#include "samebits/kernels/kernels.h"
#include "samebits/numerics/canonical.h"
#include "samebits/numerics/flush.h"
#include "samebits/numerics/math.h"

namespace samebits {

// Aligned to 64 bytes, for std::free. Not inline, nor is anything else here that makes a string: a
// library template instantiated in a source file that is built for AVX-512 could be linked into
// the rest of the program (tests/kernels/weak_symbols.sh).
std::byte* AllocateScratch(size_t bytes);

// Whether this CPU reads weights that pass by once faster where they are fetched into the first
// cache, around the second: an AMD Zen 5, whose own fetching into the second is in the way.
bool WeightsGoNear();

// Whether the first cache holds panels of weights that are cut for it, or rows of a tile beside
// panels that pass by; whether that is worth it.
bool FirstCacheHoldsPanels();

// Of packed_linear.h: whole tiles, and outputs enough to pay for preparing rows.
LinearCut PackedCut(const LinearArgs&);

extern const Kernels kAvx2Kernels;
extern const Kernels kAvx512Kernels;
extern const Kernels kAvx512Bf16Kernels;
// By floats, by pairs: the table's is the faster one on this CPU.
using LinearKernel = decltype(Kernels::linear);
extern const LinearKernel kAvx512Bf16Linear[2];

}  // namespace samebits
