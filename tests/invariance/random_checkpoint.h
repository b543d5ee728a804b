// Writes small checkpoints with random weights as Hugging Face folders, for tests that need no
// trained ones. The same specification gives the same files on any machine.
#pragma once

#include <cstdint>
#include <string>

#include "samebits/tensor/dtype.h"

namespace samebits {

// Sizes that divide by no vector length: tails everywhere.
struct CheckpointSpec {
  std::string model_type = "qwen2";
  DType stored = DType::kBF16;  // kF32, kBF16 or kF16
  bool tied = false;
  int64_t num_hidden_layers = 2;
  int64_t hidden_size = 72;
  int64_t num_attention_heads = 6;
  int64_t num_key_value_heads = 2;
  int64_t head_dim = 12;
  int64_t intermediate_size = 100;
  int64_t vocab_size = 131;
  int64_t max_position_embeddings = 1024;
  int64_t sliding_window = 0;     // qwen2, qwen3: of the layers behind the first
  const char* rope_scaling = "";  // JSON, as in config.json
  uint64_t seed = 1;
};

// config.json and model.safetensors; the folder must be there. Throws Error(kIo).
void WriteRandomCheckpoint(const CheckpointSpec& spec, const std::string& folder);

// A new folder for this process's tests; removed by the destructor.
class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace samebits
