// An Attribution as JSON and as text.
#pragma once

#include <string>

#include "samebits/base/json.h"
#include "samebits/diagnose/attribute.h"

namespace samebits {

Json AttributionToJson(const Attribution& attribution);
std::string AttributionToText(const Attribution& attribution);

}  // namespace samebits
