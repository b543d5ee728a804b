// For tests only: safetensors files as bytes, in order or with a header of one's own.
#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "samebits/base/json.h"
#include "samebits/tensor/tensor.h"

namespace samebits {

// The length, the header as it is given (padded with spaces to 8 bytes), the data.
inline std::string SafetensorsFromHeader(std::string header, const std::string& data,
                                         bool pad = true) {
  if (pad) header.resize((header.size() + 7) / 8 * 8, ' ');
  const auto length = static_cast<uint64_t>(header.size());
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &length, 8);
  return bytes + header + data;
}

struct TensorSpec {
  std::string name;
  DType dtype = DType::kF32;
  Shape shape;
  std::string data = {};  // zeros when empty
};

// A file in order. Tensors lie as they are given: wide elements first, or they are misaligned.
inline std::string SafetensorsBytes(const std::vector<TensorSpec>& tensors,
                                    const Json& metadata = nullptr) {
  Json header = Json::object();
  if (!metadata.is_null()) header["__metadata__"] = metadata;
  std::string data;
  for (const TensorSpec& tensor : tensors) {
    const auto bytes = static_cast<size_t>(NumElements(tensor.shape) * DTypeSize(tensor.dtype));
    header[tensor.name] = {{"dtype", DTypeName(tensor.dtype)},
                           {"shape", tensor.shape},
                           {"data_offsets", {data.size(), data.size() + bytes}}};
    std::string values = tensor.data;
    values.resize(bytes);
    data += values;
  }
  return SafetensorsFromHeader(header.dump(), data);
}

template <typename T>
std::string ValueBytes(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

// Bytes at an address that is a multiple of 8, as a mapped file has.
class AlignedBytes {
 public:
  explicit AlignedBytes(const std::string& bytes) : size_(bytes.size()) {
    words_.resize((bytes.size() + 7) / 8 + 1);
    std::memcpy(words_.data(), bytes.data(), bytes.size());
  }
  std::span<const std::byte> span() const {
    return {reinterpret_cast<const std::byte*>(words_.data()), size_};
  }

 private:
  std::vector<uint64_t> words_;
  size_t size_;
};

}  // namespace samebits
