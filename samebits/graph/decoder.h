// The layer that the families share, node by node; the builders say what theirs has.
#pragma once

#include "samebits/graph/graph.h"

namespace samebits {

struct DecoderParts {
  bool qkv_bias = false;  // q_proj, k_proj and v_proj have one
  bool o_bias = false;    // o_proj
  bool mlp_bias = false;  // gate_proj, up_proj and down_proj
  bool qk_norm = false;   // q and k are normalised head by head before they are rotated
  bool windows = false;   // layers have the windows of the configuration
};

// The whole pre-norm decoder: embedding, layers, final norm, head.
Graph BuildPreNormDecoder(const ModelConfig& config, const DecoderParts& parts);

}  // namespace samebits
