// Llama (and SmolLM2): the pre-norm decoder; attention_bias gives q, k, v and o_proj a bias,
// mlp_bias the three of the MLP. Rope scaling is in the configuration's rope.
#include "samebits/graph/builders.h"
#include "samebits/graph/decoder.h"

namespace samebits {

Graph BuildLlama(const ModelConfig& config) {
  return BuildPreNormDecoder(config, {.qkv_bias = config.attention_bias,
                                      .o_bias = config.o_proj_bias,
                                      .mlp_bias = config.mlp_bias});
}

}  // namespace samebits
