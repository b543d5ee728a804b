// Methods of str.
#pragma once

#include <string_view>

#include "samebits/jinja/arguments.h"
#include "samebits/jinja/methods.h"
#include "samebits/jinja/runtime.h"

namespace samebits::jinja {

MethodKind FindStringMethod(std::string_view name);

Value CallStringMethod(Runtime& runtime, const Value& self, std::string_view name,
                       const Arguments& arguments);

// Those that ask about the characters: isdigit and the like. False in `known` for other names.
bool CallPredicate(std::string_view text, std::string_view name, bool& known);

}  // namespace samebits::jinja
