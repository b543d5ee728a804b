// The layer that Qwen2 and Llama share, node by node; the builders call it.
#pragma once

#include "samebits/graph/graph.h"

namespace samebits {

// The whole pre-norm decoder: embedding, layers, final norm, head. `qkv_bias`: q, k and v have one.
Graph BuildPreNormDecoder(const ModelConfig& config, bool qkv_bias);

}  // namespace samebits
