// Qwen3: q and k are normalised head by head before they are rotated; attention_bias gives q, k, v
// and o_proj a bias; sliding windows as Qwen2.
#include "samebits/graph/builders.h"
#include "samebits/graph/decoder.h"

namespace samebits {

Graph BuildQwen3(const ModelConfig& config) {
  return BuildPreNormDecoder(config, {.qkv_bias = config.attention_bias,
                                      .o_bias = config.o_proj_bias,
                                      .qk_norm = true,
                                      .windows = true});
}

}  // namespace samebits
