// Mistral: the pre-norm decoder without biases, with one sliding window for all layers.
#include "samebits/graph/builders.h"
#include "samebits/graph/decoder.h"

namespace samebits {

Graph BuildMistral(const ModelConfig& config) {
  return BuildPreNormDecoder(config, {.windows = true});
}

}  // namespace samebits
