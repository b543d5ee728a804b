// The parts of config.json that have rules of their own: the rotary embedding and the sliding
// windows. Called by ParseModelConfig, behind the sizes.
#pragma once

#include <string>

#include "samebits/base/json.h"
#include "samebits/checkpoint/config.h"

namespace samebits {

// config.rope and config.context_length. `place` names the file in messages.
void ReadRope(const Json& json, const std::string& place, ModelConfig& config);

// config.layer_windows.
void ReadWindows(const Json& json, const std::string& place, ModelConfig& config);

}  // namespace samebits
