// A Hugging Face folder: config.json and model.safetensors, or the shards that
// model.safetensors.index.json names. Everything stays mapped; nothing is copied.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "samebits/checkpoint/config.h"
#include "samebits/checkpoint/safetensors.h"

namespace samebits {

// A tensor that the configuration asks for.
struct ExpectedTensor {
  std::string name;
  Shape shape;
};

// Names and shapes of every tensor of the architecture (tied lm_head left out).
std::vector<ExpectedTensor> ExpectedTensors(const ModelConfig& config);

// The weights of a folder, whatever the model: model.safetensors or its shards. Throws Error as
// Checkpoint::Open does for unreadable files, broken formats, and what the index says wrongly.
std::vector<SafetensorsFile> OpenWeightFiles(const std::string& folder);

class Checkpoint {
 public:
  // Throws Error: unreadable files, broken formats, shard names with '/' or "..", keys of the index
  // that no shard holds and the reverse, missing or surplus tensors, wrong shapes, dtypes that are
  // not F32, BF16 or F16. A surplus "lm_head.weight" of a tied model and rotary inv_freq buffers
  // are let pass.
  static Checkpoint Open(const std::string& folder);

  const std::string& folder() const { return folder_; }
  const ModelConfig& config() const { return config_; }
  // A weight by its checkpoint name; the name must be one of ExpectedTensors(config()).
  const TensorView& Get(std::string_view name) const;
  const TensorView* Find(std::string_view name) const;
  const std::vector<SafetensorsFile>& files() const { return files_; }

 private:
  std::string folder_;
  ModelConfig config_;
  std::vector<SafetensorsFile> files_;
};

}  // namespace samebits
