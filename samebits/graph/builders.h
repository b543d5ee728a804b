// One builder for each architecture family.
#pragma once

#include "samebits/graph/graph.h"

namespace samebits {

Graph BuildQwen2(const ModelConfig& config);  // q, k and v with a bias
Graph BuildLlama(const ModelConfig& config);  // no biases

}  // namespace samebits
