// Bytes as a template, rendered with a small chat: an Error or a text, nothing else, and soon.
#include <cstddef>
#include <cstdint>
#include <ctime>
#include <string_view>

#include "samebits/base/error.h"
#include "samebits/jinja/template.h"

namespace samebits::jinja {
namespace {

OrderedJson Variables() {
  return ParseOrderedJson(R"({
    "messages": [
      {"role": "system", "content": "Be brief."},
      {"role": "user", "content": [{"type": "text", "text": "Gr\u00fc\u00dfe \ud83d\ude00 "}]},
      {"role": "assistant", "content": "a\nb", "tool_calls": [{"function": {"name": "f",
        "arguments": {"x": 1, "y": [2.5, null, true]}}}]}],
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {"a": {"b": "c"}}}}],
    "bos_token": "<s>", "eos_token": "</s>", "add_generation_prompt": true,
    "s": "Hello, World", "n": 7, "f": 2.5, "l": [3, 1, 2], "d": {"a": 1, "b": "x"}, "o": null
  })",
                          "variables");
}

// Small, so that every input is quick; each can still be reached.
Limits SmallLimits() {
  Limits limits;
  limits.template_bytes = 1 << 12;
  limits.nodes = 2000;
  limits.steps = 5000;
  limits.bytes = 1 << 18;
  limits.output_bytes = 1 << 16;
  limits.depth = 200;
  return limits;
}

}  // namespace
}  // namespace samebits::jinja

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const samebits::OrderedJson variables = samebits::jinja::Variables();
  static const samebits::jinja::Environment environment{[] { return std::tm{}; }};
  try {
    samebits::jinja::Template::Parse({reinterpret_cast<const char*>(data), size}, "template",
                                     samebits::jinja::SmallLimits())
        .Render(variables, environment);
  } catch (const samebits::Error&) {
    // A text that is no template, or a template that asks for too much.
  }
  return 0;
}
