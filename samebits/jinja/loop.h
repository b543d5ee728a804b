// The variable `loop` of a for statement.
#pragma once

#include <cstdint>
#include <vector>

#include "samebits/jinja/value.h"

namespace samebits::jinja {

struct Node;
struct Scope;

struct Loop {
  std::vector<Value> items;
  int64_t index0 = -1;
  int64_t depth0 = 0;
  bool has_changed_value = false;
  std::vector<Value> changed_value;  // arguments of the last call of changed()
  const Node* recursive = nullptr;   // the for statement, when it is marked so
  Scope* scope = nullptr;            // in which a recursive call runs
};

}  // namespace samebits::jinja
