#include "samebits/jinja/lexer.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <cstddef>
#include <cstdlib>
#include <utility>

#include "samebits/base/error.h"
#include "samebits/jinja/string_literal.h"
#include "samebits/jinja/unicode.h"

namespace samebits::jinja {
namespace {

bool IsAsciiDigit(char c) { return c >= '0' && c <= '9'; }
bool IsNameStart(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }

// Bytes of white space at the beginning.
size_t SpaceLength(std::string_view text) { return text.size() - StripLeft(text).size(); }

std::string UnifyNewlines(std::string_view source) {
  std::string text;
  text.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      text.push_back('\n');
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      text.push_back(source[i]);
    }
  }
  if (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

class Lexer {
 public:
  Lexer(std::string source, const std::string& place)
      : source_(std::move(source)), rest_(source_), place_(place) {}

  std::vector<TokenText> Run() {
    while (pos_ < rest_.size()) Root();
    Push(Token::kEnd, "");
    return std::move(tokens_);
  }

 private:
  template <typename... Args>
  [[noreturn]] void Fail(fmt::format_string<Args...> format, Args&&... args) const {
    throw Error(
        ErrorCode::kBadInput,
        fmt::format("{}:{}: {}", place_, line_, fmt::format(format, std::forward<Args>(args)...)));
  }

  void Push(Token type, std::string text) { tokens_.push_back({type, line_, std::move(text)}); }

  // Goes on to byte `to`, counting lines.
  void Advance(size_t to) {
    to = std::min(to, rest_.size());
    line_ += static_cast<int>(std::count(rest_.begin() + static_cast<std::ptrdiff_t>(pos_),
                                         rest_.begin() + static_cast<std::ptrdiff_t>(to), '\n'));
    if (to > pos_) line_starting_ = rest_[to - 1] == '\n';
    pos_ = to;
  }

  // Pushes the text in front of a tag and goes on to the tag's begin.
  void Data(size_t tag, char sign, bool is_variable) {
    std::string_view text = rest_.substr(pos_, tag - pos_);
    if (sign == '-') {
      text = StripRight(text);
    } else if (sign != '+' && !is_variable) {
      const size_t newline = text.rfind('\n');
      const size_t begin = newline == std::string_view::npos ? 0 : newline + 1;
      if ((begin > 0 || line_starting_) && begin < text.size() &&
          SpaceLength(text.substr(begin)) == text.size() - begin) {
        text = text.substr(0, begin);
      }
    }
    if (!text.empty()) Push(Token::kData, std::string(text));
    Advance(tag);
  }

  char SignAt(size_t at) const {
    return at < rest_.size() && (rest_[at] == '-' || rest_[at] == '+') ? rest_[at] : ' ';
  }

  // Length of the end of a tag at `at`: "-%}" and the space behind, "+%}", or "%}" and a newline
  // where such are trimmed. 0: none.
  size_t EndLength(size_t at, std::string_view mark, bool trims, bool may_plus) const {
    const std::string_view here = rest_.substr(std::min(at, rest_.size()));
    if (here.starts_with('-') && here.substr(1).starts_with(mark)) {
      return 1 + mark.size() + SpaceLength(here.substr(1 + mark.size()));
    }
    if (may_plus && here.starts_with('+') && here.substr(1).starts_with(mark)) {
      return 1 + mark.size();
    }
    if (!here.starts_with(mark)) return 0;
    return mark.size() + (trims && here.substr(mark.size()).starts_with('\n') ? 1 : 0);
  }

  // Length of "{%- raw %}" at `at`, 0: it is something else.
  size_t RawLength(size_t at, std::string_view word) const {
    size_t i = at + 2;
    if (SignAt(i) != ' ') ++i;
    i += SpaceLength(rest_.substr(i));
    if (!rest_.substr(i).starts_with(word)) return 0;
    i += word.size();
    i += SpaceLength(rest_.substr(i));
    const bool ends = word != "raw";
    const size_t end = EndLength(i, "%}", ends, ends);
    return end == 0 ? 0 : i + end - at;
  }

  void Root() {
    size_t tag = pos_;
    for (;; ++tag) {
      tag = rest_.find('{', tag);
      if (tag == std::string_view::npos || tag + 1 >= rest_.size()) {
        Push(Token::kData, std::string(rest_.substr(pos_)));
        Advance(rest_.size());
        return;
      }
      if (rest_[tag + 1] == '%' || rest_[tag + 1] == '{' || rest_[tag + 1] == '#') break;
    }
    const char kind = rest_[tag + 1];
    const char sign = SignAt(tag + 2);
    const size_t raw = kind == '%' ? RawLength(tag, "raw") : 0;
    Data(tag, sign, kind == '{');
    if (raw > 0) {
      Advance(tag + raw);
      Raw();
      return;
    }
    const size_t inside = tag + (sign == ' ' ? 2 : 3);
    if (kind == '#') {
      Advance(inside);
      Comment();
      return;
    }
    Push(kind == '%' ? Token::kBlockBegin : Token::kVariableBegin, "");
    Advance(inside);
    Tag(kind == '%');
  }

  void Comment() {
    const size_t mark = rest_.find("#}", pos_);
    if (mark == std::string_view::npos) Fail("a comment does not end");
    const bool has_sign = mark > pos_ && SignAt(mark - 1) != ' ';
    const size_t end = has_sign ? mark - 1 : mark;
    Advance(end + EndLength(end, "#}", true, true));
  }

  void Raw() {
    for (size_t tag = pos_;; ++tag) {
      tag = rest_.find("{%", tag);
      if (tag == std::string_view::npos) Fail("{{% raw %}} does not end");
      if (const size_t length = RawLength(tag, "endraw"); length > 0) {
        Data(tag, SignAt(tag + 2), false);
        Advance(tag + length);
        return;
      }
    }
  }

  // Inside {% %} or {{ }}.
  void Tag(bool is_block) {
    std::string open;  // brackets that must close before the tag can end
    while (pos_ < rest_.size()) {
      if (open.empty()) {
        const size_t end =
            is_block ? EndLength(pos_, "%}", true, true) : EndLength(pos_, "}}", false, false);
        if (end > 0) {
          Push(is_block ? Token::kBlockEnd : Token::kVariableEnd, "");
          Advance(pos_ + end);
          return;
        }
      }
      if (const size_t space = SpaceLength(rest_.substr(pos_)); space > 0) {
        Advance(pos_ + space);
      } else if (IsAsciiDigit(rest_[pos_])) {
        Number();
      } else if (IsNameStart(rest_[pos_])) {
        size_t end = pos_ + 1;
        while (end < rest_.size() && (IsNameStart(rest_[end]) || IsAsciiDigit(rest_[end]))) ++end;
        Push(Token::kName, std::string(rest_.substr(pos_, end - pos_)));
        Advance(end);
      } else if (rest_[pos_] == '\'' || rest_[pos_] == '"') {
        String();
      } else {
        Operator(open);
      }
    }
  }

  void Operator(std::string& open) {
    constexpr std::array<std::string_view, 6> kTwo{"//", "**", "==", "!=", ">=", "<="};
    const std::string_view here = rest_.substr(pos_);
    const bool two = std::any_of(kTwo.begin(), kTwo.end(),
                                 [&](std::string_view op) { return here.starts_with(op); });
    const char c = here[0];
    if (!two && std::string_view("+-/*%~[](){}><=.:|,;").find(c) == std::string_view::npos) {
      if (static_cast<unsigned char>(c) >= 0x80) {
        size_t end = 0;
        NextCharacter(here, end);
        throw Error(ErrorCode::kUnsupported,
                    fmt::format("{}:{}: not supported: '{}' outside a string (names are ASCII)",
                                place_, line_, here.substr(0, end)));
      }
      Fail("unexpected character '{}'", c);
    }
    if (c == '(' || c == '[' || c == '{') {
      open.push_back(c == '(' ? ')' : c == '[' ? ']' : '}');
    } else if (c == ')' || c == ']' || c == '}') {
      if (open.empty()) Fail("unexpected '{}'", c);
      if (open.back() != c) Fail("unexpected '{}', expected '{}'", c, open.back());
      open.pop_back();
    }
    Push(Token::kOperator, std::string(here.substr(0, two ? 2 : 1)));
    Advance(pos_ + (two ? 2 : 1));
  }

  void String() {
    const char quote = rest_[pos_];
    size_t end = pos_ + 1;
    while (end < rest_.size() && rest_[end] != quote) end += rest_[end] == '\\' ? 2 : 1;
    if (end >= rest_.size()) Fail("a string does not end");
    Push(Token::kString,
         Unescape(rest_.substr(pos_ + 1, end - pos_ - 1), fmt::format("{}:{}", place_, line_)));
    Advance(end + 1);
  }

  // End of digits from `at` on, each run of one '_' between two of them included.
  size_t DigitsEnd(size_t at, bool (*is_digit)(char)) const {
    size_t end = at;
    while (end < rest_.size()) {
      if (is_digit(rest_[end])) {
        ++end;
      } else if (end > at && rest_[end] == '_' && end + 1 < rest_.size() &&
                 is_digit(rest_[end + 1])) {
        end += 2;
      } else {
        break;
      }
    }
    return end;
  }

  void Number() {
    const bool behind_dot = pos_ > 0 && rest_[pos_ - 1] == '.';
    const size_t whole = DigitsEnd(pos_, IsAsciiDigit);
    size_t end = whole;
    if (end + 1 < rest_.size() && rest_[end] == '.' && IsAsciiDigit(rest_[end + 1])) {
      end = DigitsEnd(end + 1, IsAsciiDigit);
    }
    if (end < rest_.size() && (rest_[end] == 'e' || rest_[end] == 'E')) {
      const size_t digits = end + 1 + (SignAt(end + 1) != ' ' ? 1 : 0);
      if (digits < rest_.size() && IsAsciiDigit(rest_[digits])) {
        end = DigitsEnd(digits, IsAsciiDigit);
      }
    }
    if (end > whole && !behind_dot) {
      std::string text(rest_.substr(pos_, end - pos_));
      std::erase(text, '_');
      Push(Token::kFloat, text);
      tokens_.back().number = std::strtod(text.c_str(), nullptr);
      Advance(end);
      return;
    }
    Integer();
  }

  void Integer() {
    int base = 10;
    size_t begin = pos_, end = pos_;
    if (rest_[pos_] == '0') {
      const char mark = pos_ + 1 < rest_.size() ? static_cast<char>(rest_[pos_ + 1] | 0x20) : ' ';
      base = mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 10;
      const auto is_digit =
          base == 16  ? +[](char c) { return std::isxdigit(static_cast<unsigned char>(c)) != 0; }
          : base == 8 ? +[](char c) { return c >= '0' && c <= '7'; }
                      : +[](char c) { return c == '0' || c == '1'; };
      if (base != 10) {
        begin = pos_ + 2;
        if (begin < rest_.size() && rest_[begin] == '_') ++begin;
        end = DigitsEnd(begin, is_digit);
      }
      if (base == 10 || end == begin) {  // a zero; what follows it is another token
        base = 10;
        begin = pos_;
        end = DigitsEnd(pos_, [](char c) { return c == '0'; });
      }
    } else {
      end = DigitsEnd(pos_, IsAsciiDigit);
    }
    std::string text(rest_.substr(begin, end - begin));
    std::erase(text, '_');
    int64_t value = 0;
    const auto result = std::from_chars(text.data(), text.data() + text.size(), value, base);
    if (result.ec != std::errc()) {
      throw Error(ErrorCode::kUnsupported,
                  fmt::format("{}:{}: not supported: integers beyond 64 bits", place_, line_));
    }
    Push(Token::kInteger, text);
    tokens_.back().integer = value;
    Advance(end);
  }

  const std::string source_;
  const std::string_view rest_;
  const std::string& place_;
  size_t pos_ = 0;
  int line_ = 1;
  bool line_starting_ = true;
  std::vector<TokenText> tokens_;
};

}  // namespace

std::vector<TokenText> Tokenize(std::string_view source, const std::string& place) {
  if (const size_t bad = FindInvalidUtf8(source); bad != std::string_view::npos) {
    Fail(ErrorCode::kBadInput, "{}: not valid UTF-8 at byte {}", place, bad);
  }
  return Lexer(UnifyNewlines(source), place).Run();
}

}  // namespace samebits::jinja
