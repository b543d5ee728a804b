#include "samebits/jinja/methods.h"

#include <algorithm>
#include <array>
#include <memory>
#include <string>

#include "samebits/jinja/loop.h"
#include "samebits/jinja/operators.h"
#include "samebits/jinja/string_methods.h"

namespace samebits::jinja {
namespace {

bool Among(std::string_view name, std::initializer_list<std::string_view> names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

Value CallDict(Runtime& runtime, const Value& self, std::string_view name,
               const Arguments& arguments) {
  const Dict& dict = self.AsDict();
  if (name == "get") {
    // dict.get takes no names.
    if (!arguments.keyword.empty()) runtime.Fail("get() takes no keyword arguments");
    const Parameters given(runtime, name, arguments, {"key", "default"}, 1);
    runtime.CheckHashable(given[0]);
    const Value* found = dict.Find(given[0]);
    return found != nullptr ? *found : given.Given(1) ? given[1] : Value(None{});
  }
  const Parameters none(runtime, name, arguments, {});
  if (name == "copy") return runtime.Wrap(std::make_shared<Dict>(dict));
  std::vector<Value> items;
  runtime.ChargeItems(dict.entries().size());
  items.reserve(dict.entries().size());
  for (const Dict::Entry& entry : dict.entries()) {
    if (name == "keys") {
      items.push_back(entry.key);
    } else if (name == "values") {
      items.push_back(entry.value);
    } else {
      items.push_back(runtime.Tuple({entry.key, entry.value}));
    }
  }
  const Seq::Kind kind = name == "keys"     ? Seq::Kind::kKeys
                         : name == "values" ? Seq::Kind::kValues
                                            : Seq::Kind::kItems;
  return runtime.Sequence(kind, std::move(items));
}

Value CallSequence(Runtime& runtime, const Value& self, std::string_view name,
                   const Arguments& arguments) {
  const auto& items = self.AsSequence().items;
  if (name == "copy") {
    const Parameters none(runtime, name, arguments, {});
    return self;
  }
  if (!arguments.keyword.empty()) runtime.Fail("{}() takes no keyword arguments", name);
  if (name == "count") {
    const Parameters given(runtime, name, arguments, {"value"}, 1);
    return Value(
        static_cast<int64_t>(std::count_if(items.begin(), items.end(), [&](const Value& item) {
          return Equal(runtime, item, given[0]);
        })));
  }
  const Parameters given(runtime, name, arguments, {"value", "start", "stop"}, 1);
  const auto size = static_cast<int64_t>(items.size());
  const auto bound = [&](size_t index, int64_t otherwise) {
    int64_t at = given.Int(index, otherwise);
    if (at < 0) at = std::max<int64_t>(0, at + size);
    return std::min(at, size);
  };
  const int64_t stop = bound(2, size);
  for (int64_t i = bound(1, 0); i < stop; ++i) {
    if (Equal(runtime, items[static_cast<size_t>(i)], given[0])) return Value(i);
  }
  runtime.Fail("{} is not in {}", Excerpt(runtime, given[0]), TypeName(self));
}

Value CallLoop(Runtime& runtime, const Value& self, std::string_view name,
               const Arguments& arguments) {
  Loop& loop = self.AsLoop();
  if (!arguments.keyword.empty()) runtime.Fail("{}() takes no keyword arguments", name);
  if (name == "cycle") {
    if (arguments.positional.empty()) runtime.Fail("no items for cycling given");
    const auto size = static_cast<int64_t>(arguments.positional.size());
    return arguments.positional[static_cast<size_t>(std::max<int64_t>(loop.index0, 0) % size)];
  }
  const std::vector<Value>& values = arguments.positional;
  bool same = loop.has_changed_value && loop.changed_value.size() == values.size();
  for (size_t i = 0; same && i < values.size(); ++i) {
    same = Equal(runtime, loop.changed_value[i], values[i]);
  }
  if (!same) loop.changed_value = values;
  loop.has_changed_value = true;
  return Value(!same);
}

}  // namespace

MethodKind FindMethod(const Value& object, std::string_view name) {
  if (name.starts_with("__") && name.ends_with("__")) {
    return Among(name, {"__class__", "__doc__", "__init__", "__len__", "__getitem__", "__dict__",
                        "__eq__", "__iter__", "__str__", "__repr__", "__contains__", "__hash__"})
               ? MethodKind::kUnsafe
               : MethodKind::kNone;
  }
  switch (object.type()) {
    case Type::kString:
      return FindStringMethod(name);
    case Type::kDict:
      if (Among(name, {"get", "keys", "values", "items", "copy"})) return MethodKind::kKnown;
      if (Among(name, {"clear", "pop", "popitem", "setdefault", "update"})) {
        return MethodKind::kUnsafe;
      }
      return name == "fromkeys" ? MethodKind::kUnsupported : MethodKind::kNone;
    case Type::kSequence:
      if (object.IsList() || object.IsTuple()) {
        if (Among(name, {"index", "count"})) return MethodKind::kKnown;
        if (object.IsTuple()) return MethodKind::kNone;
        if (name == "copy") return MethodKind::kKnown;
        return Among(name,
                     {"append", "clear", "pop", "reverse", "insert", "sort", "extend", "remove"})
                   ? MethodKind::kUnsafe
                   : MethodKind::kNone;
      }
      return Among(name, {"isdisjoint", "mapping"}) ? MethodKind::kUnsupported : MethodKind::kNone;
    case Type::kBool:
    case Type::kInt:
      return Among(name, {"real", "imag", "numerator", "denominator", "conjugate", "bit_length",
                          "bit_count", "to_bytes", "from_bytes", "as_integer_ratio"})
                 ? MethodKind::kUnsupported
                 : MethodKind::kNone;
    case Type::kFloat:
      return Among(name, {"real", "imag", "conjugate", "is_integer", "hex", "fromhex",
                          "as_integer_ratio"})
                 ? MethodKind::kUnsupported
                 : MethodKind::kNone;
    case Type::kRange:
      return Among(name, {"start", "stop", "step", "index", "count"}) ? MethodKind::kUnsupported
                                                                      : MethodKind::kNone;
    case Type::kIterator:
      return Among(name, {"send", "close", "throw"}) ? MethodKind::kUnsupported : MethodKind::kNone;
    case Type::kFunction:
      return name == "fromkeys" ? MethodKind::kUnsupported : MethodKind::kNone;
    default:
      return MethodKind::kNone;
  }
}

Value CallMethod(Runtime& runtime, const BoundMethod& method, const Arguments& arguments) {
  switch (method.self.type()) {
    case Type::kString:
      return CallStringMethod(runtime, method.self, method.name, arguments);
    case Type::kDict:
      return CallDict(runtime, method.self, method.name, arguments);
    case Type::kLoop:
      return CallLoop(runtime, method.self, method.name, arguments);
    default:
      return CallSequence(runtime, method.self, method.name, arguments);
  }
}

}  // namespace samebits::jinja
