#include <array>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <optional>
#include <string>

#include "samebits/jinja/attribute_path.h"
#include "samebits/jinja/filter_list.h"
#include "samebits/jinja/format_number.h"
#include "samebits/jinja/operators.h"
#include "samebits/jinja/unicode.h"

namespace samebits::jinja::filters {
namespace {

void RefuseOtherDigits(Runtime& runtime, std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    if (const uint32_t c = NextCharacter(text, i); c >= 0x80 && IsDecimal(c)) {
      runtime.Unsupported("digits beyond ASCII in a number");
    }
  }
}

// Removes single '_' between digits; nullopt when one stands elsewhere.
std::optional<std::string> WithoutUnderscores(std::string_view text, bool (*is_digit)(char)) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '_') {
      out.push_back(text[i]);
    } else if (i == 0 || i + 1 == text.size() || !is_digit(text[i - 1]) || !is_digit(text[i + 1])) {
      return std::nullopt;
    }
  }
  return out;
}

bool IsAlnum(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}
bool IsDigitCharacter(char c) { return c >= '0' && c <= '9'; }

// Python's int(text, base); nullopt for a ValueError.
std::optional<int64_t> ParseInt(Runtime& runtime, std::string_view text, int64_t base) {
  if (base != 0 && (base < 2 || base > 36)) return std::nullopt;
  text = StripRight(StripLeft(text));
  RefuseOtherDigits(runtime, text);
  bool negative = false;
  if (!text.empty() && (text[0] == '-' || text[0] == '+')) {
    negative = text[0] == '-';
    text.remove_prefix(1);
  }
  bool has_prefix = false;
  if (text.size() > 1 && text[0] == '0') {
    const char mark = static_cast<char>(text[1] | 0x20);
    const int64_t marked = mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 0;
    if (marked != 0 && (base == 0 || base == marked)) {
      base = marked;
      text.remove_prefix(2);
      has_prefix = true;
      if (!text.empty() && text[0] == '_') text.remove_prefix(1);
    }
  }
  const std::optional<std::string> digits = WithoutUnderscores(text, IsAlnum);
  if (!digits || digits->empty() || !IsAlnum((*digits)[0])) return std::nullopt;
  if (base == 0) {
    base = 10;
    const bool zeros = digits->find_first_not_of('0') == std::string::npos;
    if (!has_prefix && (*digits)[0] == '0' && !zeros) return std::nullopt;
  }
  const std::string signed_text = (negative ? "-" : "") + *digits;
  int64_t value = 0;
  const char* end = signed_text.data() + signed_text.size();
  const auto result = std::from_chars(signed_text.data(), end, value, static_cast<int>(base));
  if (result.ptr != end) return std::nullopt;
  if (result.ec == std::errc::result_out_of_range) {
    runtime.Unsupported("integers beyond 64 bits");
  }
  return result.ec == std::errc() ? std::optional(value) : std::nullopt;
}

// Python's float(text); nullopt for a ValueError.
std::optional<double> ParseFloat(Runtime& runtime, std::string_view text) {
  text = StripRight(StripLeft(text));
  RefuseOtherDigits(runtime, text);
  const std::optional<std::string> plain = WithoutUnderscores(text, IsDigitCharacter);
  if (!plain || plain->empty()) return std::nullopt;
  const std::string lower = ToLower(*plain);
  const size_t sign = lower[0] == '-' || lower[0] == '+' ? 1 : 0;
  const std::string_view body = std::string_view(lower).substr(sign);
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  if (body == "inf" || body == "infinity") return lower[0] == '-' ? -kInfinity : kInfinity;
  if (body == "nan") return std::numeric_limits<double>::quiet_NaN();
  if (body.empty() || body.find_first_not_of("0123456789.e+-") != std::string_view::npos) {
    return std::nullopt;  // strtod would take hexadecimal digits as well
  }
  char* end = nullptr;
  const double value = std::strtod(lower.c_str(), &end);
  return end == lower.c_str() + lower.size() ? std::optional(value) : std::nullopt;
}

// int() of a float; nullopt for NaN.
std::optional<int64_t> Truncated(Runtime& runtime, double value) {
  if (std::isnan(value)) return std::nullopt;
  if (std::isinf(value)) runtime.Fail("cannot convert float infinity to integer");
  const double whole = std::trunc(value);
  if (whole < -9.2233720368547758e18 || whole >= 9.2233720368547758e18) {
    runtime.Unsupported("integers beyond 64 bits");
  }
  return static_cast<int64_t>(whole);
}

int64_t RoundInteger(Runtime& runtime, int64_t value, int64_t digits) {
  if (digits >= 0) return value;
  if (digits < -18) return 0;  // half of 10**19 is beyond 64 bits
  int64_t unit = 1;
  for (int64_t i = digits; i < 0; ++i) unit *= 10;
  const int64_t rest = ((value % unit) + unit) % unit;
  int64_t low = 0, high = 0;
  if (__builtin_sub_overflow(value, rest, &low)) runtime.Unsupported("integers beyond 64 bits");
  const int64_t half = unit / 2;
  const bool up = rest > half || (rest == half && (low / unit) % 2 != 0);
  if (!up) return low;
  if (__builtin_add_overflow(low, unit, &high)) runtime.Unsupported("integers beyond 64 bits");
  return high;
}

}  // namespace

Value Abs(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Parameters none(runtime, "abs", arguments, {});
  if (value.Is(Type::kFloat)) return Value(std::fabs(value.AsFloat()));
  if (!value.IsInteger()) runtime.Fail("abs: bad operand of type {}", TypeName(value));
  return value.Integer() < 0 ? Negate(runtime, value) : Value(value.Integer());
}

Value Int(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Parameters given(runtime, "int", arguments, {"default", "base"});
  Value otherwise = given.Given(0) ? given[0] : Value(int64_t{0});
  std::optional<int64_t> result;
  if (value.IsUndefined()) runtime.UseOfUndefined(value);
  if (value.IsString()) {
    const std::string& text = value.AsString().bytes;
    if (!given.Given(1) || given[1].IsInteger()) {
      result = ParseInt(runtime, text, given.Int(1, 10));
    }
    if (!result) {
      if (const auto number = ParseFloat(runtime, text)) {
        if (std::isinf(*number)) return otherwise;
        result = Truncated(runtime, *number);
      }
    }
  } else if (value.IsInteger()) {
    result = value.Integer();
  } else if (value.Is(Type::kFloat)) {
    result = Truncated(runtime, value.AsFloat());
  }
  return result ? Value(*result) : otherwise;
}

Value Float(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Parameters given(runtime, "float", arguments, {"default"});
  if (value.IsUndefined()) runtime.UseOfUndefined(value);
  if (value.IsNumber()) return Value(value.Number());
  if (value.IsString()) {
    if (const auto number = ParseFloat(runtime, value.AsString().bytes)) return Value(*number);
  }
  return given.Given(0) ? given[0] : Value(0.0);
}

Value Round(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Parameters given(runtime, "round", arguments, {"precision", "method"});
  const std::string method = given.Given(1) ? Text(runtime, given[1]) : "common";
  if (method != "common" && method != "ceil" && method != "floor") {
    runtime.Fail("round: method must be common, ceil or floor");
  }
  if (!value.IsNumber()) {
    if (value.IsUndefined()) runtime.UseOfUndefined(value);
    runtime.Fail("round: expected a number, found {}", TypeName(value));
  }
  const bool whole = given.Given(0) && given[0].IsNone();
  if (whole && method != "common") runtime.Fail("round: the precision must be an int");
  const int64_t digits = whole ? 0 : given.Int(0, 0);
  if (method != "common") {
    const Value unit = Calculate(runtime, Op::kPow, Value(int64_t{10}), Value(digits));
    const Value scaled = Calculate(runtime, Op::kMul, value, unit);
    double number = scaled.Number();
    if (!std::isfinite(number)) runtime.Fail("round: {} has no integer", FloatText(number));
    if (scaled.Is(Type::kFloat)) number = method == "ceil" ? std::ceil(number) : std::floor(number);
    const Value integer =
        scaled.IsInteger() ? Value(scaled.Integer()) : Value(*Truncated(runtime, number));
    return Calculate(runtime, Op::kDiv, integer, unit);
  }
  if (value.IsInteger()) return Value(RoundInteger(runtime, value.Integer(), digits));
  const double number = value.AsFloat();
  if (whole) {
    const auto result = Truncated(runtime, std::nearbyint(number));
    if (!result) runtime.Fail("cannot convert float NaN to integer");
    return Value(*result);
  }
  if (!std::isfinite(number) || digits > 323) return value;
  if (digits < 0) runtime.Unsupported("round of a float to a negative precision");
  // Printing rounds the exact value, half to even, as Python's round does.
  return Value(std::strtod(PrintFloat(runtime, 'f', digits, false, number).c_str(), nullptr));
}

Value Sum(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Parameters given(runtime, "sum", arguments, {"attribute", "start"});
  Value total = given.Given(1) ? given[1] : Value(int64_t{0});
  if (total.IsString()) runtime.Fail("sum: can't sum strings, use join");
  const AttributePath path(runtime, given.Given(0) ? given[0] : Value(None{}));
  for (const Value& item : Items(runtime, value)) {
    total = Calculate(runtime, Op::kAdd, total, path.Of(runtime, item));
  }
  return total;
}

}  // namespace samebits::jinja::filters
