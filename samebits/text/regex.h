// Regular expressions of tokenizer.json that are none of the known ones, through PCRE2. Only syntax
// that means the same to PCRE2 and to Oniguruma (which `tokenizers` uses) is taken; the classes \s,
// \p{L}, \p{N}, \p{M} and the kinds of letters are spelled out from our own tables, and all other
// properties are those of PCRE2's Unicode version, which is older.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

namespace samebits {

class Regex {
 public:
  // Throws Error: kUnsupported for syntax not done here, kBadInput for a broken pattern.
  Regex(std::string_view pattern, const std::string& place);

  // First match in valid UTF-8 at or behind byte `from`. Throws Error(kBadInput) when it takes too
  // many steps.
  bool Find(std::string_view text, size_t from, size_t& begin, size_t& end) const;

 private:
  struct Code;
  std::shared_ptr<const Code> code_;
};

}  // namespace samebits
