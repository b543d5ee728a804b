#include "samebits/jinja/runtime.h"

#include <algorithm>
#include <cstddef>

#include "samebits/jinja/loop.h"
#include "samebits/jinja/macro.h"
#include "samebits/jinja/unicode.h"

namespace samebits::jinja {
namespace {

void AppendQuoted(Runtime& runtime, std::string_view text, std::string& out) {
  runtime.StepBytes(text.size());
  const bool doubled =
      text.find('\'') != std::string_view::npos && text.find('"') == std::string_view::npos;
  const char quote = doubled ? '"' : '\'';
  out.push_back(quote);
  for (size_t i = 0; i < text.size();) {
    const size_t begin = i;
    const uint32_t c = NextCharacter(text, i);
    if (c == '\n') {
      out += "\\n";
    } else if (c == '\r') {
      out += "\\r";
    } else if (c == '\t') {
      out += "\\t";
    } else if (c == '\\' || c == static_cast<uint32_t>(quote)) {
      out.push_back('\\');
      out.push_back(static_cast<char>(c));
    } else if (IsPrintable(c)) {
      out.append(text, begin, i - begin);
    } else if (c < 0x100) {
      out += fmt::format("\\x{:02x}", c);
    } else if (c < 0x10000) {
      out += fmt::format("\\u{:04x}", c);
    } else {
      out += fmt::format("\\U{:08x}", c);
    }
  }
  out.push_back(quote);
}

void AppendItems(Runtime& runtime, const std::vector<Value>& items, std::string& out) {
  for (size_t i = 0; i < items.size(); ++i) {
    if (i > 0) out += ", ";
    AppendRepr(runtime, items[i], out);
  }
}

void AppendSequence(Runtime& runtime, const Seq& seq, std::string& out) {
  switch (seq.kind) {
    case Seq::Kind::kList:
      out.push_back('[');
      AppendItems(runtime, seq.items, out);
      out.push_back(']');
      break;
    case Seq::Kind::kTuple:
    case Seq::Kind::kGroup:
      out.push_back('(');
      AppendItems(runtime, seq.items, out);
      out += seq.items.size() == 1 ? ",)" : ")";
      break;
    default:
      out += seq.kind == Seq::Kind::kKeys     ? "dict_keys(["
             : seq.kind == Seq::Kind::kValues ? "dict_values(["
                                              : "dict_items([";
      AppendItems(runtime, seq.items, out);
      out += "])";
  }
}

void AppendDict(Runtime& runtime, const Dict& dict, std::string& out) {
  out.push_back('{');
  bool first = true;
  for (const Dict::Entry& entry : dict.entries()) {
    if (!first) out += ", ";
    first = false;
    AppendRepr(runtime, entry.key, out);
    out += ": ";
    AppendRepr(runtime, entry.value, out);
  }
  out.push_back('}');
}

void AppendNamespace(Runtime& runtime, Namespace& space, std::string& out) {
  if (space.is_printing) {  // it holds itself
    out += "<Namespace {...}>";
    return;
  }
  space.is_printing = true;
  out += "<Namespace ";
  try {
    AppendDict(runtime, space.attributes, out);
  } catch (...) {
    space.is_printing = false;
    throw;
  }
  space.is_printing = false;
  out.push_back('>');
}

}  // namespace

void Runtime::Throw(ErrorCode code, const std::string& message) const {
  throw Error(code, fmt::format("{}:{}: {}", place_, line, message));
}

void Runtime::StepsExceeded() const {
  Fail("the template takes more than {} steps", limits_.steps);
}

void Runtime::TooDeep() const {
  Fail("expressions, macro calls or loops nested deeper than {}", limits_.depth);
}

void Runtime::CheckDepth(int depth) const {
  if (depth > kMaxValueDepth) Fail("lists and dicts nested deeper than {}", kMaxValueDepth);
}

void Runtime::Charge(int64_t bytes) {
  if (bytes < 0 || bytes > limits_.bytes - bytes_) {
    Fail("the template makes more than {} bytes of strings and lists", limits_.bytes);
  }
  bytes_ += bytes;
}

void Runtime::CheckOutput(size_t bytes) const {
  if (static_cast<int64_t>(bytes) > limits_.output_bytes) {
    Fail("the template writes more than {} bytes", limits_.output_bytes);
  }
}

Value Runtime::String(std::string bytes, bool is_markup) {
  CheckOutput(bytes.size());
  StepBytes(bytes.size());
  Charge(static_cast<int64_t>(bytes.size() + sizeof(Str)));
  const int64_t length = CountCharacters(bytes);
  return Value(std::make_shared<const Str>(Str{std::move(bytes), length, is_markup}));
}

Value Runtime::Character(std::string_view text, size_t& at) {
  const size_t begin = at;
  NextCharacter(text, at);
  Charge(static_cast<int64_t>(sizeof(Str)));
  return Value(std::make_shared<const Str>(Str{std::string(text.substr(begin, at - begin)), 1}));
}

Value Runtime::Sequence(Seq::Kind kind, std::vector<Value> items) {
  ChargeItems(items.size());
  Step(static_cast<int64_t>(items.size() / 8));
  int depth = 0;
  for (const Value& item : items) depth = std::max(depth, DepthOf(item));
  CheckDepth(depth + 1);
  return Value(std::make_shared<const Seq>(Seq{kind, depth + 1, std::move(items)}));
}

Value Runtime::Iterate(std::vector<Value> items) {
  ChargeItems(items.size());
  int depth = 0;
  for (const Value& item : items) depth = std::max(depth, DepthOf(item));
  CheckDepth(depth + 1);
  return Value(std::make_shared<Iterator>(Iterator{std::move(items), 0, depth + 1}));
}

Value Runtime::Wrap(std::shared_ptr<Dict> dict) {
  Charge(dict->size() * static_cast<int64_t>(2 * sizeof(Dict::Entry)));
  Step(dict->size());
  CheckDepth(dict->depth);
  return Value(std::shared_ptr<const Dict>(std::move(dict)));
}

Value Runtime::Method(const Value& self, std::string_view name) {
  CheckDepth(DepthOf(self) + 1);
  return Value(
      std::make_shared<const BoundMethod>(BoundMethod{self, std::string(name), DepthOf(self) + 1}));
}

Value Runtime::MakeUndefined(std::string hint) {
  return Value(Undefined{std::make_shared<const std::string>(std::move(hint)), false});
}

Namespace* Runtime::NewNamespace() {
  Charge(static_cast<int64_t>(2 * sizeof(Namespace)));
  return &namespaces_.emplace_back();
}

Loop* Runtime::NewLoop() {
  Charge(static_cast<int64_t>(2 * sizeof(Loop)));
  return &loops_.emplace_back();
}

void Runtime::CheckHashable(const Value& key) const {
  if (key.Is(Type::kRange) || key.Is(Type::kMethod)) {
    Unsupported("a {} as the key of a dict", TypeName(key));
  }
  if (!IsHashable(key)) Fail("unhashable type: '{}'", TypeName(key));
}

void Runtime::UseOfUndefined(const Value& value) const {
  const auto& hint = value.AsUndefined().hint;
  Fail("{}", hint == nullptr ? std::string("an undefined value is used") : *hint);
}

bool HasLength(const Value& value) {
  switch (value.type()) {
    case Type::kUndefined:
    case Type::kString:
    case Type::kSequence:
    case Type::kDict:
    case Type::kRange:
    case Type::kLoop:
      return true;
    default:
      return false;
  }
}

int64_t Length(Runtime& runtime, const Value& value) {
  switch (value.type()) {
    case Type::kUndefined:
      return 0;
    case Type::kString:
      return value.AsString().length;
    case Type::kSequence:
      return static_cast<int64_t>(value.AsSequence().items.size());
    case Type::kDict:
      return value.AsDict().size();
    case Type::kRange:
      return value.AsRange().length;
    case Type::kLoop:
      return static_cast<int64_t>(value.AsLoop().items.size());
    default:
      runtime.Fail("object of type '{}' has no len()", TypeName(value));
  }
}

bool IsIterable(const Value& value) { return (HasLength(value)) || value.Is(Type::kIterator); }

std::vector<Value> Items(Runtime& runtime, const Value& value) {
  std::vector<Value> items;
  switch (value.type()) {
    case Type::kUndefined:
      break;
    case Type::kString: {
      const Str& text = value.AsString();
      runtime.Step(text.length);
      runtime.ChargeItems(static_cast<size_t>(text.length));
      items.reserve(static_cast<size_t>(text.length));
      for (size_t i = 0; i < text.bytes.size();) items.push_back(runtime.Character(text.bytes, i));
      break;
    }
    case Type::kSequence:
      runtime.Step(static_cast<int64_t>(value.AsSequence().items.size() / 8));
      runtime.ChargeItems(value.AsSequence().items.size());
      items = value.AsSequence().items;
      break;
    case Type::kDict:
      runtime.Step(value.AsDict().size() / 8);
      runtime.ChargeItems(value.AsDict().entries().size());
      items.reserve(value.AsDict().entries().size());
      for (const Dict::Entry& entry : value.AsDict().entries()) items.push_back(entry.key);
      break;
    case Type::kRange: {
      const Range& range = value.AsRange();
      runtime.ChargeItems(static_cast<size_t>(range.length));
      items.reserve(static_cast<size_t>(range.length));
      for (int64_t i = 0; i < range.length; ++i) items.emplace_back(range.At(i));
      break;
    }
    case Type::kIterator: {
      Iterator& iterator = value.AsIterator();
      items.assign(iterator.items.begin() + static_cast<std::ptrdiff_t>(iterator.next),
                   iterator.items.end());
      iterator.next = iterator.items.size();
      break;
    }
    case Type::kLoop:
      runtime.Unsupported("iterating over the variable loop");
    default:
      runtime.Fail("'{}' object is not iterable", TypeName(value));
  }
  return items;
}

void AppendRepr(Runtime& runtime, const Value& value, std::string& out) {
  const Runtime::Deeper deeper(runtime);
  runtime.Step();
  runtime.CheckOutput(out.size());
  switch (value.type()) {
    case Type::kUndefined:
      out += "Undefined";
      break;
    case Type::kNone:
      out += "None";
      break;
    case Type::kBool:
      out += value.AsBool() ? "True" : "False";
      break;
    case Type::kInt:
      out += std::to_string(value.AsInt());
      break;
    case Type::kFloat:
      out += FloatText(value.AsFloat());
      break;
    case Type::kString:
      if (value.AsString().is_markup) out += "Markup(";
      AppendQuoted(runtime, value.AsString().bytes, out);
      if (value.AsString().is_markup) out += ")";
      break;
    case Type::kSequence:
      AppendSequence(runtime, value.AsSequence(), out);
      break;
    case Type::kDict:
      AppendDict(runtime, value.AsDict(), out);
      break;
    case Type::kRange: {
      const Range& range = value.AsRange();
      out += fmt::format("range({}, {}", range.start, range.stop);
      out += range.step == 1 ? ")" : fmt::format(", {})", range.step);
      break;
    }
    case Type::kNamespace:
      AppendNamespace(runtime, value.AsNamespace(), out);
      break;
    case Type::kLoop:
      out += fmt::format("<LoopContext {}/{}>", value.AsLoop().index0 + 1,
                         value.AsLoop().items.size());
      break;
    case Type::kMacro:
      out += "<Macro ";
      if (value.AsMacro().name.empty()) {
        out += "anonymous";
      } else {
        AppendQuoted(runtime, value.AsMacro().name, out);
      }
      out += ">";
      break;
    default:
      runtime.Unsupported("the text of a {}, which in Python is an address", TypeName(value));
  }
}

void AppendText(Runtime& runtime, const Value& value, std::string& out) {
  if (value.IsString()) {
    runtime.StepBytes(value.AsString().bytes.size());
    runtime.CheckOutput(out.size() + value.AsString().bytes.size());
    out += value.AsString().bytes;
  } else if (!value.IsUndefined()) {
    AppendRepr(runtime, value, out);
    runtime.CheckOutput(out.size());
  }
}

std::string Text(Runtime& runtime, const Value& value) {
  std::string out;
  AppendText(runtime, value, out);
  return out;
}

std::string Repr(Runtime& runtime, const Value& value) {
  std::string out;
  AppendRepr(runtime, value, out);
  return out;
}

std::string Excerpt(Runtime& runtime, const Value& value) {
  if (value.Is(Type::kIterator) || value.Is(Type::kFunction) || value.Is(Type::kMethod)) {
    return TypeName(value);
  }
  std::string text = Repr(runtime, value);
  if (text.size() > 80) {
    size_t cut = 77;
    while (cut > 0 && (static_cast<unsigned char>(text[cut]) & 0xC0) == 0x80) --cut;
    text = text.substr(0, cut) + "...";
  }
  return text;
}

}  // namespace samebits::jinja
