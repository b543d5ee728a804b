// Element types by name, shapes, owned memory, and values as fp64.
#include "samebits/tensor/tensor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "samebits/base/errors_testing.h"

namespace samebits {
namespace {

using testing::ElementsAre;

TEST(DType, NamesAndSizes) {
  const std::pair<const char*, int64_t> all[] = {
      {"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E4M3", 1}, {"F8_E5M2", 1},
      {"U16", 2},  {"I16", 2}, {"F16", 2}, {"BF16", 2},    {"U32", 4},
      {"I32", 4},  {"F32", 4}, {"U64", 8}, {"I64", 8},     {"F64", 8}};
  for (const auto& [name, size] : all) {
    const auto dtype = DTypeFromName(name);
    ASSERT_TRUE(dtype) << name;
    EXPECT_EQ(DTypeName(*dtype), name);
    EXPECT_EQ(DTypeSize(*dtype), size);
  }
  for (const char* name : {"", "f32", "F33", "F32 ", "BF", "float32"}) {
    EXPECT_FALSE(DTypeFromName(name)) << name;
  }
}

TEST(DType, ModelNames) {
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
    EXPECT_EQ(ModelDTypeFromName(ModelDTypeName(dtype)), dtype);
  }
  EXPECT_EQ(ModelDTypeName(DType::kBF16), "bfloat16");
  for (const char* name : {"", "float", "float64", "int8", "BF16", "torch.bfloat16"}) {
    EXPECT_FALSE(ModelDTypeFromName(name)) << name;
  }
}

TEST(Tensor, MemoryIsAlignedAndZero) {
  for (const Shape& shape : {Shape{}, Shape{0, 3}, Shape{1}, Shape{7, 33}}) {
    const Tensor tensor(DType::kF32, shape);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(tensor.data()) % 64, 0U);
    EXPECT_TRUE(std::all_of(tensor.as<float>(), tensor.as<float>() + tensor.elements(),
                            [](float v) { return v == 0; }));
  }
  EXPECT_EQ(NumElements({}), 1);
  EXPECT_EQ(NumElements({4, 0}), 0);
  EXPECT_EQ(ShapeToString({24, 896}), "[24, 896]");
  EXPECT_EQ(ShapeToString({}), "[]");
}

TEST(ToDoubles, EveryDTypeOfAModel) {
  const uint16_t bf16[] = {0x3f80, 0xc000, 0x0001}, f16[] = {0x3c00, 0xc000, 0x0001};
  const float f32[] = {1.0F, -2.0F, 0x1p-149F};
  const double f64[] = {1.0, -2.0, 0x1p-1074};
  const auto values = [](DType dtype, const void* data) {
    return ToDoubles({dtype, {3}, static_cast<const std::byte*>(data)});
  };
  EXPECT_THAT(values(DType::kBF16, bf16), ElementsAre(1.0, -2.0, 0x1p-133));
  EXPECT_THAT(values(DType::kF16, f16), ElementsAre(1.0, -2.0, 0x1p-24));
  EXPECT_THAT(values(DType::kF32, f32), ElementsAre(1.0, -2.0, 0x1p-149));
  EXPECT_THAT(values(DType::kF64, f64), ElementsAre(1.0, -2.0, 0x1p-1074));
  EXPECT_THAT(ErrorOf(ErrorCode::kUnsupported, [&] { values(DType::kI32, f32); }),
              testing::HasSubstr("I32"));
}

}  // namespace
}  // namespace samebits
