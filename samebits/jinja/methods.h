// Methods of str, list, tuple, dict and the like. Those that change a value are blocked as in
// jinja2's immutable sandbox; those not done here are named errors.
#pragma once

#include <cstdint>
#include <string_view>

#include "samebits/jinja/arguments.h"
#include "samebits/jinja/runtime.h"
#include "samebits/jinja/value.h"

namespace samebits::jinja {

enum class MethodKind : uint8_t { kNone, kKnown, kUnsafe, kUnsupported };

// What `name` is as an attribute of the object; items of a dict are not looked at.
MethodKind FindMethod(const Value& object, std::string_view name);

Value CallMethod(Runtime& runtime, const BoundMethod& method, const Arguments& arguments);

// str.split and str.rsplit, str.splitlines, str.strip for filters that use them too.
std::vector<std::string_view> SplitLines(std::string_view text, bool keep_ends);
std::string_view StripCharacters(Runtime& runtime, std::string_view text, std::string_view chars,
                                 bool left, bool right);
std::string ReplaceText(Runtime& runtime, const std::string& text, const std::string& from,
                        const std::string& to, int64_t count);
Value Centered(Runtime& runtime, const Str& text, int64_t width, std::string_view fill);
Value JoinTexts(Runtime& runtime, std::string_view separator, const std::vector<Value>& items,
                bool converts);

}  // namespace samebits::jinja
