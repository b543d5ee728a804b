// Escapes in the string literals of a template, as Python's "unicode-escape" reads them.
#pragma once

#include <string>
#include <string_view>

namespace samebits::jinja {

// The text between the quotes with its escapes replaced. Throws Error, `place` first, for an escape
// that is cut short, that makes a surrogate (UTF-8 has none) or that names a character (\N).
std::string Unescape(std::string_view text, const std::string& place);

}  // namespace samebits::jinja
