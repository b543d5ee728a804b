// Text for HTML and SVG.
#pragma once

#include <string>
#include <string_view>

namespace samebits {

// Text with & < > ' " replaced, as markupsafe does.
std::string EscapeHtml(std::string_view text);

}  // namespace samebits
