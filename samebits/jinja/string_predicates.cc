// str.isdigit and the like.
#include <algorithm>
#include <array>

#include "samebits/jinja/string_methods.h"
#include "samebits/jinja/unicode.h"

namespace samebits::jinja {
namespace {

template <typename Predicate>
bool All(std::string_view text, Predicate predicate) {
  for (size_t i = 0; i < text.size();) {
    if (!predicate(NextCharacter(text, i))) return false;
  }
  return true;
}

// At least one cased character, and none of the other case.
bool OneCase(std::string_view text, bool (*wanted)(uint32_t), bool (*other)(uint32_t)) {
  bool any = false;
  for (size_t i = 0; i < text.size();) {
    const uint32_t c = NextCharacter(text, i);
    if (other(c) || IsTitle(c)) return false;
    any = any || wanted(c);
  }
  return any;
}

bool IsTitled(std::string_view text) {
  bool inside = false, any = false;
  for (size_t i = 0; i < text.size();) {
    const uint32_t c = NextCharacter(text, i);
    if (IsUpper(c) || IsTitle(c)) {
      if (inside) return false;
      inside = any = true;
    } else if (IsLower(c)) {
      if (!inside) return false;
      inside = any = true;
    } else {
      inside = false;
    }
  }
  return any;
}

struct Predicate {
  std::string_view name;
  bool (*holds)(uint32_t);
  bool of_empty;
};

constexpr std::array<Predicate, 8> kPredicates{{
    {"isalnum", IsAlphanumeric, false},
    {"isalpha", IsAlpha, false},
    {"isascii", [](uint32_t c) { return c < 0x80; }, true},
    {"isdecimal", IsDecimal, false},
    {"isdigit", IsDigit, false},
    {"isnumeric", IsNumeric, false},
    {"isprintable", IsPrintable, true},
    {"isspace", IsSpace, false},
}};

}  // namespace

bool CallPredicate(std::string_view text, std::string_view name, bool& known) {
  known = true;
  if (name == "islower") return OneCase(text, IsLower, IsUpper);
  if (name == "isupper") return OneCase(text, IsUpper, IsLower);
  if (name == "istitle") return IsTitled(text);
  const auto* found = std::find_if(kPredicates.begin(), kPredicates.end(),
                                   [&](const Predicate& entry) { return entry.name == name; });
  known = found != kPredicates.end();
  if (!known) return false;
  return text.empty() ? found->of_empty : All(text, found->holds);
}

}  // namespace samebits::jinja
