// Reading one safetensors file. Every rule of the format is enforced in Open, before a tensor can
// be looked at: header length, JSON (duplicate keys, nesting, types), dtypes, shapes with overflow
// checks, offsets without overlap or hole, data that ends with the file.
// Left out: writing (trace/), knowing which tensors a model needs (checkpoint.h).
#pragma once

#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "samebits/checkpoint/mapped_file.h"
#include "samebits/tensor/tensor.h"

namespace samebits {

struct TensorEntry {
  std::string name;
  TensorView view;              // data lies in the mapping
  uint64_t begin = 0, end = 0;  // bytes after the header
};

class SafetensorsFile {
 public:
  // Throws Error(kIo) when the file can't be mapped, Error(kBadInput) when a rule is broken.
  static SafetensorsFile Open(const std::string& path);

  // The same rules on bytes in memory (fuzzing, tests); `bytes` must outlive the result.
  static SafetensorsFile Parse(std::span<const std::byte> bytes, const std::string& place);

  const std::string& path() const { return path_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const std::vector<TensorEntry>& tensors() const { return tensors_; }  // sorted by name
  const TensorEntry* Find(std::string_view name) const;                 // null when absent

 private:
  std::string path_;
  std::shared_ptr<const MappedFile> file_;
  std::map<std::string, std::string> metadata_;
  std::vector<TensorEntry> tensors_;
};

}  // namespace samebits
