// The tests of jinja2: what stands behind `is`.
#pragma once

#include <string_view>

#include "samebits/jinja/arguments.h"
#include "samebits/jinja/runtime.h"
#include "samebits/jinja/value.h"

namespace samebits::jinja {

struct TestEntry {
  std::string_view name;
  bool (*holds)(Runtime& runtime, const Value& value, const Arguments& arguments);
};

// Null: there is none.
const TestEntry* FindTest(std::string_view name);

}  // namespace samebits::jinja
