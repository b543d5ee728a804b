// Element types as safetensors names them. Models run in kF32, kBF16 or kF16; the others can only
// be listed and compared.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace samebits {

enum class DType : uint8_t {
  kBool,
  kU8,
  kI8,
  kF8E4M3,
  kF8E5M2,
  kU16,
  kI16,
  kF16,
  kBF16,
  kU32,
  kI32,
  kF32,
  kU64,
  kI64,
  kF64,
};

// Bytes of one element.
int64_t DTypeSize(DType dtype);

// safetensors' spelling: "BF16".
std::string_view DTypeName(DType dtype);
std::optional<DType> DTypeFromName(std::string_view name);

// Hugging Face's spelling of a model's dtype: "bfloat16", "float16", "float32".
std::string_view ModelDTypeName(DType dtype);
std::optional<DType> ModelDTypeFromName(std::string_view name);

}  // namespace samebits
