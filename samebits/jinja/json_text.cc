// json.dumps, as the filter tojson calls it.
#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "samebits/jinja/format.h"
#include "samebits/jinja/operators.h"
#include "samebits/jinja/unicode.h"

namespace samebits::jinja {
namespace {

void AppendJsonString(Runtime& runtime, const std::string& text, bool ascii, std::string& out) {
  runtime.StepBytes(text.size());
  out.push_back('"');
  for (size_t i = 0; i < text.size();) {
    const size_t begin = i;
    const uint32_t c = NextCharacter(text, i);
    switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\r':
        out += "\\r";
        break;
      case '\t':
        out += "\\t";
        break;
      case '\b':
        out += "\\b";
        break;
      case '\f':
        out += "\\f";
        break;
      default:
        if (c < 0x20 || (ascii && c >= 0x7F && c < 0x10000)) {
          out += fmt::format("\\u{:04x}", c);
        } else if (ascii && c >= 0x10000) {
          out += fmt::format("\\u{:04x}\\u{:04x}", 0xD800 + ((c - 0x10000) >> 10),
                             0xDC00 + ((c - 0x10000) & 0x3FF));
        } else {
          out.append(text, begin, i - begin);
        }
    }
  }
  out.push_back('"');
}

std::string JsonFloat(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value < 0 ? "-Infinity" : "Infinity";
  return FloatText(value);
}

std::string KeyText(Runtime& runtime, const Value& key) {
  switch (key.type()) {
    case Type::kString:
      return key.AsString().bytes;
    case Type::kBool:
      return key.AsBool() ? "true" : "false";
    case Type::kNone:
      return "null";
    case Type::kInt:
      return std::to_string(key.AsInt());
    case Type::kFloat:
      return JsonFloat(key.AsFloat());
    default:
      runtime.Fail("tojson: keys must be str, int, float, bool or None, not {}", TypeName(key));
  }
}

void NewLine(const JsonStyle& style, int level, std::string& out) {
  if (!style.has_indent) return;
  out.push_back('\n');
  for (int i = 0; i < level; ++i) out += style.indent;
}

void AppendObject(Runtime& runtime, const Dict& dict, const JsonStyle& style, int level,
                  std::string& out) {
  if (dict.size() == 0) {
    out += "{}";
    return;
  }
  std::vector<Value> keys, values;
  keys.reserve(dict.entries().size());
  values.reserve(dict.entries().size());
  for (const Dict::Entry& entry : dict.entries()) {
    keys.push_back(entry.key);
    values.push_back(entry.value);
  }
  if (style.sort_keys) {
    values = SortBy(runtime, std::move(values), keys, false);
    keys = SortBy(runtime, keys, keys, false);
  }
  out.push_back('{');
  for (size_t i = 0; i < keys.size(); ++i) {
    if (i > 0) out += style.item_separator;
    NewLine(style, level + 1, out);
    AppendJsonString(runtime, KeyText(runtime, keys[i]), style.ascii, out);
    out += style.key_separator;
    AppendJson(runtime, values[i], style, level + 1, out);
  }
  NewLine(style, level, out);
  out.push_back('}');
}

}  // namespace

void AppendJson(Runtime& runtime, const Value& value, const JsonStyle& style, int level,
                std::string& out) {
  const Runtime::Deeper deeper(runtime);
  runtime.Step();
  runtime.CheckOutput(out.size());
  switch (value.type()) {
    case Type::kNone:
      out += "null";
      return;
    case Type::kBool:
      out += value.AsBool() ? "true" : "false";
      return;
    case Type::kInt:
      out += std::to_string(value.AsInt());
      return;
    case Type::kFloat:
      out += JsonFloat(value.AsFloat());
      return;
    case Type::kString:
      AppendJsonString(runtime, value.AsString().bytes, style.ascii, out);
      return;
    case Type::kDict:
      AppendObject(runtime, value.AsDict(), style, level, out);
      return;
    default:
      break;
  }
  if (!value.IsList() && !value.IsTuple()) {
    runtime.Fail("tojson: object of type {} is not JSON serializable", TypeName(value));
  }
  const auto& items = value.AsSequence().items;
  if (items.empty()) {
    out += "[]";
    return;
  }
  out.push_back('[');
  for (size_t i = 0; i < items.size(); ++i) {
    if (i > 0) out += style.item_separator;
    NewLine(style, level + 1, out);
    AppendJson(runtime, items[i], style, level + 1, out);
  }
  NewLine(style, level, out);
  out.push_back(']');
}

}  // namespace samebits::jinja
