// A view of a dense row-major tensor that somebody else owns, and one that owns its memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "samebits/tensor/dtype.h"

namespace samebits {

using Shape = std::vector<int64_t>;

// Product of the sizes; 1 for a scalar. Sizes are known to be valid (no overflow).
int64_t NumElements(const Shape& shape);

// "[24, 896]"
std::string ShapeToString(const Shape& shape);

struct TensorView {
  DType dtype = DType::kF32;
  Shape shape;
  const std::byte* data = nullptr;

  int64_t elements() const { return NumElements(shape); }
  int64_t bytes() const { return elements() * DTypeSize(dtype); }
  template <typename T>
  const T* as() const {
    return reinterpret_cast<const T*>(data);
  }
};

// Owns zero-initialised memory, aligned to 64 bytes. Movable, not copyable.
class Tensor {
 public:
  Tensor() = default;
  Tensor(DType dtype, Shape shape);

  DType dtype() const { return view_.dtype; }
  const Shape& shape() const { return view_.shape; }
  int64_t elements() const { return view_.elements(); }
  const TensorView& view() const { return view_; }
  std::byte* data() { return memory_.get(); }
  const std::byte* data() const { return memory_.get(); }
  template <typename T>
  T* as() {
    return reinterpret_cast<T*>(memory_.get());
  }
  template <typename T>
  const T* as() const {
    return reinterpret_cast<const T*>(memory_.get());
  }

 private:
  struct Free {
    void operator()(std::byte* p) const;
  };
  std::unique_ptr<std::byte, Free> memory_;
  TensorView view_;
};

// Stores a value in a kF32, kBF16 or kF16 tensor, rounded once.
void StoreValue(Tensor& tensor, int64_t index, double value);

// Every value as fp64 (exact for all dtypes that a model runs in). Throws kUnsupported for others.
std::vector<double> ToDoubles(const TensorView& view);
// The same for `count` elements from `begin` on, for tensors that are too large to convert at once.
void ToDoubles(const TensorView& view, int64_t begin, int64_t count, double* values);

}  // namespace samebits
