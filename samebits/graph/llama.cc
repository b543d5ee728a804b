// Llama (and SmolLM2): the pre-norm decoder without biases.
#include "samebits/graph/builders.h"
#include "samebits/graph/decoder.h"

namespace samebits {

Graph BuildLlama(const ModelConfig& config) { return BuildPreNormDecoder(config, false); }

}  // namespace samebits
