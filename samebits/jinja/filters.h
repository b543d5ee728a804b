// The filters of jinja2. Known and not done, each a named error when it is used: filesizeformat,
// pprint, random, urlize, wordwrap.
#pragma once

#include <string_view>

#include "samebits/jinja/arguments.h"
#include "samebits/jinja/runtime.h"
#include "samebits/jinja/value.h"

namespace samebits::jinja {

struct Filter {
  std::string_view name;
  Value (*apply)(Runtime& runtime, const Value& value, const Arguments& arguments);
};

// Null: there is none.
const Filter* FindFilter(std::string_view name);

}  // namespace samebits::jinja
