#include "samebits/tensor/dtype.h"

#include <array>

#include "samebits/base/error.h"

namespace samebits {
namespace {

struct Entry {
  DType dtype;
  int64_t size;
  std::string_view name;
};

constexpr std::array kEntries = {
    Entry{DType::kBool, 1, "BOOL"},      Entry{DType::kU8, 1, "U8"},
    Entry{DType::kI8, 1, "I8"},          Entry{DType::kF8E4M3, 1, "F8_E4M3"},
    Entry{DType::kF8E5M2, 1, "F8_E5M2"}, Entry{DType::kU16, 2, "U16"},
    Entry{DType::kI16, 2, "I16"},        Entry{DType::kF16, 2, "F16"},
    Entry{DType::kBF16, 2, "BF16"},      Entry{DType::kU32, 4, "U32"},
    Entry{DType::kI32, 4, "I32"},        Entry{DType::kF32, 4, "F32"},
    Entry{DType::kU64, 8, "U64"},        Entry{DType::kI64, 8, "I64"},
    Entry{DType::kF64, 8, "F64"},
};

const Entry& Find(DType dtype) {
  for (const Entry& entry : kEntries) {
    if (entry.dtype == dtype) return entry;
  }
  CheckFailed(__FILE__, __LINE__, "dtype", "not a DType");
}

}  // namespace

int64_t DTypeSize(DType dtype) { return Find(dtype).size; }

std::string_view DTypeName(DType dtype) { return Find(dtype).name; }

std::optional<DType> DTypeFromName(std::string_view name) {
  for (const Entry& entry : kEntries) {
    if (entry.name == name) return entry.dtype;
  }
  return std::nullopt;
}

std::string_view ModelDTypeName(DType dtype) {
  switch (dtype) {
    case DType::kBF16:
      return "bfloat16";
    case DType::kF16:
      return "float16";
    case DType::kF32:
      return "float32";
    default:
      return DTypeName(dtype);
  }
}

std::optional<DType> ModelDTypeFromName(std::string_view name) {
  if (name == "bfloat16" || name == "bf16") return DType::kBF16;
  if (name == "float16" || name == "fp16" || name == "f16") return DType::kF16;
  if (name == "float32" || name == "fp32" || name == "f32") return DType::kF32;
  return std::nullopt;
}

}  // namespace samebits
