#include "samebits/jinja/string_methods.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <string>

#include "samebits/jinja/format.h"
#include "samebits/jinja/operators.h"
#include "samebits/jinja/unicode.h"

namespace samebits::jinja {
namespace {

constexpr size_t kNowhere = std::string_view::npos;

size_t Find(Runtime& runtime, std::string_view text, std::string_view part, size_t from) {
  if (from > text.size()) return kNowhere;
  runtime.StepBytes(part.size());
  const void* found = memmem(text.data() + from, text.size() - from, part.data(), part.size());
  return found == nullptr ? kNowhere
                          : static_cast<size_t>(static_cast<const char*>(found) - text.data());
}

// The last place of `part` that ends at or before byte `end`.
size_t FindLast(Runtime& runtime, std::string_view text, std::string_view part, size_t end) {
  if (part.empty()) return end;
  if (part.size() > end) return kNowhere;
  runtime.StepBytes(end);
  for (size_t i = end - part.size() + 1; i-- > 0;) {
    if (text[i] != part[0] || text[i + part.size() - 1] != part.back()) continue;
    runtime.StepBytes(part.size());
    if (text.substr(i, part.size()) == part) return i;
  }
  return kNowhere;
}

Value Texts(Runtime& runtime, const std::vector<std::string_view>& parts) {
  std::vector<Value> items;
  runtime.ChargeItems(parts.size());
  items.reserve(parts.size());
  for (const std::string_view part : parts) items.push_back(runtime.String(std::string(part)));
  return runtime.List(std::move(items));
}

// str.split() at white space.
std::vector<std::string_view> SplitSpace(std::string_view text, int64_t most) {
  std::vector<std::string_view> parts;
  text = StripLeft(text);
  while (!text.empty()) {
    if (most >= 0 && static_cast<int64_t>(parts.size()) >= most) {
      parts.push_back(text);
      break;
    }
    size_t end = 0;
    while (end < text.size()) {
      size_t next = end;
      if (IsSpace(NextCharacter(text, next))) break;
      end = next;
    }
    parts.push_back(text.substr(0, end));
    text = StripLeft(text.substr(end));
  }
  return parts;
}

std::vector<std::string_view> SplitSpaceFromRight(std::string_view text, int64_t most) {
  std::vector<std::string_view> parts;
  text = StripRight(text);
  while (!text.empty()) {
    if (most >= 0 && static_cast<int64_t>(parts.size()) >= most) {
      parts.push_back(text);
      break;
    }
    size_t begin = text.size();
    while (begin > 0) {
      size_t before = begin;
      if (IsSpace(PreviousCharacter(text, before))) break;
      begin = before;
    }
    parts.push_back(text.substr(begin));
    text = StripRight(text.substr(0, begin));
  }
  std::reverse(parts.begin(), parts.end());
  return parts;
}

Value Split(Runtime& runtime, const std::string& text, std::string_view name,
            const Arguments& arguments) {
  const Parameters given(runtime, name, arguments, {"sep", "maxsplit"});
  const int64_t most = given.Int(1, -1);
  const bool from_right = name == "rsplit";
  runtime.StepBytes(text.size());
  if (!given.Set(0)) {
    return Texts(runtime, from_right ? SplitSpaceFromRight(text, most) : SplitSpace(text, most));
  }
  const std::string& separator = given.String(0);
  if (separator.empty()) runtime.Fail("{}(): empty separator", name);
  std::vector<std::string_view> parts;
  const std::string_view all = text;
  const auto goes_on = [&] { return most < 0 || static_cast<int64_t>(parts.size()) < most; };
  if (from_right) {
    size_t end = all.size();
    while (goes_on()) {
      const size_t at = FindLast(runtime, all, separator, end);
      if (at == kNowhere) break;
      parts.push_back(all.substr(at + separator.size(), end - at - separator.size()));
      end = at;
    }
    parts.push_back(all.substr(0, end));
    std::reverse(parts.begin(), parts.end());
    return Texts(runtime, parts);
  }
  size_t begin = 0;
  while (goes_on()) {
    const size_t at = Find(runtime, all, separator, begin);
    if (at == kNowhere) break;
    parts.push_back(all.substr(begin, at - begin));
    begin = at + separator.size();
  }
  parts.push_back(all.substr(begin));
  return Texts(runtime, parts);
}

Value Partition(Runtime& runtime, const std::string& text, std::string_view name,
                const Arguments& arguments) {
  const Parameters given(runtime, name, arguments, {"sep"}, 1);
  const std::string& separator = given.String(0);
  if (separator.empty()) runtime.Fail("{}(): empty separator", name);
  const bool last = name == "rpartition";
  const size_t at =
      last ? FindLast(runtime, text, separator, text.size()) : Find(runtime, text, separator, 0);
  if (at == kNowhere) {
    const Value whole = runtime.String(text), nothing = runtime.String("");
    return last ? runtime.Tuple({nothing, nothing, whole})
                : runtime.Tuple({whole, nothing, nothing});
  }
  return runtime.Tuple({runtime.String(text.substr(0, at)), runtime.String(separator),
                        runtime.String(text.substr(at + separator.size()))});
}

// The part of the text that optional start and end arguments choose, as bytes; false when it lies
// outside.
struct Part {
  size_t begin = 0, end = 0;
  bool valid = true;
};
Part ChosenPart(Runtime& runtime, const Str& text, const Parameters& given, size_t index) {
  const auto place = [&](size_t argument, int64_t otherwise) {
    int64_t at = given.Set(argument) ? given.Int(argument, 0) : otherwise;
    if (at < 0) at = std::max<int64_t>(0, at + text.length);
    return at;
  };
  const int64_t start = place(index, 0), end = std::min(place(index + 1, text.length), text.length);
  if (start > end) return {0, 0, false};
  if (!text.IsAscii()) runtime.StepBytes(text.bytes.size());
  return {ByteOfCharacter(text.bytes, start), ByteOfCharacter(text.bytes, end), true};
}

Value FindIn(Runtime& runtime, const Str& text, std::string_view name, const Arguments& arguments) {
  const Parameters given(runtime, name, arguments, {"sub", "start", "end"}, 1);
  const std::string& part = given.String(0);
  const Part where = ChosenPart(runtime, text, given, 1);
  const std::string_view view = std::string_view(text.bytes).substr(0, where.end);
  if (name == "count") {
    if (!where.valid) return Value(int64_t{0});
    const std::string_view inside = view.substr(where.begin);
    if (part.empty()) return Value(CountCharacters(inside) + 1);
    int64_t count = 0;
    for (size_t at = Find(runtime, inside, part, 0); at != kNowhere;
         at = Find(runtime, inside, part, at + part.size())) {
      ++count;
    }
    return Value(count);
  }
  size_t at = kNowhere;
  if (where.valid) {
    at = name == "rfind" || name == "rindex" ? FindLast(runtime, view, part, view.size())
                                             : Find(runtime, view, part, where.begin);
    if (at != kNowhere && at < where.begin) at = kNowhere;
  }
  if (at != kNowhere) return Value(CountCharacters(view.substr(0, at)));
  if (name == "index" || name == "rindex") runtime.Fail("{}(): substring not found", name);
  return Value(int64_t{-1});
}

Value StartsOrEnds(Runtime& runtime, const Str& text, std::string_view name,
                   const Arguments& arguments) {
  const bool starts = name == "startswith";
  const Parameters given(runtime, name, arguments, {"prefix", "start", "end"}, 1);
  const Part where = ChosenPart(runtime, text, given, 1);
  const std::string_view view =
      std::string_view(text.bytes).substr(where.begin, where.end - where.begin);
  const auto holds = [&](const Value& value) {
    if (!value.IsString()) {
      runtime.Fail("{}() needs a str or a tuple of str, not {}", name, TypeName(value));
    }
    const std::string& part = value.AsString().bytes;
    return where.valid && (starts ? view.starts_with(part) : view.ends_with(part));
  };
  if (!given[0].IsTuple()) return Value(holds(given[0]));
  const auto& parts = given[0].AsSequence().items;
  return Value(std::any_of(parts.begin(), parts.end(), holds));
}

Value Justify(Runtime& runtime, const Str& text, std::string_view name,
              const Arguments& arguments) {
  const Parameters given(runtime, name, arguments, {"width", "fillchar"}, 1);
  const int64_t width = given.Int(0, 0);
  std::string fill = " ";
  if (given.Given(1)) {
    fill = given.String(1);
    if (CountCharacters(fill) != 1) runtime.Fail("{}(): the fill must be one character", name);
  }
  if (name == "center") return Centered(runtime, text, width, fill);
  const int64_t missing = std::max<int64_t>(0, width - text.length);
  CheckTextSize(runtime, missing, static_cast<int64_t>(fill.size()));
  std::string pad;
  for (int64_t i = 0; i < missing; ++i) pad += fill;
  return runtime.String(name == "ljust" ? text.bytes + pad : pad + text.bytes);
}

Value ZeroFill(Runtime& runtime, const Str& text, const Arguments& arguments) {
  const Parameters given(runtime, "zfill", arguments, {"width"}, 1);
  const int64_t missing = std::max<int64_t>(0, given.Int(0, 0) - text.length);
  CheckTextSize(runtime, missing, 1);
  const bool sign = text.bytes.starts_with('-') || text.bytes.starts_with('+');
  std::string out = text.bytes;
  out.insert(sign ? 1 : 0, static_cast<size_t>(missing), '0');
  return runtime.String(std::move(out));
}

Value Strip(Runtime& runtime, const Str& text, std::string_view name, const Arguments& arguments) {
  const Parameters given(runtime, name, arguments, {"chars"});
  runtime.StepBytes(text.bytes.size());
  const bool left = name != "rstrip", right = name != "lstrip";
  std::string_view view = text.bytes;
  if (given.Set(0)) {
    view = StripCharacters(runtime, view, given.String(0), left, right);
  } else {
    if (left) view = StripLeft(view);
    if (right) view = StripRight(view);
  }
  return runtime.String(std::string(view), text.is_markup);
}

Value RemoveAffix(Runtime& runtime, const std::string& text, std::string_view name,
                  const Arguments& arguments) {
  const Parameters given(runtime, name, arguments, {"affix"}, 1);
  const std::string& part = given.String(0);
  if (name == "removeprefix") {
    return runtime.String(text.starts_with(part) ? text.substr(part.size()) : text);
  }
  return runtime.String(text.ends_with(part) ? text.substr(0, text.size() - part.size()) : text);
}

constexpr std::array<std::string_view, 6> kCases{"upper",      "lower",    "title",
                                                 "capitalize", "casefold", "swapcase"};

std::string InCase(std::string_view text, std::string_view name) {
  if (name == "upper") return ToUpper(text);
  if (name == "lower") return ToLower(text);
  if (name == "title") return ToTitle(text);
  if (name == "capitalize") return ToCapitalized(text);
  if (name == "casefold") return ToFolded(text);
  return SwapCase(text);
}

}  // namespace

std::vector<std::string_view> SplitLines(std::string_view text, bool keep_ends) {
  std::vector<std::string_view> lines;
  size_t begin = 0;
  for (size_t i = 0; i < text.size();) {
    const size_t at = i;
    const uint32_t c = NextCharacter(text, i);
    if (!IsLineBreak(c)) continue;
    if (c == '\r' && i < text.size() && text[i] == '\n') ++i;
    lines.push_back(text.substr(begin, (keep_ends ? i : at) - begin));
    begin = i;
  }
  if (begin < text.size()) lines.push_back(text.substr(begin));
  return lines;
}

std::string_view StripCharacters(Runtime& runtime, std::string_view text, std::string_view chars,
                                 bool left, bool right) {
  const auto among = [&](std::string_view character) {
    runtime.StepBytes(chars.size());
    // A whole character can only be found at the start of one: UTF-8 is self-synchronizing.
    return chars.find(character) != kNowhere;
  };
  while (left && !text.empty()) {
    size_t end = 0;
    if (!among(TakeCharacter(text, end))) break;
    text = text.substr(end);
  }
  while (right && !text.empty()) {
    size_t begin = text.size();
    PreviousCharacter(text, begin);
    if (!among(text.substr(begin))) break;
    text = text.substr(0, begin);
  }
  return text;
}

std::string ReplaceText(Runtime& runtime, const std::string& text, const std::string& from,
                        const std::string& to, int64_t count) {
  runtime.StepBytes(text.size());
  std::string out;
  int64_t done = 0;
  size_t at = 0;
  const auto may = [&] { return count < 0 || done < count; };
  if (from.empty()) {  // in front of each character, and at the end
    while (may()) {
      out += to;
      ++done;
      if (at >= text.size()) return out;
      out += TakeCharacter(text, at);
      runtime.StepBytes(to.size());
      runtime.CheckOutput(out.size());
    }
    return out + text.substr(at);
  }
  while (may()) {
    const size_t found = Find(runtime, text, from, at);
    if (found == kNowhere) break;
    out.append(text, at, found - at);
    out += to;
    runtime.StepBytes(to.size());
    runtime.CheckOutput(out.size());
    at = found + from.size();
    ++done;
  }
  return out.append(text, at);
}

Value Centered(Runtime& runtime, const Str& text, int64_t width, std::string_view fill) {
  const int64_t missing = std::max<int64_t>(0, width - text.length);
  CheckTextSize(runtime, missing, static_cast<int64_t>(fill.size()));
  const int64_t left = missing / 2 + (missing & width & 1);
  std::string out;
  for (int64_t i = 0; i < left; ++i) out += fill;
  out += text.bytes;
  for (int64_t i = left; i < missing; ++i) out += fill;
  return runtime.String(std::move(out));
}

Value JoinTexts(Runtime& runtime, std::string_view separator, const std::vector<Value>& items,
                bool converts) {
  std::string out;
  for (size_t i = 0; i < items.size(); ++i) {
    if (i > 0) {
      runtime.StepBytes(separator.size());
      out += separator;
    }
    if (!converts && !items[i].IsString()) {
      runtime.Fail("join(): item {}: expected a str, found {}", i, TypeName(items[i]));
    }
    AppendText(runtime, items[i], out);
    runtime.CheckOutput(out.size());
  }
  return runtime.String(std::move(out));
}

MethodKind FindStringMethod(std::string_view name) {
  constexpr std::array<std::string_view, 39> kKnown{
      "capitalize",   "casefold",     "center",    "count",       "endswith",   "find",
      "format",       "index",        "isalnum",   "isalpha",     "isascii",    "isdecimal",
      "isdigit",      "islower",      "isnumeric", "isprintable", "isspace",    "istitle",
      "isupper",      "join",         "ljust",     "lower",       "lstrip",     "partition",
      "removeprefix", "removesuffix", "replace",   "rfind",       "rindex",     "rjust",
      "rpartition",   "rsplit",       "rstrip",    "split",       "splitlines", "startswith",
      "strip",        "swapcase",     "title"};
  constexpr std::array<std::string_view, 2> kMore{"upper", "zfill"};
  constexpr std::array<std::string_view, 7> kUnsupported{
      "encode", "expandtabs", "format_map", "isidentifier", "maketrans", "translate", "unescape"};
  const auto in = [&](const auto& names) {
    return std::find(names.begin(), names.end(), name) != names.end();
  };
  if (in(kKnown) || in(kMore)) return MethodKind::kKnown;
  // unescape and striptags are Markup's alone, and so is what they return.
  return in(kUnsupported) && name != "unescape" ? MethodKind::kUnsupported : MethodKind::kNone;
}

Value CallStringMethod(Runtime& runtime, const Value& self, std::string_view name,
                       const Arguments& arguments) {
  const Str& text = self.AsString();
  const bool by_name =
      name == "split" || name == "rsplit" || name == "splitlines" || name == "format";
  if (!by_name && !arguments.keyword.empty()) {
    runtime.Fail("str.{}() takes no keyword arguments", name);
  }
  runtime.StepBytes(text.bytes.size());
  bool is_predicate = false;
  const bool holds = CallPredicate(text.bytes, name, is_predicate);
  if (is_predicate) {
    const Parameters none(runtime, name, arguments, {});
    return Value(holds);
  }
  if (std::find(kCases.begin(), kCases.end(), name) != kCases.end()) {
    const Parameters none(runtime, name, arguments, {});
    return runtime.String(InCase(text.bytes, name), text.is_markup);
  }
  if (name == "strip" || name == "lstrip" || name == "rstrip") {
    return Strip(runtime, text, name, arguments);
  }
  if (name == "startswith" || name == "endswith") {
    return StartsOrEnds(runtime, text, name, arguments);
  }
  if (name == "find" || name == "rfind" || name == "index" || name == "rindex" || name == "count") {
    return FindIn(runtime, text, name, arguments);
  }
  if (text.is_markup) runtime.Unsupported("the method '{}' of text marked safe", name);
  if (name == "split" || name == "rsplit") return Split(runtime, text.bytes, name, arguments);
  if (name == "splitlines") {
    const Parameters given(runtime, name, arguments, {"keepends"});
    return Texts(runtime, SplitLines(text.bytes, given.Truth(0, false)));
  }
  if (name == "replace") {
    const Parameters given(runtime, name, arguments, {"old", "new", "count"}, 2);
    return runtime.String(
        ReplaceText(runtime, text.bytes, given.String(0), given.String(1), given.Int(2, -1)));
  }
  if (name == "join") {
    const Parameters given(runtime, name, arguments, {"iterable"}, 1);
    return JoinTexts(runtime, text.bytes, Items(runtime, given[0]), false);
  }
  if (name == "format") return FormatBraces(runtime, text.bytes, arguments);
  if (name == "partition" || name == "rpartition") {
    return Partition(runtime, text.bytes, name, arguments);
  }
  if (name == "removeprefix" || name == "removesuffix") {
    return RemoveAffix(runtime, text.bytes, name, arguments);
  }
  if (name == "zfill") return ZeroFill(runtime, text, arguments);
  return Justify(runtime, text, name, arguments);
}

}  // namespace samebits::jinja
