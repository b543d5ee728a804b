// A macro, or the body of a call block, with the scope that it was defined in.
#pragma once

#include <string>

namespace samebits::jinja {

struct Node;
struct Scope;

struct Macro {
  const Node* node = nullptr;
  Scope* scope = nullptr;
  std::string name;  // "caller" for the body of a call block
};

}  // namespace samebits::jinja
