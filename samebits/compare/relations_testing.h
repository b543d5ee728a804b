// For tests only: tensors of random values in any dtype, and what is done to them.
#pragma once

#include <functional>
#include <random>
#include <utility>
#include <vector>

#include "samebits/tensor/convert.h"
#include "samebits/tensor/tensor.h"

namespace samebits {

// Normal values, as weights are.
inline Tensor RandomTensor(DType dtype, const Shape& shape, unsigned seed, double scale = 0.05) {
  Tensor tensor(dtype, shape);
  std::mt19937 random(seed);
  std::normal_distribution<double> normal(0, scale);
  for (int64_t i = 0; i < tensor.elements(); ++i) StoreValue(tensor, i, normal(random));
  return tensor;
}

// Element i becomes value(i, old values).
inline Tensor Made(const Tensor& from, DType dtype, Shape shape,
                   const std::function<double(int64_t, const std::vector<double>&)>& value) {
  const std::vector<double> values = ToDoubles(from.view());
  Tensor tensor(dtype, std::move(shape));
  for (int64_t i = 0; i < tensor.elements(); ++i) StoreValue(tensor, i, value(i, values));
  return tensor;
}

inline Tensor Mapped(const Tensor& from, DType dtype, const std::function<double(double)>& value) {
  return Made(from, dtype, from.shape(),
              [&](int64_t i, const std::vector<double>& x) { return value(x[i]); });
}

// Row i of the result is row order[i] of a matrix.
inline Tensor RowsTaken(const Tensor& from, const std::vector<int64_t>& order) {
  const int64_t columns = from.elements() / from.shape()[0];
  return Made(from, from.dtype(), from.shape(), [&](int64_t i, const std::vector<double>& x) {
    return x[order[i / columns] * columns + i % columns];
  });
}

inline Tensor ColumnsTaken(const Tensor& from, const std::vector<int64_t>& order) {
  const int64_t columns = from.shape()[1];
  return Made(from, from.dtype(), from.shape(), [&](int64_t i, const std::vector<double>& x) {
    return x[i / columns * columns + order[i % columns]];
  });
}

inline Tensor Transposed(const Tensor& from) {
  const int64_t rows = from.shape()[0], columns = from.shape()[1];
  return Made(from, from.dtype(), {columns, rows}, [&](int64_t i, const std::vector<double>& x) {
    return x[i % rows * columns + i / rows];
  });
}

// The last element with its lowest bit flipped: a near-miss of every relation.
inline Tensor OneOff(const Tensor& from) {
  Tensor tensor = Mapped(from, from.dtype(), [](double v) { return v; });
  const int64_t last = tensor.elements() - 1;
  if (DTypeSize(tensor.dtype()) == 2) {
    tensor.as<uint16_t>()[last] ^= 1;
  } else {
    tensor.as<uint32_t>()[last] ^= 1;
  }
  return tensor;
}

}  // namespace samebits
