#include "samebits/trace/tensor_file.h"

#include <algorithm>
#include <array>
#include <cstdio>

#include "samebits/checkpoint/safetensors.h"
#include "samebits/trace/npz.h"

namespace samebits {

const TensorView* TensorFile::Find(std::string_view name) const {
  const auto found = std::lower_bound(
      tensors.begin(), tensors.end(), name,
      [](const NamedTensor& tensor, std::string_view wanted) { return tensor.name < wanted; });
  return found == tensors.end() || found->name != name ? nullptr : &found->view;
}

TensorFile FromSafetensors(const std::shared_ptr<const SafetensorsFile>& file) {
  TensorFile result;
  result.path = file->path();
  result.metadata = file->metadata();
  for (const TensorEntry& entry : file->tensors()) {
    result.tensors.push_back({entry.name, entry.view});
  }
  result.owned.push_back(file);
  return result;
}

TensorFile OpenTensorFile(const std::string& path) {
  std::array<std::byte, 4> first{};
  size_t count = 0;
  if (std::FILE* file = std::fopen(path.c_str(), "rb"); file != nullptr) {
    count = std::fread(first.data(), 1, first.size(), file);
    std::fclose(file);
  }
  if (LooksLikeZip({first.data(), count})) return OpenNpz(path);
  return FromSafetensors(std::make_shared<const SafetensorsFile>(SafetensorsFile::Open(path)));
}

}  // namespace samebits
