#include "samebits/text/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <cstdint>

#include "samebits/base/error.h"
#include "samebits/text/unicode.h"

namespace samebits {
namespace {

constexpr size_t kMaxPattern = 8192;
constexpr uint32_t kMatchLimit = 10'000'000, kDepthLimit = 1'000'000, kHeapLimitKiB = 262144;

// Bits of CharKind for a property's name; 0: not one of ours.
uint32_t KindsOf(std::string_view property) {
  const auto bit = [](CharKind kind) { return 1U << static_cast<uint32_t>(kind); };
  const uint32_t letters = bit(CharKind::kUpper) | bit(CharKind::kLower) | bit(CharKind::kLetter);
  if (property == "L") return letters;
  if (property == "Ll") return bit(CharKind::kLower);
  if (property == "M") return bit(CharKind::kMark);
  if (property == "N") return bit(CharKind::kNumber);
  if (property == "s") return bit(CharKind::kSpace) | bit(CharKind::kNewline);
  return 0;
}

// A pattern as PCRE2 should see it.
class Translator {
 public:
  Translator(std::string_view pattern, const std::string& place)
      : rest_(pattern), whole_(pattern), place_(place) {}

  std::string Run() {
    if (whole_.size() > kMaxPattern) Refuse("more than 8192 bytes");
    if (rest_.starts_with("(?i)")) Copy(4);
    while (!rest_.empty()) {
      switch (rest_[0]) {
        case '\\':
          Escape();
          break;
        case '[':
          Class();
          break;
        case '(':
          Group();
          break;
        case '{':
          Repeat();
          break;
        default:
          Copy(1);
      }
    }
    return out_;
  }

 private:
  [[noreturn]] void Refuse(const std::string& what) const {
    Fail(ErrorCode::kUnsupported, "{}: the pattern '{}' has {}, which is not supported", place_,
         whole_.substr(0, 200), what);
  }

  void Copy(size_t n) {
    out_ += rest_.substr(0, n);
    rest_.remove_prefix(n);
  }

  void Group() {
    if (rest_.starts_with("(*")) Refuse("a verb (*");
    if (!rest_.starts_with("(?")) return Copy(1);
    for (const char* known : {"(?i:", "(?:", "(?=", "(?!", "(?>", "(?<=", "(?<!"}) {
      if (rest_.starts_with(known)) return Copy(std::string_view(known).size());
    }
    Refuse("a group '" + std::string(rest_.substr(0, 4)) + "'");
  }

  // {n}, {n,}, {n,m} and nothing else: to Oniguruma {,m} and a + behind mean other things.
  void Repeat() {
    size_t i = 1;
    const auto digits = [&] {
      const size_t from = i;
      while (i < rest_.size() && rest_[i] >= '0' && rest_[i] <= '9') ++i;
      return i > from;
    };
    if (!digits()) Refuse("a '{' that is no number of repetitions");
    if (i < rest_.size() && rest_[i] == ',') {
      ++i;
      digits();
    }
    if (i >= rest_.size() || rest_[i] != '}') Refuse("a '{' that is no number of repetitions");
    Copy(i + 1);
    if (rest_.starts_with("+")) Refuse("a '+' behind a number of repetitions");
  }

  void Escape() {
    if (rest_.size() < 2) Refuse("a backslash at its end");
    const char c = rest_[1];
    if (c == 's' || c == 'S' || c == 'p' || c == 'P') {
      const auto [kinds, negated] = Property();
      if (kinds != 0) out_ += '[' + Ranges(kinds, negated) + ']';
      return;
    }
    if (!PlainEscape(c)) Refuse(std::string("the escape \\") + c);
    Copy(2);
  }

  // Not \w and \b: to Oniguruma marks and some numbers belong to words, to PCRE2 they do not.
  static bool PlainEscape(char c) {
    if (c == 'r' || c == 'n' || c == 't' || c == 'f' || c == 'd' || c == 'D') {
      return true;
    }
    return c > ' ' && c < 0x7f && !(c >= '0' && c <= '9') && !(c >= 'A' && c <= 'Z') &&
           !(c >= 'a' && c <= 'z');
  }

  // \s, \p{..} and their opposites. Kinds 0: copied as it stands.
  std::pair<uint32_t, bool> Property() {
    const char c = rest_[1];
    if (c == 's' || c == 'S') {
      rest_.remove_prefix(2);
      return {KindsOf("s"), c == 'S'};
    }
    bool negated = c == 'P';
    const size_t end = rest_.find('}');
    if (rest_.size() < 4 || rest_[2] != '{' || end == std::string_view::npos) {
      Refuse("a \\p that is no \\p{..}");
    }
    std::string_view name = rest_.substr(3, end - 3);
    if (name.starts_with('^')) {
      negated = !negated;
      name.remove_prefix(1);
    }
    const uint32_t kinds = KindsOf(name);
    if (kinds == 0) {
      for (const char letter : name) {
        const bool good = (letter >= 'a' && letter <= 'z') || (letter >= 'A' && letter <= 'Z') ||
                          (letter == '_') || (letter == ' ');
        if (!good) Refuse("a \\p{..} whose name is no word");
      }
      // A longer name is a script's: without sc: PCRE2 would add its Script_Extensions.
      const char* script = name.size() > 2 && name != "Any" ? "sc:" : "";
      out_ += fmt::format("\\{}{{{}{}}}", negated ? 'P' : 'p', script, name);
    }
    rest_.remove_prefix(end + 1);
    return {kinds, negated};
  }

  static std::string Ranges(uint32_t kinds, bool negated) {
    std::string out;
    for (const auto& [first, last] : RunsOfKinds(negated ? ~kinds & 0xff : kinds)) {
      out += first == last ? fmt::format("\\x{{{:x}}}", first)
                           : fmt::format("\\x{{{:x}}}-\\x{{{:x}}}", first, last);
    }
    return out;
  }

  void Class() {
    Copy(1);
    if (rest_.starts_with("^")) Copy(1);
    if (rest_.starts_with("]")) Refuse("a ']' at the start of a class");
    while (!rest_.starts_with("]")) {
      if (rest_.empty())
        Fail(ErrorCode::kBadInput, "{}: the pattern '{}': a '[' without ']'", place_,
             whole_.substr(0, 200));
      if (rest_[0] == '[') Refuse("a '[' inside a class");
      if (rest_.starts_with("&&")) Refuse("a '&&' inside a class");
      if (rest_[0] != '\\') {
        Copy(1);
        continue;
      }
      if (rest_.size() < 2) Refuse("a backslash at its end");
      const char c = rest_[1];
      if (c == 's' || c == 'S' || c == 'p' || c == 'P') {
        const auto [kinds, negated] = Property();
        if (kinds != 0) out_ += Ranges(kinds, negated);
      } else if (PlainEscape(c)) {
        Copy(2);
      } else {
        Refuse(std::string("the escape \\") + c + " inside a class");
      }
    }
    Copy(1);
  }

  std::string_view rest_, whole_;
  const std::string& place_;
  std::string out_;
};

std::string MessageOf(int code) {
  PCRE2_UCHAR8 buffer[256] = {};
  pcre2_get_error_message_8(code, buffer, sizeof(buffer));
  return reinterpret_cast<const char*>(buffer);
}

}  // namespace

struct Regex::Code {
  pcre2_code_8* code = nullptr;
  pcre2_match_context_8* limits = nullptr;
  std::string place;

  Code() = default;
  Code(const Code&) = delete;
  Code& operator=(const Code&) = delete;
  ~Code() {
    pcre2_match_context_free_8(limits);
    pcre2_code_free_8(code);
  }
};

Regex::Regex(std::string_view pattern, const std::string& place) {
  const std::string translated = Translator(pattern, place).Run();
  auto code = std::make_shared<Code>();
  code->place = place;
  int error = 0;
  PCRE2_SIZE offset = 0;
  // Ruby's syntax: ^ and $ are at every line end.
  const uint32_t options = PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C;
  code->code = pcre2_compile_8(reinterpret_cast<PCRE2_SPTR8>(translated.data()), translated.size(),
                               options, &error, &offset, nullptr);
  if (code->code == nullptr) {
    Fail(ErrorCode::kBadInput, "{}: the pattern '{}': {}", place, pattern.substr(0, 200),
         MessageOf(error));
  }
  code->limits = pcre2_match_context_create_8(nullptr);
  pcre2_set_match_limit_8(code->limits, kMatchLimit);
  pcre2_set_depth_limit_8(code->limits, kDepthLimit);
  pcre2_set_heap_limit_8(code->limits, kHeapLimitKiB);
  code_ = std::move(code);
}

bool Regex::Find(std::string_view text, size_t from, size_t& begin, size_t& end) const {
  const std::unique_ptr<pcre2_match_data_8, void (*)(pcre2_match_data_8*)> data(
      pcre2_match_data_create_8(1, nullptr), pcre2_match_data_free_8);
  const int result =
      pcre2_match_8(code_->code, reinterpret_cast<PCRE2_SPTR8>(text.data()), text.size(), from,
                    PCRE2_NO_UTF_CHECK, data.get(), code_->limits);
  if (result == PCRE2_ERROR_NOMATCH) return false;
  if (result < 0) {
    Fail(ErrorCode::kBadInput, "{}: the pattern can not be searched for: {}", code_->place,
         MessageOf(result));
  }
  const PCRE2_SIZE* match = pcre2_get_ovector_pointer_8(data.get());
  begin = match[0];
  end = match[1];
  return true;
}

}  // namespace samebits
