// Which names a scope assigns before they exist anywhere outside it. jinja2 decides at compile time
// where a name lives, so such a name hides a variable of the same name even before its assignment;
// this finds those cases the same way.
#pragma once

#include "samebits/jinja/ast.h"

namespace samebits::jinja {

// Fills the frames of the tree.
void FindScopes(Tree& tree);

}  // namespace samebits::jinja
