// Qwen2 and Qwen2.5: the pre-norm decoder with biases on q, k and v, and sliding windows in the
// layers that the configuration names.
#include "samebits/graph/builders.h"
#include "samebits/graph/decoder.h"

namespace samebits {

Graph BuildQwen2(const ModelConfig& config) {
  return BuildPreNormDecoder(config, {.qkv_bias = true, .windows = true});
}

}  // namespace samebits
