#include "samebits/jinja/operators.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <numeric>
#include <string>

#include "samebits/base/html.h"
#include "samebits/jinja/format.h"
#include "samebits/jinja/unicode.h"

namespace samebits::jinja {
namespace {

constexpr std::string_view Symbol(Op op) {
  constexpr std::string_view kSymbols[] = {
      "+", "-", "*", "/", "//", "%", "**", "==", "!=", "<", "<=", ">", ">=", "in", "not in"};
  return kSymbols[static_cast<size_t>(op)];
}

[[noreturn]] void BadOperands(Runtime& runtime, Op op, const Value& a, const Value& b) {
  if (a.IsUndefined()) runtime.UseOfUndefined(a);
  if (b.IsUndefined()) runtime.UseOfUndefined(b);
  runtime.Fail("operator '{}' can't be used on {} and {}", Symbol(op), TypeName(a), TypeName(b));
}

[[noreturn]] void Overflow(Runtime& runtime, Op op) {
  runtime.Unsupported("integers beyond 64 bits (result of '{}')", Symbol(op));
}

int64_t FloorDivide(int64_t a, int64_t b) {
  const int64_t quotient = a / b;
  return a % b != 0 && (a % b < 0) != (b < 0) ? quotient - 1 : quotient;
}

int64_t Modulo(int64_t a, int64_t b) {
  const int64_t rest = a % b;
  return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
}

Value IntegerPower(Runtime& runtime, int64_t base, int64_t exponent) {
  if (exponent < 0) {
    if (base == 0) runtime.Fail("0 can not be raised to a negative power");
    return Value(std::pow(static_cast<double>(base), static_cast<double>(exponent)));
  }
  int64_t result = 1;
  if (base == 0 || base == 1) return Value(exponent == 0 ? int64_t{1} : base);
  if (base == -1) return Value(exponent % 2 == 0 ? int64_t{1} : int64_t{-1});
  for (int64_t i = 0; i < exponent; ++i) {
    if (__builtin_mul_overflow(result, base, &result)) Overflow(runtime, Op::kPow);
  }
  return Value(result);
}

Value CalculateIntegers(Runtime& runtime, Op op, int64_t a, int64_t b) {
  int64_t result = 0;
  switch (op) {
    case Op::kAdd:
      if (__builtin_add_overflow(a, b, &result)) Overflow(runtime, op);
      return Value(result);
    case Op::kSub:
      if (__builtin_sub_overflow(a, b, &result)) Overflow(runtime, op);
      return Value(result);
    case Op::kMul:
      if (__builtin_mul_overflow(a, b, &result)) Overflow(runtime, op);
      return Value(result);
    case Op::kPow:
      return IntegerPower(runtime, a, b);
    default:
      break;
  }
  if (b == 0) runtime.Fail("division by zero");
  if (op == Op::kDiv) {
    constexpr int64_t kExact = int64_t{1} << 53;
    if (a < -kExact || a > kExact || b < -kExact || b > kExact) {
      runtime.Unsupported("division of integers beyond 2**53");
    }
    return Value(static_cast<double>(a) / static_cast<double>(b));
  }
  if (a == std::numeric_limits<int64_t>::min() && b == -1) {
    if (op == Op::kMod) return Value(int64_t{0});
    Overflow(runtime, op);
  }
  return Value(op == Op::kFloorDiv ? FloorDivide(a, b) : Modulo(a, b));
}

// Python's divmod of floats.
Value FloatDivide(Runtime& runtime, Op op, double a, double b) {
  if (b == 0) runtime.Fail("float division by zero");
  double rest = std::fmod(a, b);
  double quotient = (a - rest) / b;
  if (rest != 0) {
    if ((b < 0) != (rest < 0)) {
      rest += b;
      quotient -= 1.0;
    }
  } else {
    rest = std::copysign(0.0, b);
  }
  if (op == Op::kMod) return Value(rest);
  double floored = 0;
  if (quotient != 0) {
    floored = std::floor(quotient);
    if (quotient - floored > 0.5) floored += 1.0;
  } else {
    floored = std::copysign(0.0, a / b);
  }
  return Value(floored);
}

Value CalculateFloats(Runtime& runtime, Op op, double a, double b) {
  switch (op) {
    case Op::kAdd:
      return Value(a + b);
    case Op::kSub:
      return Value(a - b);
    case Op::kMul:
      return Value(a * b);
    case Op::kDiv:
      if (b == 0) runtime.Fail("float division by zero");
      return Value(a / b);
    case Op::kPow: {
      if (a == 0 && b < 0) runtime.Fail("0.0 can not be raised to a negative power");
      if (a < 0 && std::isfinite(a) && std::isfinite(b) && std::floor(b) != b) {
        runtime.Unsupported("complex numbers");
      }
      const double result = std::pow(a, b);
      if (std::isinf(result) && std::isfinite(a) && std::isfinite(b)) {
        runtime.Fail("result of '**' is too large");
      }
      return Value(result);
    }
    default:
      return FloatDivide(runtime, op, a, b);
  }
}

Value Repeat(Runtime& runtime, const Value& value, int64_t count) {
  count = std::max<int64_t>(count, 0);
  if (value.IsString()) {
    const Str& text = value.AsString();
    CheckTextSize(runtime, count, static_cast<int64_t>(text.bytes.size()));
    std::string bytes;
    bytes.reserve(text.bytes.size() * static_cast<size_t>(count));
    for (int64_t i = 0; i < count && !text.bytes.empty(); ++i) bytes += text.bytes;
    return runtime.String(std::move(bytes), text.is_markup);
  }
  const Seq& seq = value.AsSequence();
  if (seq.items.empty() || count == 0) return runtime.Sequence(seq.kind, {});
  const auto size = static_cast<int64_t>(seq.items.size());
  if (count > runtime.limits().bytes / size) {
    runtime.Fail("a list of {} times {} elements is too long", count, size);
  }
  runtime.ChargeItems(static_cast<size_t>(count * size));
  runtime.Step(count * size / 8);
  std::vector<Value> items;
  items.reserve(static_cast<size_t>(count * size));
  for (int64_t i = 0; i < count; ++i) items.insert(items.end(), seq.items.begin(), seq.items.end());
  return runtime.Sequence(seq.kind == Seq::Kind::kGroup ? Seq::Kind::kTuple : seq.kind,
                          std::move(items));
}

Value Add(Runtime& runtime, const Value& a, const Value& b) {
  if (a.IsString() && b.IsString()) {
    const Str &x = a.AsString(), &y = b.AsString();
    const bool markup = x.is_markup || y.is_markup;
    runtime.CheckOutput(x.bytes.size() + y.bytes.size());
    std::string bytes;
    bytes.reserve(x.bytes.size() + y.bytes.size());
    bytes += markup && !x.is_markup ? EscapeHtml(x.bytes) : x.bytes;
    bytes += markup && !y.is_markup ? EscapeHtml(y.bytes) : y.bytes;
    return runtime.String(std::move(bytes), markup);
  }
  if ((a.IsList() && b.IsList()) || (a.IsTuple() && b.IsTuple())) {
    const auto &x = a.AsSequence().items, &y = b.AsSequence().items;
    runtime.ChargeItems(x.size() + y.size());
    std::vector<Value> items;
    items.reserve(x.size() + y.size());
    items.insert(items.end(), x.begin(), x.end());
    items.insert(items.end(), y.begin(), y.end());
    return a.IsList() ? runtime.List(std::move(items)) : runtime.Tuple(std::move(items));
  }
  BadOperands(runtime, Op::kAdd, a, b);
}

bool EqualDicts(Runtime& runtime, const Dict& a, const Dict& b) {
  if (a.size() != b.size()) return false;
  for (const Dict::Entry& entry : a.entries()) {
    const Value* other = b.Find(entry.key);
    if (other == nullptr || !Equal(runtime, entry.value, *other)) return false;
  }
  return true;
}

bool EqualSequences(Runtime& runtime, const Value& a, const Value& b) {
  const bool same = (a.IsList() && b.IsList()) || (a.IsTuple() && b.IsTuple());
  if (!same) {
    const auto is_set = [](const Value& v) { return !v.IsList() && !v.IsTuple(); };
    if (is_set(a) && is_set(b)) runtime.Unsupported("comparing the views of dicts");
    return false;
  }
  const auto &x = a.AsSequence().items, &y = b.AsSequence().items;
  if (x.size() != y.size()) return false;
  for (size_t i = 0; i < x.size(); ++i) {
    if (!Equal(runtime, x[i], y[i])) return false;
  }
  return true;
}

}  // namespace

void CheckTextSize(const Runtime& runtime, int64_t count, int64_t size) {
  const int64_t limit = runtime.limits().output_bytes;
  if (size > 0 && count > limit / size) {
    runtime.Fail("a string of {} times {} bytes is longer than {}", count, size, limit);
  }
}

Value Calculate(Runtime& runtime, Op op, const Value& a, const Value& b) {
  if (a.IsNumber() && b.IsNumber()) {
    if (a.IsInteger() && b.IsInteger()) {
      return CalculateIntegers(runtime, op, a.Integer(), b.Integer());
    }
    return CalculateFloats(runtime, op, a.Number(), b.Number());
  }
  if (op == Op::kMod && a.IsString()) return FormatPercent(runtime, a, b);
  if (a.IsUndefined() || b.IsUndefined()) BadOperands(runtime, op, a, b);
  if (op == Op::kAdd) return Add(runtime, a, b);
  const auto repeats = [](const Value& v) { return v.IsString() || v.IsList() || v.IsTuple(); };
  if (op == Op::kMul && repeats(a) && b.IsInteger()) return Repeat(runtime, a, b.Integer());
  if (op == Op::kMul && repeats(b) && a.IsInteger()) return Repeat(runtime, b, a.Integer());
  const auto is_view = [](const Value& v) {
    return v.Is(Type::kSequence) && !v.IsList() && !v.IsTuple();
  };
  if (is_view(a) && op == Op::kSub) runtime.Unsupported("sets");
  BadOperands(runtime, op, a, b);
}

Value Negate(Runtime& runtime, const Value& a) {
  if (a.Is(Type::kFloat)) return Value(-a.AsFloat());
  if (!a.IsInteger()) {
    if (a.IsUndefined()) runtime.UseOfUndefined(a);
    runtime.Fail("unary '-' can't be used on {}", TypeName(a));
  }
  if (a.Integer() == std::numeric_limits<int64_t>::min()) Overflow(runtime, Op::kSub);
  return Value(-a.Integer());
}

Value Plus(Runtime& runtime, const Value& a) {
  if (a.Is(Type::kFloat)) return a;
  if (a.IsInteger()) return Value(a.Integer());
  if (a.IsUndefined()) runtime.UseOfUndefined(a);
  runtime.Fail("unary '+' can't be used on {}", TypeName(a));
}

bool Equal(Runtime& runtime, const Value& a, const Value& b) {
  runtime.Step();
  if (a.IsNumber() && b.IsNumber()) return CompareNumbers(a, b) == 0;
  if (a.type() != b.type()) return false;
  switch (a.type()) {
    case Type::kUndefined:
    case Type::kNone:
      return true;
    case Type::kString:
      runtime.StepBytes(std::min(a.AsString().bytes.size(), b.AsString().bytes.size()));
      return a.AsString().bytes == b.AsString().bytes;
    case Type::kSequence:
      return EqualSequences(runtime, a, b);
    case Type::kDict:
      return EqualDicts(runtime, a.AsDict(), b.AsDict());
    case Type::kRange: {
      const Range &x = a.AsRange(), &y = b.AsRange();
      if (x.length != y.length) return false;
      return x.length == 0 || (x.start == y.start && (x.length == 1 || x.step == y.step));
    }
    case Type::kMethod:
      runtime.Unsupported("comparing methods");
    default:
      return SameObject(a, b);
  }
}

bool Less(Runtime& runtime, const Value& a, const Value& b) {
  runtime.Step();
  if (a.IsNumber() && b.IsNumber()) return CompareNumbers(a, b) == -1;
  if (a.IsString() && b.IsString()) {
    runtime.StepBytes(std::min(a.AsString().bytes.size(), b.AsString().bytes.size()));
    // UTF-8 sorts like the characters that it encodes.
    return a.AsString().bytes < b.AsString().bytes;
  }
  if ((a.IsList() && b.IsList()) || (a.IsTuple() && b.IsTuple())) {
    const auto &x = a.AsSequence().items, &y = b.AsSequence().items;
    for (size_t i = 0; i < std::min(x.size(), y.size()); ++i) {
      if (!Equal(runtime, x[i], y[i])) return Less(runtime, x[i], y[i]);
    }
    return x.size() < y.size();
  }
  const auto is_view = [](const Value& v) {
    return v.Is(Type::kSequence) && !v.IsList() && !v.IsTuple();
  };
  if (is_view(a) && is_view(b)) runtime.Unsupported("comparing the views of dicts");
  BadOperands(runtime, Op::kLess, a, b);
}

bool Contains(Runtime& runtime, const Value& item, const Value& container) {
  switch (container.type()) {
    case Type::kString: {
      if (!item.IsString()) {
        runtime.Fail("'in <string>' needs a str on the left, found {}", TypeName(item));
      }
      const std::string &text = container.AsString().bytes, &part = item.AsString().bytes;
      runtime.StepBytes(text.size());
      return memmem(text.data(), text.size(), part.data(), part.size()) != nullptr;
    }
    case Type::kDict:
      runtime.CheckHashable(item);
      return container.AsDict().Find(item) != nullptr;
    case Type::kIterator: {
      Iterator& iterator = container.AsIterator();
      while (iterator.next < iterator.items.size()) {
        if (Equal(runtime, iterator.items[iterator.next++], item)) return true;
      }
      return false;
    }
    case Type::kSequence: {
      const auto& items = container.AsSequence().items;
      return std::any_of(items.begin(), items.end(),
                         [&](const Value& other) { return Equal(runtime, other, item); });
    }
    default: {
      const std::vector<Value> items = Items(runtime, container);
      return std::any_of(items.begin(), items.end(),
                         [&](const Value& other) { return Equal(runtime, other, item); });
    }
  }
}

bool Compare(Runtime& runtime, Op op, const Value& a, const Value& b) {
  const bool numbers = a.IsNumber() && b.IsNumber();
  switch (op) {
    case Op::kEqual:
      return Equal(runtime, a, b);
    case Op::kNotEqual:
      return !Equal(runtime, a, b);
    case Op::kLess:
      return Less(runtime, a, b);
    case Op::kGreater:
      return Less(runtime, b, a);
    case Op::kLessEqual:
      if (numbers) return CompareNumbers(a, b) == -1 || CompareNumbers(a, b) == 0;
      return !Less(runtime, b, a);
    case Op::kGreaterEqual:
      if (numbers) return CompareNumbers(b, a) == -1 || CompareNumbers(b, a) == 0;
      return !Less(runtime, a, b);
    case Op::kIn:
      return Contains(runtime, a, b);
    default:
      return !Contains(runtime, a, b);
  }
}

std::vector<Value> SortBy(Runtime& runtime, std::vector<Value> items, std::vector<Value> keys,
                          bool reverse) {
  std::vector<size_t> order(items.size());
  std::iota(order.begin(), order.end(), size_t{0});
  // Python reverses before and after, so that equal elements keep their order.
  if (reverse) std::reverse(order.begin(), order.end());
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return Less(runtime, keys[a], keys[b]); });
  if (reverse) std::reverse(order.begin(), order.end());
  std::vector<Value> sorted;
  sorted.reserve(items.size());
  for (const size_t index : order) sorted.push_back(items[index]);
  return sorted;
}

}  // namespace samebits::jinja
