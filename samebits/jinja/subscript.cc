// Subscripts, slices and attributes.
#include <algorithm>
#include <limits>
#include <memory>
#include <string>

#include "samebits/jinja/loop.h"
#include "samebits/jinja/macro.h"
#include "samebits/jinja/methods.h"
#include "samebits/jinja/operators.h"
#include "samebits/jinja/unicode.h"

namespace samebits::jinja {
namespace {

Value NoAttribute(const Value& object, std::string_view name) {
  return Runtime::MakeUndefined(
      fmt::format("'{}' object has no attribute '{}'", TypeName(object), name));
}

Value LoopAttribute(Runtime& runtime, const Value& object, std::string_view name, bool& found) {
  const Loop& loop = object.AsLoop();
  const auto length = static_cast<int64_t>(loop.items.size());
  const auto at = static_cast<size_t>(loop.index0);
  found = true;
  if (name == "index") return Value(loop.index0 + 1);
  if (name == "index0") return Value(loop.index0);
  if (name == "revindex") return Value(length - loop.index0);
  if (name == "revindex0") return Value(length - loop.index0 - 1);
  if (name == "first") return Value(loop.index0 == 0);
  if (name == "last") return Value(loop.index0 + 1 >= length);
  if (name == "length") return Value(length);
  if (name == "depth") return Value(loop.depth0 + 1);
  if (name == "depth0") return Value(loop.depth0);
  if (name == "previtem") {
    return loop.index0 == 0 ? Runtime::MakeUndefined("there is no previous item")
                            : loop.items[at - 1];
  }
  if (name == "nextitem") {
    return loop.index0 + 1 >= length ? Runtime::MakeUndefined("there is no next item")
                                     : loop.items[at + 1];
  }
  if (name == "cycle" || name == "changed") return runtime.Method(object, name);
  found = false;
  return Value();
}

// What Python's getattr finds; `found` is false when it finds nothing.
Value PythonAttribute(Runtime& runtime, const Value& object, std::string_view name, bool& found) {
  found = true;
  switch (object.type()) {
    case Type::kNamespace: {
      const Value* value = object.AsNamespace().attributes.Find(name);
      if (value != nullptr) return *value;
      found = false;
      return Value();
    }
    case Type::kLoop:
      return LoopAttribute(runtime, object, name, found);
    case Type::kSequence:
      if (object.AsSequence().kind == Seq::Kind::kGroup) {
        if (name == "grouper") return object.AsSequence().items[0];
        if (name == "list") return object.AsSequence().items[1];
      }
      break;
    case Type::kMacro:
      if (name == "name") return runtime.String(object.AsMacro().name);
      if (name == "arguments" || name == "catch_kwargs" || name == "catch_varargs" ||
          name == "caller" || name == "explicit_caller") {
        runtime.Unsupported("the attribute '{}' of a macro", name);
      }
      found = false;
      return Value();
    default:
      break;
  }
  switch (FindMethod(object, name)) {
    case MethodKind::kKnown:
      return runtime.Method(object, name);
    case MethodKind::kUnsafe:
      return Runtime::MakeUndefined(
          fmt::format("access to attribute '{}' of '{}' object is unsafe (values can't be changed)",
                      name, TypeName(object)));
    case MethodKind::kUnsupported:
      runtime.Unsupported("the attribute '{}' of a {}", name, TypeName(object));
    default:
      found = false;
      return Value();
  }
}

// Python's object[key] without exceptions; `found` is false where it would raise TypeError or
// LookupError.
Value PythonItem(Runtime& runtime, const Value& object, const Value& key, bool& found) {
  found = true;
  int64_t length = 0;
  switch (object.type()) {
    case Type::kUndefined:
      runtime.UseOfUndefined(object);
    case Type::kDict:
      if (IsHashable(key)) {
        if (const Value* value = object.AsDict().Find(key)) return *value;
      }
      found = false;
      return Value();
    case Type::kString:
      length = object.AsString().length;
      break;
    case Type::kSequence:
      if (!object.IsList() && !object.IsTuple()) {
        found = false;
        return Value();
      }
      length = static_cast<int64_t>(object.AsSequence().items.size());
      break;
    case Type::kRange:
      length = object.AsRange().length;
      break;
    default:
      found = false;
      return Value();
  }
  if (!key.IsInteger()) {
    found = false;
    return Value();
  }
  int64_t index = key.Integer();
  if (index < 0) index += length;
  if (index < 0 || index >= length) {
    found = false;
    return Value();
  }
  if (object.Is(Type::kRange)) return Value(object.AsRange().At(index));
  if (object.Is(Type::kSequence)) return object.AsSequence().items[static_cast<size_t>(index)];
  const Str& text = object.AsString();
  if (!text.IsAscii()) runtime.StepBytes(text.bytes.size());
  size_t at = text.IsAscii() ? static_cast<size_t>(index) : ByteOfCharacter(text.bytes, index);
  return runtime.Character(text.bytes, at);
}

int64_t Bound(Runtime& runtime, const Value& value, int64_t otherwise) {
  if (value.IsNone()) return otherwise;
  if (!value.IsInteger()) {
    if (value.IsUndefined()) {
      runtime.Fail("the bounds of a slice must be integers or None, not undefined");
    }
    runtime.Fail("the bounds of a slice must be integers or None, not {}", TypeName(value));
  }
  return value.Integer();
}

// Python's slice.indices().
Range Indices(Runtime& runtime, const Value& start, const Value& stop, const Value& step,
              int64_t length) {
  Range range;
  range.step = Bound(runtime, step, 1);
  if (range.step == 0) runtime.Fail("the step of a slice is zero");
  // A longer step than any string is as good, and can not overflow.
  constexpr int64_t kFar = int64_t{1} << 40;
  range.step = std::clamp(range.step, -kFar, kFar);
  const bool backward = range.step < 0;
  const int64_t low = backward ? -1 : 0, high = backward ? length - 1 : length;
  const auto place = [&](const Value& value, int64_t otherwise) {
    if (value.IsNone()) return otherwise;
    int64_t index = std::clamp(Bound(runtime, value, 0), -kFar, kFar);
    if (index < 0) index += length;
    return std::clamp(index, low, high);
  };
  range.start = place(start, backward ? high : low);
  range.stop = place(stop, backward ? low : high);
  const int64_t distance = backward ? range.start - range.stop : range.stop - range.start;
  const int64_t size = backward ? -range.step : range.step;
  range.length = distance <= 0 ? 0 : (distance - 1) / size + 1;
  return range;
}

Value SliceText(Runtime& runtime, const Str& text, const Range& range) {
  if (range.length == 0) return runtime.String("", text.is_markup);
  runtime.StepBytes(text.bytes.size());
  if (range.step == 1) {
    const auto first = ByteOfCharacter(text.bytes, range.start);
    const auto last =
        first + ByteOfCharacter(std::string_view(text.bytes).substr(first), range.length);
    return runtime.String(text.bytes.substr(first, last - first), text.is_markup);
  }
  runtime.Step(text.length);
  std::vector<size_t> places;
  places.reserve(static_cast<size_t>(text.length));
  for (size_t i = 0; i < text.bytes.size();) {
    places.push_back(i);
    NextCharacter(text.bytes, i);
  }
  std::string out;
  for (int64_t i = 0; i < range.length; ++i) {
    size_t at = places[static_cast<size_t>(range.At(i))];
    const size_t begin = at;
    NextCharacter(text.bytes, at);
    out.append(text.bytes, begin, at - begin);
  }
  return runtime.String(std::move(out), text.is_markup);
}

}  // namespace

Value GetAttribute(Runtime& runtime, const Value& object, std::string_view name) {
  // What every object of Python has, an undefined one has too.
  const bool is_undefined = object.IsUndefined();
  if (is_undefined && FindMethod(object, name) != MethodKind::kUnsafe) {
    runtime.UseOfUndefined(object);
  }
  bool found = false;
  Value value = PythonAttribute(runtime, object, name, found);
  if (found) return value;
  if (object.Is(Type::kDict)) {
    if (const Value* item = object.AsDict().Find(name)) return *item;
  }
  return NoAttribute(object, name);
}

Value GetItem(Runtime& runtime, const Value& object, const Value& key) {
  bool found = false;
  Value value = PythonItem(runtime, object, key, found);
  if (found) return value;
  if (key.IsString()) {
    value = PythonAttribute(runtime, object, key.AsString().bytes, found);
    if (found) return value;
    return NoAttribute(object, key.AsString().bytes);
  }
  return Runtime::MakeUndefined(
      fmt::format("{} object has no element {}", TypeName(object), Excerpt(runtime, key)));
}

Value GetSlice(Runtime& runtime, const Value& object, const Value& start, const Value& stop,
               const Value& step) {
  switch (object.type()) {
    case Type::kUndefined:
      runtime.UseOfUndefined(object);
    case Type::kString:
      return SliceText(runtime, object.AsString(),
                       Indices(runtime, start, stop, step, object.AsString().length));
    case Type::kRange: {
      const Range& whole = object.AsRange();
      const Range part = Indices(runtime, start, stop, step, whole.length);
      Range result;
      result.start = whole.At(part.start);
      result.stop = whole.At(part.stop);
      if (__builtin_mul_overflow(whole.step, part.step, &result.step)) {
        runtime.Unsupported("integers beyond 64 bits");
      }
      result.length = part.length;
      return Value(std::make_shared<const Range>(result));
    }
    default:
      break;
  }
  if (!object.IsList() && !object.IsTuple()) {
    // For a constant jinja2's optimizer makes Undefined of the error.
    runtime.Unsupported("a slice of a {}", TypeName(object));
  }
  const auto& items = object.AsSequence().items;
  const Range range = Indices(runtime, start, stop, step, static_cast<int64_t>(items.size()));
  runtime.ChargeItems(static_cast<size_t>(range.length));
  std::vector<Value> part;
  part.reserve(static_cast<size_t>(range.length));
  for (int64_t i = 0; i < range.length; ++i) {
    part.push_back(items[static_cast<size_t>(range.At(i))]);
  }
  return object.IsList() ? runtime.List(std::move(part)) : runtime.Tuple(std::move(part));
}

}  // namespace samebits::jinja
