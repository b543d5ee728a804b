#include "samebits/tensor/tensor.h"

#include <fmt/ranges.h>

#include <cstdlib>
#include <cstring>

#include "samebits/base/error.h"
#include "samebits/tensor/convert.h"

namespace samebits {

int64_t NumElements(const Shape& shape) {
  int64_t n = 1;
  for (int64_t size : shape) n *= size;
  return n;
}

std::string ShapeToString(const Shape& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

Tensor::Tensor(DType dtype, Shape shape) {
  view_.dtype = dtype;
  view_.shape = std::move(shape);
  const size_t bytes = (static_cast<size_t>(view_.bytes()) + 63) / 64 * 64;
  memory_.reset(static_cast<std::byte*>(std::aligned_alloc(64, bytes == 0 ? 64 : bytes)));
  if (memory_ == nullptr) Fail(ErrorCode::kIo, "out of memory: {} bytes", bytes);
  std::memset(memory_.get(), 0, bytes);
  view_.data = memory_.get();
}

void Tensor::Free::operator()(std::byte* p) const { std::free(p); }

void StoreValue(Tensor& tensor, int64_t index, double value) {
  switch (tensor.dtype()) {
    case DType::kBF16:
      tensor.as<uint16_t>()[index] = DoubleToBF16(value);
      break;
    case DType::kF16:
      tensor.as<uint16_t>()[index] = DoubleToF16(value);
      break;
    default:
      SAMEBITS_CHECK(tensor.dtype() == DType::kF32, "a dtype that models run in");
      tensor.as<float>()[index] = static_cast<float>(value);
  }
}

std::vector<double> ToDoubles(const TensorView& view) {
  std::vector<double> values(static_cast<size_t>(view.elements()));
  ToDoubles(view, 0, view.elements(), values.data());
  return values;
}

void ToDoubles(const TensorView& view, int64_t begin, int64_t count, double* values) {
  switch (view.dtype) {
    case DType::kBF16:
      for (int64_t i = 0; i < count; ++i) values[i] = BF16ToFloat(view.as<uint16_t>()[begin + i]);
      break;
    case DType::kF16:
      for (int64_t i = 0; i < count; ++i) values[i] = F16ToFloat(view.as<uint16_t>()[begin + i]);
      break;
    case DType::kF32:
      for (int64_t i = 0; i < count; ++i) values[i] = view.as<float>()[begin + i];
      break;
    case DType::kF64:
      for (int64_t i = 0; i < count; ++i) values[i] = view.as<double>()[begin + i];
      break;
    default:
      Fail(ErrorCode::kUnsupported, "values of dtype {} can not be read as numbers here",
           DTypeName(view.dtype));
  }
}

}  // namespace samebits
