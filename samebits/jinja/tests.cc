#include "samebits/jinja/tests.h"

#include <algorithm>
#include <array>

#include "samebits/jinja/ast.h"
#include "samebits/jinja/filters.h"
#include "samebits/jinja/operators.h"
#include "samebits/jinja/string_methods.h"

namespace samebits::jinja {
namespace {

using Holds = bool (*)(Runtime&, const Value&, const Arguments&);

// A test without arguments.
template <bool (*kHolds)(const Value&)>
bool Plain(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Parameters none(runtime, "test", arguments, {});
  return kHolds(value);
}

template <Op kOp>
bool Comparison(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Parameters given(runtime, "test", arguments, {"other"}, 1);
  return Compare(runtime, kOp, value, given[0]);
}

bool IsRest(Runtime& runtime, const Value& value, const Value& divisor, int64_t rest) {
  return Equal(runtime, Calculate(runtime, Op::kMod, value, divisor), Value(rest));
}

bool Odd(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Parameters none(runtime, "odd", arguments, {});
  return IsRest(runtime, value, Value(int64_t{2}), 1);
}
bool Even(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Parameters none(runtime, "even", arguments, {});
  return IsRest(runtime, value, Value(int64_t{2}), 0);
}
bool DivisibleBy(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Parameters given(runtime, "divisibleby", arguments, {"num"}, 1);
  return IsRest(runtime, value, given[0], 0);
}

bool SameAs(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Parameters given(runtime, "sameas", arguments, {"other"}, 1);
  const Value& other = given[0];
  if (value.type() != other.type()) return false;
  switch (value.type()) {
    case Type::kNone:
      return true;
    case Type::kBool:
      return value.AsBool() == other.AsBool();
    case Type::kInt:
      if (value.AsInt() != other.AsInt()) return false;
      // CPython keeps one object for each of these.
      if (value.AsInt() >= -5 && value.AsInt() <= 256) return true;
      break;
    case Type::kString:
      if (value.AsString().bytes != other.AsString().bytes) return false;
      break;
    case Type::kFloat:
      if (value.AsFloat() != other.AsFloat()) return false;
      break;
    case Type::kUndefined:
    case Type::kMethod:
      break;
    default:
      return SameObject(value, other);
  }
  runtime.Unsupported("sameas of equal values of type {}", TypeName(value));
}

bool Lower(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Parameters none(runtime, "lower", arguments, {});
  bool known = false;
  return CallPredicate(Text(runtime, value), "islower", known);
}
bool Upper(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Parameters none(runtime, "upper", arguments, {});
  bool known = false;
  return CallPredicate(Text(runtime, value), "isupper", known);
}

bool IsFilterName(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Parameters none(runtime, "filter", arguments, {});
  runtime.CheckHashable(value);
  return value.IsString() && FindFilter(value.AsString().bytes) != nullptr;
}
bool IsTestName(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Parameters none(runtime, "test", arguments, {});
  runtime.CheckHashable(value);
  return value.IsString() && FindTest(value.AsString().bytes) != nullptr;
}

bool IsSequence(const Value& value) {
  switch (value.type()) {
    case Type::kUndefined:
    case Type::kString:
    case Type::kDict:
    case Type::kRange:
      return true;
    default:
      return value.IsList() || value.IsTuple();
  }
}

bool IsCallable(const Value& value) {
  switch (value.type()) {
    case Type::kUndefined:  // its class has __call__, which raises
    case Type::kLoop:
    case Type::kMacro:
    case Type::kFunction:
    case Type::kMethod:
      return true;
    default:
      return false;
  }
}

bool IsBool(const Value& value, bool wanted) {
  return value.Is(Type::kBool) && value.AsBool() == wanted;
}

constexpr std::array<TestEntry, 39> kTests{{
    {"defined", Plain<[](const Value& v) { return !v.IsUndefined(); }>},
    {"undefined", Plain<[](const Value& v) { return v.IsUndefined(); }>},
    {"none", Plain<[](const Value& v) { return v.IsNone(); }>},
    {"string", Plain<[](const Value& v) { return v.IsString(); }>},
    {"number", Plain<[](const Value& v) { return v.IsNumber(); }>},
    {"integer", Plain<[](const Value& v) { return v.Is(Type::kInt); }>},
    {"float", Plain<[](const Value& v) { return v.Is(Type::kFloat); }>},
    {"boolean", Plain<[](const Value& v) { return v.Is(Type::kBool); }>},
    {"true", Plain<[](const Value& v) { return IsBool(v, true); }>},
    {"false", Plain<[](const Value& v) { return IsBool(v, false); }>},
    {"mapping", Plain<[](const Value& v) { return v.Is(Type::kDict); }>},
    {"iterable", Plain<IsIterable>},
    {"sequence", Plain<IsSequence>},
    {"callable", Plain<IsCallable>},
    {"escaped", Plain<[](const Value& v) { return v.IsString() && v.AsString().is_markup; }>},
    {"sameas", SameAs},
    {"odd", Odd},
    {"even", Even},
    {"divisibleby", DivisibleBy},
    {"lower", Lower},
    {"upper", Upper},
    {"filter", IsFilterName},
    {"test", IsTestName},
    {"in", Comparison<Op::kIn>},
    {"==", Comparison<Op::kEqual>},
    {"eq", Comparison<Op::kEqual>},
    {"equalto", Comparison<Op::kEqual>},
    {"!=", Comparison<Op::kNotEqual>},
    {"ne", Comparison<Op::kNotEqual>},
    {">", Comparison<Op::kGreater>},
    {"gt", Comparison<Op::kGreater>},
    {"greaterthan", Comparison<Op::kGreater>},
    {">=", Comparison<Op::kGreaterEqual>},
    {"ge", Comparison<Op::kGreaterEqual>},
    {"<", Comparison<Op::kLess>},
    {"lt", Comparison<Op::kLess>},
    {"lessthan", Comparison<Op::kLess>},
    {"<=", Comparison<Op::kLessEqual>},
    {"le", Comparison<Op::kLessEqual>},
}};

}  // namespace

const TestEntry* FindTest(std::string_view name) {
  const auto* found = std::find_if(kTests.begin(), kTests.end(),
                                   [&](const TestEntry& entry) { return entry.name == name; });
  return found == kTests.end() ? nullptr : found;
}

}  // namespace samebits::jinja
