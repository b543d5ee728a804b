// Jinja templates, rendered as Python's jinja2 does when transformers sets it up for chat
// templates: an immutable sandbox, trim_blocks and lstrip_blocks, the extensions loopcontrols and
// generation, the lenient Undefined, its tojson, raise_exception and strftime_now. A template sees
// the variables it is given and the clock, nothing of the host. What jinja2 raises is an Error with
// the template's line; what is not done here (include, import, block, integers beyond 64 bits, ...)
// is an Error that names it. docs/chat-templates.md has the list.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "samebits/base/json.h"
#include "samebits/jinja/runtime.h"

namespace samebits::jinja {

struct Tree;

class Template {
 public:
  // `place` starts every message. Throws Error.
  static Template Parse(std::string_view source, const std::string& place,
                        const Limits& limits = {});

  // `variables` is an object. Throws Error; kBadInput with the template's own words for
  // raise_exception.
  std::string Render(const OrderedJson& variables, const Environment& environment = {}) const;

 private:
  Template() = default;

  std::shared_ptr<const Tree> tree_;
  std::string place_;
  Limits limits_;
};

}  // namespace samebits::jinja
