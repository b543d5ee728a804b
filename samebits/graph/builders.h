// One builder for each architecture family.
#pragma once

#include "samebits/graph/graph.h"

namespace samebits {

Graph BuildLlama(const ModelConfig& config);    // biases as the configuration says, no windows
Graph BuildMistral(const ModelConfig& config);  // no biases, one window for all layers
Graph BuildQwen2(const ModelConfig& config);    // q, k and v with a bias, windows in some layers
Graph BuildQwen3(const ModelConfig& config);    // q and k normalised, windows in some layers

}  // namespace samebits
