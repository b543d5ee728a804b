// Arguments of a call, and how a function of ours reads them by name and place.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "samebits/jinja/runtime.h"
#include "samebits/jinja/value.h"

namespace samebits::jinja {

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> keyword;
};

class Parameters {
 public:
  // Names in order; the first `required` must be given. Throws as a call in Python would.
  Parameters(Runtime& runtime, std::string_view function, const Arguments& arguments,
             std::initializer_list<std::string_view> names, size_t required = 0);

  // Null: not given.
  const Value* Get(size_t index) const { return values_[index]; }
  const Value& operator[](size_t index) const { return *values_[index]; }
  bool Given(size_t index) const { return values_[index] != nullptr; }
  // Given and not None.
  bool Set(size_t index) const { return Given(index) && !values_[index]->IsNone(); }
  bool Truth(size_t index, bool otherwise) const;
  // An integer, as operator.index() takes it.
  int64_t Int(size_t index, int64_t otherwise) const;
  const std::string& String(size_t index) const;  // must be a str

 private:
  Runtime& runtime_;
  std::string_view function_;
  std::vector<const Value*> values_;
};

}  // namespace samebits::jinja
