// The `attribute` argument of filters: "a.b.0", looked up item by item.
#pragma once

#include <vector>

#include "samebits/jinja/runtime.h"
#include "samebits/jinja/value.h"

namespace samebits::jinja {

class AttributePath {
 public:
  // None: the item itself.
  AttributePath(Runtime& runtime, const Value& attribute);
  // `otherwise`, when it is not null, stands in for what is undefined.
  Value Of(Runtime& runtime, Value item, const Value* otherwise = nullptr) const;

 private:
  std::vector<Value> parts_;
};

// A str in lower case, anything else as it is.
Value IgnoreCase(Runtime& runtime, const Value& value);

}  // namespace samebits::jinja
