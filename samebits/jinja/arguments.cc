#include "samebits/jinja/arguments.h"

#include <algorithm>

namespace samebits::jinja {

Parameters::Parameters(Runtime& runtime, std::string_view function, const Arguments& arguments,
                       std::initializer_list<std::string_view> names, size_t required)
    : runtime_(runtime), function_(function), values_(names.size(), nullptr) {
  if (arguments.positional.size() > names.size()) {
    runtime.Fail("{}() takes at most {} arguments, {} are given", function, names.size(),
                 arguments.positional.size());
  }
  for (size_t i = 0; i < arguments.positional.size(); ++i) values_[i] = &arguments.positional[i];
  for (const auto& [name, value] : arguments.keyword) {
    const auto* found = std::find(names.begin(), names.end(), name);
    if (found == names.end()) {
      runtime.Fail("{}() takes no argument '{}'", function, name);
    }
    const Value*& place = values_[static_cast<size_t>(found - names.begin())];
    if (place != nullptr) runtime.Fail("{}() is given '{}' twice", function, name);
    place = &value;
  }
  for (size_t i = 0; i < required; ++i) {
    if (values_[i] == nullptr) {
      runtime.Fail("{}() needs the argument '{}'", function, *(names.begin() + i));
    }
  }
}

bool Parameters::Truth(size_t index, bool otherwise) const {
  return Given(index) ? jinja::Truth(*values_[index]) : otherwise;
}

int64_t Parameters::Int(size_t index, int64_t otherwise) const {
  if (!Given(index)) return otherwise;
  const Value& value = *values_[index];
  if (!value.IsInteger()) {
    runtime_.Fail("{}(): expected an int, found {}", function_, TypeName(value));
  }
  return value.Integer();
}

const std::string& Parameters::String(size_t index) const {
  const Value& value = *values_[index];
  if (!value.IsString()) {
    runtime_.Fail("{}(): expected a str, found {}", function_, TypeName(value));
  }
  return value.AsString().bytes;
}

}  // namespace samebits::jinja
