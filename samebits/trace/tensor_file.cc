#include "samebits/trace/tensor_file.h"

#include <sys/stat.h>

#include <algorithm>
#include <cstdio>
#include <span>

#include "samebits/base/json.h"
#include "samebits/checkpoint/safetensors.h"
#include "samebits/trace/npz.h"

namespace samebits {

const TensorView* TensorFile::Find(std::string_view name) const {
  const auto found = std::lower_bound(
      tensors.begin(), tensors.end(), name,
      [](const NamedTensor& tensor, std::string_view wanted) { return tensor.name < wanted; });
  return found == tensors.end() || found->name != name ? nullptr : &found->view;
}

std::optional<int64_t> TensorFile::StatedTokens() const {
  const auto ids = metadata.find("input_ids");
  if (ids == metadata.end()) return std::nullopt;
  const Json list = ParseJson(ids->second, path + ": 'input_ids'");
  if (!list.is_array() || list.empty()) return 0;
  return static_cast<int64_t>(list[0].is_array() ? list[0].size() : list.size());
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

std::string FirstBytes(const std::string& path, size_t count) {
  struct stat info {};
  if (stat(path.c_str(), &info) != 0 || !S_ISREG(info.st_mode)) return "";
  std::string bytes(count, '\0');
  std::FILE* file = std::fopen(path.c_str(), "rb");
  if (file == nullptr) return "";
  bytes.resize(std::fread(bytes.data(), 1, count, file));
  std::fclose(file);
  return bytes;
}

TensorFile OpenTensorFile(const std::string& path) {
  const std::string first = FirstBytes(path, 4);
  if (LooksLikeZip(std::as_bytes(std::span(first)))) return OpenNpz(path);
  return FromSafetensors(std::make_shared<const SafetensorsFile>(SafetensorsFile::Open(path)));
}

}  // namespace samebits
