// Numbers as C prints them, which is how Python's formats e, f and g print them too.
#pragma once

#include <cstdint>
#include <string>

#include "samebits/jinja/runtime.h"

namespace samebits::jinja {

// `type` is one of e E f F g G.
std::string PrintFloat(Runtime& runtime, char type, int64_t precision, bool alternate,
                       double value);

}  // namespace samebits::jinja
