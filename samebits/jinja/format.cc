#include "samebits/jinja/format.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "samebits/jinja/format_number.h"
#include "samebits/jinja/operators.h"
#include "samebits/jinja/unicode.h"

namespace samebits::jinja {
namespace {

// One conversion of the operator %.
struct Conversion {
  bool left = false, plus = false, space = false, alternate = false, zero = false;
  int64_t width = 0, precision = -1;
  char type = 0;
};

class PercentFormatter {
 public:
  PercentFormatter(Runtime& runtime, std::string_view format, const Value& values)
      : runtime_(runtime), format_(format), values_(values) {}

  std::string Run() {
    std::string out;
    size_t at = 0;
    while (at < format_.size()) {
      const size_t percent = std::min(format_.find('%', at), format_.size());
      out.append(format_, at, percent - at);
      at = percent;
      if (at < format_.size()) {
        ++at;
        runtime_.Step();
        One(at, out);
        runtime_.CheckOutput(out.size());
      }
    }
    const bool is_mapping = values_.Is(Type::kDict) || values_.IsList() || values_.IsUndefined() ||
                            values_.Is(Type::kRange);
    if (values_.IsTuple() ? next_ < values_.AsSequence().items.size()
                          : next_ == 0 && !used_mapping_ && !is_mapping) {
      runtime_.Fail("not all arguments converted during string formatting");
    }
    return out;
  }

 private:
  Value NextValue() {
    if (values_.IsTuple()) {
      if (next_ < values_.AsSequence().items.size()) return values_.AsSequence().items[next_++];
    } else if (next_++ == 0) {
      return values_;
    }
    runtime_.Fail("not enough arguments for format string");
  }

  int64_t Number(size_t& at) {
    if (at < format_.size() && format_[at] == '*') runtime_.Unsupported("'*' in a % format");
    int64_t value = 0;
    while (at < format_.size() && format_[at] >= '0' && format_[at] <= '9') {
      value = value * 10 + (format_[at++] - '0');
      if (value > runtime_.limits().output_bytes) runtime_.Fail("a width in a format is too large");
    }
    return value;
  }

  void One(size_t& at, std::string& out) {
    Conversion conversion;
    Value value;
    bool has_value = false;
    if (at < format_.size() && format_[at] == '(') {
      int depth = 1;
      const size_t begin = ++at;
      while (at < format_.size() && depth > 0) {
        depth += format_[at] == '(' ? 1 : format_[at] == ')' ? -1 : 0;
        ++at;
      }
      if (depth > 0) runtime_.Fail("incomplete format key");
      if (!values_.Is(Type::kDict)) runtime_.Fail("format requires a mapping");
      const std::string_view key = format_.substr(begin, at - 1 - begin);
      const Value* found = values_.AsDict().Find(key);
      if (found == nullptr) runtime_.Fail("no key '{}' for a format", key);
      value = *found;
      has_value = true;
      used_mapping_ = true;
    }
    for (; at < format_.size(); ++at) {
      const char c = format_[at];
      if (c == '-') {
        conversion.left = true;
      } else if (c == '+') {
        conversion.plus = true;
      } else if (c == ' ') {
        conversion.space = true;
      } else if (c == '#') {
        conversion.alternate = true;
      } else if (c == '0') {
        conversion.zero = true;
      } else {
        break;
      }
    }
    conversion.width = Number(at);
    if (at < format_.size() && format_[at] == '.') {
      ++at;
      conversion.precision = Number(at);
    }
    while (at < format_.size() &&
           (format_[at] == 'l' || format_[at] == 'h' || format_[at] == 'L')) {
      ++at;
    }
    if (at >= format_.size()) runtime_.Fail("incomplete format");
    conversion.type = format_[at++];
    if (conversion.type == '%') {
      out.push_back('%');
      return;
    }
    if (!has_value) value = NextValue();
    Convert(conversion, value, out);
  }

  void Convert(const Conversion& conversion, const Value& value, std::string& out) {
    switch (conversion.type) {
      case 's':
      case 'r':
      case 'a': {
        if (conversion.type == 'a') runtime_.Unsupported("the format '%a'");
        const std::string text =
            conversion.type == 's' ? Text(runtime_, value) : Repr(runtime_, value);
        std::string_view part = text;
        if (conversion.precision >= 0) {
          part = part.substr(0, ByteOfCharacter(part, conversion.precision));
        }
        Pad(conversion, "", std::string(part), false, out);
        return;
      }
      case 'c':
        runtime_.Unsupported("the format '%c'");
      case 'd':
      case 'i':
      case 'u':
      case 'x':
      case 'X':
      case 'o':
        Integer(conversion, value, out);
        return;
      case 'e':
      case 'E':
      case 'f':
      case 'F':
      case 'g':
      case 'G': {
        if (!value.IsNumber()) runtime_.Fail("must be real number, not {}", TypeName(value));
        const double number = value.Number();
        const bool negative = std::signbit(number) && !std::isnan(number);
        const std::string body = PrintFloat(
            runtime_, conversion.type, conversion.precision < 0 ? 6 : conversion.precision,
            conversion.alternate, std::isnan(number) ? number : std::fabs(number));
        Pad(conversion, Sign(conversion, negative), body, std::isfinite(number), out);
        return;
      }
      default:
        runtime_.Fail("unsupported format character '{}'", conversion.type);
    }
  }

  void Integer(const Conversion& conversion, const Value& value, std::string& out) {
    const bool decimal = conversion.type == 'd' || conversion.type == 'i' || conversion.type == 'u';
    int64_t number = 0;
    if (value.IsInteger()) {
      number = value.Integer();
    } else if (decimal && value.Is(Type::kFloat)) {
      const double whole = std::trunc(value.AsFloat());
      if (!std::isfinite(whole)) runtime_.Fail("cannot convert {} to an integer", FloatText(whole));
      if (std::fabs(whole) >= 9.2e18) runtime_.Unsupported("integers beyond 64 bits");
      number = static_cast<int64_t>(whole);
    } else {
      runtime_.Fail("%{} format: a number is required, not {}", conversion.type, TypeName(value));
    }
    const uint64_t size =
        number < 0 ? -static_cast<uint64_t>(number) : static_cast<uint64_t>(number);
    std::string body = decimal                  ? std::to_string(size)
                       : conversion.type == 'x' ? fmt::format("{:x}", size)
                       : conversion.type == 'X' ? fmt::format("{:X}", size)
                                                : fmt::format("{:o}", size);
    std::string prefix = Sign(conversion, number < 0);
    if (conversion.precision > 0 && static_cast<int64_t>(body.size()) < conversion.precision) {
      body.insert(0, static_cast<size_t>(conversion.precision) - body.size(), '0');
    }
    if (conversion.alternate && !decimal) prefix += std::string("0") + conversion.type;
    Pad(conversion, prefix, body, true, out);
  }

  static std::string Sign(const Conversion& conversion, bool negative) {
    return negative ? "-" : conversion.plus ? "+" : conversion.space ? " " : "";
  }

  void Pad(const Conversion& conversion, const std::string& prefix, const std::string& body,
           bool may_zero, std::string& out) {
    const int64_t length = CountCharacters(prefix) + CountCharacters(body);
    const auto missing = static_cast<size_t>(std::max<int64_t>(0, conversion.width - length));
    runtime_.StepBytes(missing);
    if (conversion.left) {
      out += prefix + body + std::string(missing, ' ');
    } else if (conversion.zero && may_zero) {
      out += prefix + std::string(missing, '0') + body;
    } else {
      out += std::string(missing, ' ') + prefix + body;
    }
  }

  Runtime& runtime_;
  const std::string_view format_;
  const Value& values_;
  size_t next_ = 0;
  bool used_mapping_ = false;
};

class BraceFormatter {
 public:
  BraceFormatter(Runtime& runtime, const Arguments& arguments)
      : runtime_(runtime), arguments_(arguments) {}

  std::string Run(std::string_view format, int depth) {
    if (depth > 2) runtime_.Fail("fields nested too deep in a format");
    std::string out;
    for (size_t i = 0; i < format.size();) {
      const char c = format[i];
      if (c != '{' && c != '}') {
        out.push_back(c);
        ++i;
      } else if (i + 1 < format.size() && format[i + 1] == c) {
        out.push_back(c);
        i += 2;
      } else if (c == '}') {
        runtime_.Fail("single '}}' in a format");
      } else {
        const size_t end = FieldEnd(format, i);
        Field(format.substr(i + 1, end - i - 1), depth, out);
        runtime_.CheckOutput(out.size());
        i = end + 1;
      }
    }
    return out;
  }

 private:
  size_t FieldEnd(std::string_view format, size_t begin) {
    int depth = 0;
    for (size_t i = begin; i < format.size(); ++i) {
      depth += format[i] == '{' ? 1 : format[i] == '}' ? -1 : 0;
      if (depth == 0) return i;
    }
    runtime_.Fail("a field in a format does not end");
  }

  void Field(std::string_view field, int depth, std::string& out) {
    runtime_.Step();
    const size_t colon = FindOutside(field, ':');
    std::string_view name = field.substr(0, colon), spec;
    if (colon < field.size()) spec = field.substr(colon + 1);
    char conversion = 0;
    if (const size_t mark = FindOutside(name, '!'); mark < name.size()) {
      if (name.size() != mark + 2) runtime_.Fail("a conversion in a format is not one character");
      conversion = name[mark + 1];
      name = name.substr(0, mark);
    }
    Value value = Lookup(name);
    if (conversion == 'r') {
      value = runtime_.String(Repr(runtime_, value));
    } else if (conversion == 's') {
      value = runtime_.String(Text(runtime_, value));
    } else if (conversion != 0) {
      runtime_.Unsupported("the conversion '!{}' in a format", conversion);
    }
    out += FormatSpec(runtime_, value, Run(spec, depth + 1));
  }

  // Not inside brackets, which may hold any key.
  static size_t FindOutside(std::string_view text, char what) {
    bool inside = false;
    for (size_t i = 0; i < text.size(); ++i) {
      if (text[i] == '[') inside = true;
      if (text[i] == ']') inside = false;
      if (text[i] == what && !inside) return i;
    }
    return text.size();
  }

  static bool IsNumber(std::string_view text) {
    return !text.empty() && text.size() < 10 &&
           text.find_first_not_of("0123456789") == std::string_view::npos;
  }

  Value Lookup(std::string_view name) {
    const size_t end = std::min(name.find_first_of(".["), name.size());
    Value value = First(name.substr(0, end));
    size_t i = end;
    while (i < name.size()) {
      if (name[i] == '.') {
        const size_t stop = std::min(name.find_first_of(".[", i + 1), name.size());
        if (stop == i + 1) runtime_.Fail("an empty attribute in a format");
        value = GetAttribute(runtime_, value, name.substr(i + 1, stop - i - 1));
        i = stop;
      } else if (name[i] == '[') {
        const size_t stop = name.find(']', i);
        if (stop == std::string_view::npos) runtime_.Fail("a '[' in a format does not end");
        const std::string_view key = name.substr(i + 1, stop - i - 1);
        if (key.empty()) runtime_.Fail("an empty attribute in a format");
        value = GetItem(runtime_, value,
                        IsNumber(key) ? Value(static_cast<int64_t>(std::stoll(std::string(key))))
                                      : runtime_.String(std::string(key)));
        i = stop + 1;
      } else {
        runtime_.Fail("only '.' or '[' may follow ']' in a format");
      }
    }
    return value;
  }

  Value First(std::string_view name) {
    if (name.empty()) {
      if (numbered_) runtime_.Fail("a format with both numbered and unnumbered fields");
      unnumbered_ = true;
      return Positional(next_++);
    }
    if (IsNumber(name)) {
      if (unnumbered_) runtime_.Fail("a format with both numbered and unnumbered fields");
      numbered_ = true;
      return Positional(static_cast<size_t>(std::stoll(std::string(name))));
    }
    for (const auto& [key, value] : arguments_.keyword) {
      if (key == name) return value;
    }
    runtime_.Fail("no argument '{}' for a format", name);
  }

  Value Positional(size_t index) {
    if (index >= arguments_.positional.size()) {
      runtime_.Fail("no argument {} for a format", index);
    }
    return arguments_.positional[index];
  }

  Runtime& runtime_;
  const Arguments& arguments_;
  size_t next_ = 0;
  bool numbered_ = false, unnumbered_ = false;
};

}  // namespace

Value FormatPercent(Runtime& runtime, const Value& format, const Value& values) {
  if (format.AsString().is_markup) runtime.Unsupported("the operator '%' on text marked safe");
  return runtime.String(PercentFormatter(runtime, format.AsString().bytes, values).Run());
}

Value FormatBraces(Runtime& runtime, const std::string& format, const Arguments& arguments) {
  return runtime.String(BraceFormatter(runtime, arguments).Run(format, 0));
}

}  // namespace samebits::jinja
