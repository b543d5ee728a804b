// The order in which torch.sort(stable=False) leaves equal values on the CPU. PyTorch calls the
// std::sort of libstdc++ on pairs of value and index there, so the order is that of its introsort:
// written out here, so that it does not depend on the library that samebits is built with.
// Measured: torch 2.13.0, docs/numerics/sampling.md.
#pragma once

#include <cstdint>
#include <span>

namespace samebits {

struct IndexedValue {
  float value;
  int32_t index;
};

// Ascending by value. No value may be NaN.
void TorchSort(std::span<IndexedValue> pairs);

}  // namespace samebits
