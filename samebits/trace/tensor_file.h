// What a file of tensors holds before it is a trace: names, tensors and metadata, in safetensors or
// in .npz. Tensors lie in a mapping or in memory of their own.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "samebits/checkpoint/safetensors.h"
#include "samebits/tensor/tensor.h"

namespace samebits {

struct NamedTensor {
  std::string name;
  TensorView view;
};

struct TensorFile {
  std::string path;
  std::map<std::string, std::string> metadata;
  std::vector<NamedTensor> tensors;                // sorted by name, names differ
  std::vector<std::shared_ptr<const void>> owned;  // keeps the data alive

  const TensorView* Find(std::string_view name) const;  // null when absent
  // Of each sequence, as the metadata's input_ids have it; nothing without them. Throws
  // Error(kBadInput) when they are no JSON; what kind they are is for whoever needs more.
  std::optional<int64_t> StatedTokens() const;
};

// The tensors of a file that stays open as long as they are used.
TensorFile FromSafetensors(const std::shared_ptr<const SafetensorsFile>& file);

// Up to `count` bytes from the beginning of a regular file; of anything else (a pipe would wait for
// somebody to write) none.
std::string FirstBytes(const std::string& path, size_t count);

// Safetensors, or .npz by its first bytes. Throws Error(kIo, kBadInput).
TensorFile OpenTensorFile(const std::string& path);

}  // namespace samebits
