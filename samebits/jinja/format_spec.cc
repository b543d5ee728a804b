// format(value, spec): [[fill]align][sign][#][0][width][,][.precision][type].
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "samebits/jinja/format.h"
#include "samebits/jinja/format_number.h"
#include "samebits/jinja/operators.h"
#include "samebits/jinja/unicode.h"

namespace samebits::jinja {
namespace {

struct Spec {
  std::string fill = " ";
  char align = 0;
  char sign = '-';
  bool alternate = false;
  bool zero = false;
  char group = 0;
  int64_t width = 0;
  int64_t precision = -1;
  char type = 0;
};

bool IsAlign(char c) { return c == '<' || c == '>' || c == '^' || c == '='; }

int64_t Digits(Runtime& runtime, std::string_view text, size_t& at) {
  int64_t value = 0;
  while (at < text.size() && text[at] >= '0' && text[at] <= '9') {
    value = value * 10 + (text[at++] - '0');
    if (value > runtime.limits().output_bytes) runtime.Fail("a width in a format is too large");
  }
  return value;
}

Spec ParseSpec(Runtime& runtime, std::string_view text) {
  Spec spec;
  size_t at = 0;
  if (!text.empty()) {
    size_t behind = 0;
    const std::string_view first = TakeCharacter(text, behind);
    if (behind < text.size() && IsAlign(text[behind])) {
      spec.fill = std::string(first);
      spec.align = text[behind];
      at = behind + 1;
    } else if (IsAlign(text[0])) {
      spec.align = text[0];
      at = 1;
    }
  }
  const auto take = [&](char c) {
    if (at >= text.size() || text[at] != c) return false;
    ++at;
    return true;
  };
  for (const char sign : {'+', '-', ' '}) {
    if (take(sign)) {
      spec.sign = sign;
      break;
    }
  }
  spec.alternate = take('#');
  if (take('0')) {
    spec.zero = true;
    if (spec.align == 0) {
      spec.fill.assign(1, '0');
      spec.align = '=';
    }
  }
  spec.width = Digits(runtime, text, at);
  if (take(',')) {
    spec.group = ',';
  } else if (take('_')) {
    spec.group = '_';
  }
  if (take('.')) {
    const size_t begin = at;
    spec.precision = Digits(runtime, text, at);
    if (at == begin) runtime.Fail("a format needs a precision behind '.'");
  }
  if (at < text.size()) spec.type = text[at++];
  if (at < text.size()) runtime.Fail("invalid format '{}'", text);
  return spec;
}

// `prefix` (a sign, 0x) stays in front of padding with '='.
std::string Pad(Runtime& runtime, const Spec& spec, const std::string& prefix,
                const std::string& body, char default_align) {
  const int64_t length = CountCharacters(prefix) + CountCharacters(body);
  const int64_t missing = std::max<int64_t>(0, spec.width - length);
  CheckTextSize(runtime, missing + 1, static_cast<int64_t>(spec.fill.size()));
  runtime.StepBytes(static_cast<size_t>(missing));
  const auto fill = [&](int64_t count) {
    std::string text;
    for (int64_t i = 0; i < count; ++i) text += spec.fill;
    return text;
  };
  switch (spec.align == 0 ? default_align : spec.align) {
    case '<':
      return prefix + body + fill(missing);
    case '^':
      return fill(missing / 2) + prefix + body + fill(missing - missing / 2);
    case '=':
      return prefix + fill(missing) + body;
    default:
      return fill(missing) + prefix + body;
  }
}

std::string Grouped(const std::string& digits, char separator) {
  const size_t end = std::min(digits.find_first_not_of("0123456789"), digits.size());
  std::string out;
  for (size_t i = 0; i < end; ++i) {
    if (i > 0 && (end - i) % 3 == 0) out.push_back(separator);
    out.push_back(digits[i]);
  }
  return out + digits.substr(end);
}

std::string SignOf(const Spec& spec, bool negative) {
  if (negative) return "-";
  return spec.sign == '-' ? "" : std::string(1, spec.sign);
}

std::string OfText(Runtime& runtime, const Spec& spec, const std::string& text) {
  if (spec.type != 0 && spec.type != 's') {
    runtime.Fail("format '{}' can't be used on a str", spec.type);
  }
  if (spec.align == '=' && !spec.zero) runtime.Fail("'=' in a format can't be used on a str");
  if (spec.sign != '-' || spec.alternate || spec.group != 0) {
    runtime.Fail("a sign, '#' or ',' in a format can't be used on a str");
  }
  if (spec.zero) runtime.Unsupported("'0' in the format of a str");
  std::string_view part = text;
  if (spec.precision >= 0) part = part.substr(0, ByteOfCharacter(part, spec.precision));
  return Pad(runtime, spec, "", std::string(part), '<');
}

std::string OfFloat(Runtime& runtime, const Spec& spec, double value) {
  if (spec.group != 0 && spec.zero) runtime.Unsupported("'0' with ',' in a format");
  const bool negative = std::signbit(value) && !std::isnan(value);
  const double size = std::isnan(value) ? value : std::fabs(value);
  std::string body;
  switch (spec.type) {
    case 0:
      if (spec.precision >= 0) runtime.Unsupported("a precision without a type in a format");
      body = FloatText(size);
      break;
    case '%':
      body = PrintFloat(runtime, 'f', spec.precision < 0 ? 6 : spec.precision, spec.alternate,
                        size * 100) +
             "%";
      break;
    case 'n':
      runtime.Unsupported("the format 'n'");
    case 'e':
    case 'E':
    case 'f':
    case 'F':
    case 'g':
    case 'G':
      body = PrintFloat(runtime, spec.type, spec.precision < 0 ? 6 : spec.precision, spec.alternate,
                        size);
      break;
    default:
      runtime.Fail("format '{}' can't be used on a float", spec.type);
  }
  if (spec.group != 0) body = Grouped(body, spec.group);
  return Pad(runtime, spec, SignOf(spec, negative), body, '>');
}

std::string OfInteger(Runtime& runtime, const Spec& spec, int64_t value) {
  const std::string_view float_types = "eEfFgG%";
  if (spec.type != 0 && float_types.find(spec.type) != std::string_view::npos) {
    return OfFloat(runtime, spec, static_cast<double>(value));
  }
  if (spec.precision >= 0) runtime.Fail("a precision in the format of an int");
  const uint64_t size = value < 0 ? -static_cast<uint64_t>(value) : static_cast<uint64_t>(value);
  std::string prefix = SignOf(spec, value < 0), body;
  switch (spec.type) {
    case 0:
    case 'd':
      body = std::to_string(size);
      if (spec.group != 0) {
        if (spec.zero) runtime.Unsupported("'0' with ',' in a format");
        body = Grouped(body, spec.group);
      }
      return Pad(runtime, spec, prefix, body, '>');
    case 'x':
      body = fmt::format("{:x}", size);
      break;
    case 'X':
      body = fmt::format("{:X}", size);
      break;
    case 'o':
      body = fmt::format("{:o}", size);
      break;
    case 'b':
      body = fmt::format("{:b}", size);
      break;
    case 'c':
    case 'n':
      runtime.Unsupported("the format '{}'", spec.type);
    default:
      runtime.Fail("format '{}' can't be used on an int", spec.type);
  }
  if (spec.group != 0) runtime.Unsupported("groups of digits other than decimal");
  if (spec.alternate) prefix += std::string("0") + spec.type;
  return Pad(runtime, spec, prefix, body, '>');
}

}  // namespace

std::string_view TakeCharacter(std::string_view text, size_t& at) {
  const size_t begin = at;
  NextCharacter(text, at);
  return text.substr(begin, at - begin);
}

std::string PrintFloat(Runtime& runtime, char type, int64_t precision, bool alternate,
                       double value) {
  constexpr int64_t kMaxPrecision = 1000;
  if (precision > kMaxPrecision) {
    runtime.Unsupported("a precision of more than {}", kMaxPrecision);
  }
  const std::string format = std::string(alternate ? "%#.*" : "%.*") + type;
  std::array<char, 1500> buffer{};  // 309 digits, a point and the precision
  const int length = std::snprintf(buffer.data(), buffer.size(), format.c_str(),
                                   static_cast<int>(precision), value);
  return {buffer.data(), static_cast<size_t>(length)};
}

std::string FormatSpec(Runtime& runtime, const Value& value, std::string_view text) {
  if (text.empty()) return Text(runtime, value);
  if (value.IsString()) {
    return OfText(runtime, ParseSpec(runtime, text), value.AsString().bytes);
  }
  if (value.Is(Type::kFloat)) return OfFloat(runtime, ParseSpec(runtime, text), value.AsFloat());
  if (value.IsInteger()) {
    const Spec spec = ParseSpec(runtime, text);
    return OfInteger(runtime, spec, value.Integer());
  }
  runtime.Fail("a {} takes no format", TypeName(value));
}

}  // namespace samebits::jinja
