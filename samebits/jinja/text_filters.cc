#include <algorithm>
#include <string>

#include "samebits/base/html.h"
#include "samebits/jinja/attribute_path.h"
#include "samebits/jinja/filter_list.h"
#include "samebits/jinja/format.h"
#include "samebits/jinja/methods.h"
#include "samebits/jinja/operators.h"
#include "samebits/jinja/unicode.h"

namespace samebits::jinja::filters {
namespace {

// A str as it is, anything else as its text.
Value Soft(Runtime& runtime, const Value& value) {
  return value.IsString() ? value : runtime.String(Text(runtime, value));
}

Value InCase(Runtime& runtime, const Value& value, const Arguments& arguments,
             std::string_view name, std::string (*change)(std::string_view)) {
  const Parameters none(runtime, name, arguments, {});
  const Value text = Soft(runtime, value);
  return runtime.String(change(text.AsString().bytes), text.AsString().is_markup);
}

void RefuseMarkup(Runtime& runtime, const Value& text, std::string_view name) {
  if (text.AsString().is_markup) runtime.Unsupported("the filter '{}' of text marked safe", name);
}

std::string TitleWords(std::string_view text) {
  std::string out;
  bool inside = false;
  size_t word = 0;
  const auto flush = [&](size_t end) {
    if (!inside) return;
    const std::string_view all = text.substr(word, end - word);
    size_t first = 0;
    NextCharacter(all, first);
    out += ToUpper(all.substr(0, first)) + ToLower(all.substr(first));
    inside = false;
  };
  for (size_t i = 0; i < text.size();) {
    const size_t at = i;
    const uint32_t c = NextCharacter(text, i);
    if (c == '-' || c == '(' || c == '{' || c == '[' || c == '<' || IsSpace(c)) {
      flush(at);
      // The character begins a run of separators, whose case is changed in vain.
      out.append(text, at, i - at);
    } else if (!inside) {
      inside = true;
      word = at;
    }
  }
  flush(text.size());
  return out;
}

void AppendQuotedUrl(std::string_view text, bool for_query, std::string& out) {
  for (const char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '_' || c == '.' || c == '-' || c == '~' || (c == '/' && !for_query);
    if (plain) {
      out.push_back(c);
    } else if (c == ' ' && for_query) {
      out.push_back('+');
    } else {
      out += fmt::format("%{:02X}", static_cast<unsigned char>(c));
    }
  }
}

}  // namespace

Value Capitalize(Runtime& runtime, const Value& value, const Arguments& arguments) {
  return InCase(runtime, value, arguments, "capitalize", ToCapitalized);
}
Value Lower(Runtime& runtime, const Value& value, const Arguments& arguments) {
  return InCase(runtime, value, arguments, "lower", ToLower);
}
Value Upper(Runtime& runtime, const Value& value, const Arguments& arguments) {
  return InCase(runtime, value, arguments, "upper", ToUpper);
}

Value Title(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Parameters none(runtime, "title", arguments, {});
  return runtime.String(TitleWords(Soft(runtime, value).AsString().bytes));
}

Value Center(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Parameters given(runtime, "center", arguments, {"width"});
  const Value text = Soft(runtime, value);
  RefuseMarkup(runtime, text, "center");
  return Centered(runtime, text.AsString(), given.Int(0, 80), " ");
}

Value Escape(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Parameters none(runtime, "escape", arguments, {});
  Value text = Soft(runtime, value);
  if (text.AsString().is_markup) return text;
  return runtime.String(EscapeHtml(text.AsString().bytes), true);
}

Value ForceEscape(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Parameters none(runtime, "forceescape", arguments, {});
  return runtime.String(EscapeHtml(Text(runtime, value)), true);
}

Value Format(Runtime& runtime, const Value& value, const Arguments& arguments) {
  if (!arguments.positional.empty() && !arguments.keyword.empty()) {
    runtime.Fail("format: positional and keyword arguments at the same time");
  }
  const Value text = Soft(runtime, value);
  if (arguments.keyword.empty()) {
    return FormatPercent(runtime, text, runtime.Tuple(arguments.positional));
  }
  auto names = std::make_shared<Dict>();
  for (const auto& [name, argument] : arguments.keyword) names->Set(runtime.String(name), argument);
  return FormatPercent(runtime, text, runtime.Wrap(std::move(names)));
}

Value Indent(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Parameters given(runtime, "indent", arguments, {"width", "first", "blank"});
  std::string indention;
  if (given.Given(0) && given[0].IsString()) {
    indention = given[0].AsString().bytes;
  } else {
    const int64_t width = std::max<int64_t>(0, given.Int(0, 4));
    CheckTextSize(runtime, width, 1);
    indention = std::string(static_cast<size_t>(width), ' ');
  }
  if (!value.IsString()) {
    if (value.IsUndefined()) runtime.UseOfUndefined(value);
    runtime.Fail("indent: expected a str, found {}", TypeName(value));
  }
  RefuseMarkup(runtime, value, "indent");
  const std::string text = value.AsString().bytes + "\n";
  const bool blank = given.Truth(2, false);
  const std::vector<std::string_view> lines = SplitLines(text, false);
  std::string out = given.Truth(1, false) ? indention : "";
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) {
      out.push_back('\n');
      if (blank || !lines[i].empty()) out += indention;
      runtime.StepBytes(indention.size());
    }
    out += lines[i];
    runtime.CheckOutput(out.size());
  }
  return runtime.String(std::move(out));
}

Value Join(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Parameters given(runtime, "join", arguments, {"d", "attribute"});
  std::vector<Value> items = Items(runtime, value);
  if (given.Set(1)) {
    const AttributePath path(runtime, given[1]);
    for (Value& item : items) item = path.Of(runtime, item);
  }
  return JoinTexts(runtime, given.Given(0) ? Text(runtime, given[0]) : "", items, true);
}

Value Replace(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Parameters given(runtime, "replace", arguments, {"old", "new", "count"}, 2);
  return runtime.String(ReplaceText(runtime, Text(runtime, value), Text(runtime, given[0]),
                                    Text(runtime, given[1]), given.Set(2) ? given.Int(2, -1) : -1));
}

Value Safe(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Parameters none(runtime, "safe", arguments, {});
  return runtime.String(Text(runtime, value), true);
}

Value String(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Parameters none(runtime, "string", arguments, {});
  return Soft(runtime, value);
}

Value StripTags(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Parameters none(runtime, "striptags", arguments, {});
  const std::string text = Text(runtime, value);
  std::string kept;
  size_t at = 0;
  for (;;) {
    const size_t begin = text.find('<', at);
    if (begin == std::string::npos) break;
    const bool comment = text.compare(begin, 4, "<!--") == 0;
    const size_t end = comment ? text.find("-->", begin + 4) : text.find('>', begin);
    if (end == std::string::npos) break;
    kept.append(text, at, begin - at);
    at = end + (comment ? 3 : 1);
  }
  kept.append(text, at);
  if (kept.find('&') != std::string::npos) {
    runtime.Unsupported("striptags of text with character references ('&')");
  }
  std::string out;
  std::string_view rest = StripLeft(kept);
  while (!rest.empty()) {
    size_t end = 0;
    while (end < rest.size()) {
      size_t next = end;
      if (IsSpace(NextCharacter(rest, next))) break;
      end = next;
    }
    if (!out.empty()) out.push_back(' ');
    out += rest.substr(0, end);
    rest = StripLeft(rest.substr(end));
  }
  return runtime.String(std::move(out));
}

Value ToJson(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Parameters given(runtime, "tojson", arguments,
                         {"ensure_ascii", "indent", "separators", "sort_keys"});
  JsonStyle style;
  style.ascii = given.Truth(0, false);
  style.sort_keys = given.Truth(3, false);
  if (given.Set(1)) {
    style.has_indent = true;
    style.item_separator.assign(1, ',');
    if (given[1].IsString()) {
      style.indent = given[1].AsString().bytes;
    } else {
      const int64_t width = std::max<int64_t>(0, given.Int(1, 0));
      if (width > 1000) runtime.Unsupported("tojson with an indent of more than 1000");
      style.indent = std::string(static_cast<size_t>(width), ' ');
    }
  }
  if (given.Set(2)) {
    const std::vector<Value> pair = Items(runtime, given[2]);
    if (pair.size() != 2 || !pair[0].IsString() || !pair[1].IsString()) {
      runtime.Fail("tojson: separators must be two strings");
    }
    style.item_separator = pair[0].AsString().bytes;
    style.key_separator = pair[1].AsString().bytes;
  }
  std::string out;
  AppendJson(runtime, value, style, 0, out);
  return runtime.String(std::move(out));
}

Value Trim(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Parameters given(runtime, "trim", arguments, {"chars"});
  const Value text = Soft(runtime, value);
  std::string_view view = text.AsString().bytes;
  runtime.StepBytes(view.size());
  if (given.Set(0)) {
    view = StripCharacters(runtime, view, given.String(0), true, true);
  } else {
    view = StripRight(StripLeft(view));
  }
  return runtime.String(std::string(view), text.AsString().is_markup);
}

Value Truncate(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Parameters given(runtime, "truncate", arguments, {"length", "killwords", "end", "leeway"});
  const int64_t length = given.Int(0, 255);
  const std::string end = given.Given(2) ? given.String(2) : "...";
  const int64_t end_length = CountCharacters(end);
  const int64_t leeway = given.Set(3) ? given.Int(3, 5) : 5;
  if (length < end_length) runtime.Fail("truncate: a length of {} below {}", length, end_length);
  if (leeway < 0) runtime.Fail("truncate: a negative leeway");
  // Anything of a length is given back when it is short enough.
  const int64_t present = Length(runtime, value);
  if (present <= length || present - length <= leeway) return value;
  if (!value.IsString()) runtime.Fail("truncate: expected a str, found {}", TypeName(value));
  RefuseMarkup(runtime, value, "truncate");
  const Str& text = value.AsString();
  std::string part = text.bytes.substr(0, ByteOfCharacter(text.bytes, length - end_length));
  if (!given.Truth(1, false)) {
    if (const size_t space = part.rfind(' '); space != std::string::npos) part.resize(space);
  }
  return runtime.String(part + end);
}

Value UrlEncode(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Parameters none(runtime, "urlencode", arguments, {});
  std::string out;
  if (value.IsString() || !IsIterable(value)) {
    AppendQuotedUrl(Text(runtime, value), false, out);
    return runtime.String(std::move(out));
  }
  const auto pair = [&](const Value& key, const Value& item) {
    if (!out.empty()) out.push_back('&');
    AppendQuotedUrl(Text(runtime, key), true, out);
    out.push_back('=');
    AppendQuotedUrl(Text(runtime, item), true, out);
    runtime.CheckOutput(out.size());
  };
  if (value.Is(Type::kDict)) {
    for (const Dict::Entry& entry : value.AsDict().entries()) pair(entry.key, entry.value);
  } else {
    for (const Value& item : Items(runtime, value)) {
      const std::vector<Value> both = Items(runtime, item);
      if (both.size() != 2) runtime.Fail("urlencode: expected pairs");
      pair(both[0], both[1]);
    }
  }
  return runtime.String(std::move(out));
}

Value WordCount(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Parameters none(runtime, "wordcount", arguments, {});
  const std::string text = Text(runtime, value);
  int64_t words = 0;
  bool inside = false;
  for (size_t i = 0; i < text.size();) {
    const uint32_t c = NextCharacter(text, i);
    const bool is_word = c == '_' || IsAlphanumeric(c);
    if (is_word && !inside) ++words;
    inside = is_word;
  }
  return Value(words);
}

Value XmlAttr(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Parameters given(runtime, "xmlattr", arguments, {"autospace"});
  if (!value.Is(Type::kDict)) {
    if (value.IsUndefined()) runtime.UseOfUndefined(value);
    runtime.Fail("xmlattr: expected a dict, found {}", TypeName(value));
  }
  std::string out;
  for (const auto& [key, item] : value.AsDict().entries()) {
    if (item.IsNone() || item.IsUndefined()) continue;
    if (!key.IsString()) runtime.Fail("xmlattr: expected a str, found {}", TypeName(key));
    const std::string& name = key.AsString().bytes;
    if (name.find_first_of(" \t\n\r\f\v/>=") != std::string::npos) {
      runtime.Fail("xmlattr: invalid character in attribute name {}", Excerpt(runtime, key));
    }
    const auto escaped = [&](const Value& part) {
      const std::string text = Text(runtime, part);
      return part.IsString() && part.AsString().is_markup ? text : EscapeHtml(text);
    };
    if (!out.empty()) out.push_back(' ');
    out += escaped(key) + "=\"" + escaped(item) + "\"";
  }
  if (given.Truth(0, true) && !out.empty()) out.insert(out.begin(), ' ');
  return runtime.String(std::move(out));
}

}  // namespace samebits::jinja::filters
