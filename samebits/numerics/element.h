// Single values of a tensor in any of the model's dtypes, as fp32.
#pragma once

#include "samebits/tensor/convert.h"
#include "samebits/tensor/dtype.h"

namespace samebits {

inline float LoadElement(DType dtype, const void* data, int64_t i) {
  if (dtype == DType::kF32) return static_cast<const float*>(data)[i];
  const uint16_t bits = static_cast<const uint16_t*>(data)[i];
  return dtype == DType::kBF16 ? BF16ToFloat(bits) : F16ToFloat(bits);
}

// round: to dtype
inline void StoreElement(DType dtype, void* data, int64_t i, float value) {
  if (dtype == DType::kF32) {
    static_cast<float*>(data)[i] = value;
  } else {
    static_cast<uint16_t*>(data)[i] =
        dtype == DType::kBF16 ? FloatToBF16(value) : FloatToF16(value);
  }
}

// `value` as it would be loaded again.
inline float RoundElement(DType dtype, float value) {
  if (dtype == DType::kF32) return value;
  return dtype == DType::kBF16 ? BF16ToFloat(FloatToBF16(value)) : F16ToFloat(FloatToF16(value));
}

}  // namespace samebits
