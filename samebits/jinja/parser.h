// From a template's text to its syntax tree: the grammar of jinja2 with the extensions that
// transformers turns on (break, continue, generation). include, import, extends, block and
// autoescape are named errors.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "samebits/jinja/ast.h"
#include "samebits/jinja/runtime.h"

namespace samebits::jinja {

std::unique_ptr<Tree> ParseTemplate(std::string_view source, const std::string& place,
                                    const Limits& limits);

}  // namespace samebits::jinja
