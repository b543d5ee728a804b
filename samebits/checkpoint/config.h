// config.json of a Hugging Face checkpoint: the keys that change the mathematics, checked.
// An unknown or unsupported setting that changes the result is an error that names it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "samebits/checkpoint/rope_parameters.h"
#include "samebits/tensor/dtype.h"

namespace samebits {

struct ModelConfig {
  std::string model_type;  // "qwen2", "qwen3", "llama" or "mistral"
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t num_hidden_layers = 0;
  int64_t num_attention_heads = 0;
  int64_t num_key_value_heads = 0;
  int64_t head_dim = 0;  // without the key: hidden_size / num_attention_heads; qwen3: 128
  int64_t max_position_embeddings = 0;
  int64_t context_length = 0;  // tokens that a text may have: with rope's scaling
  double rms_norm_eps = 1e-6;
  RopeParameters rope;
  // One a layer: a token sees itself and the window - 1 before it; 0 (or no entry): all before it.
  std::vector<int64_t> layer_windows;
  std::string hidden_act = "silu";
  bool tie_word_embeddings = false;
  bool attention_bias = false;  // q, k and v have a bias (always in qwen2)
  bool o_proj_bias = false;
  bool mlp_bias = false;      // gate_proj, up_proj and down_proj have one
  bool qk_norm = false;       // q and k are normalised head by head (qwen3)
  DType dtype = DType::kF32;  // torch_dtype or dtype
  std::vector<int64_t> eos_token_ids;
  int64_t bos_token_id = -1;

  // Why samebits can not run this checkpoint, one line each; empty when it can.
  std::vector<std::string> unsupported;

  int64_t window(int layer) const {
    const auto n = static_cast<size_t>(layer);
    return n < layer_windows.size() ? layer_windows[n] : 0;
  }
};

// `place` names the file in messages. Throws Error(kBadInput) for broken JSON, wrong types, sizes
// out of range or not dividing. What is legal but not supported goes into `unsupported`.
ModelConfig ParseModelConfig(std::string_view json, const std::string& place);
ModelConfig ReadModelConfig(const std::string& folder);  // folder/config.json

}  // namespace samebits
