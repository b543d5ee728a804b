#include "samebits/jinja/value.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <compare>
#include <cstddef>
#include <cstdlib>

#include "samebits/jinja/loop.h"

namespace samebits::jinja {
namespace {

int Rank(const Value& key) {
  switch (key.type()) {
    case Type::kBool:
    case Type::kInt:
    case Type::kFloat:
      return 0;
    case Type::kString:
      return 1;
    case Type::kNone:
      return 2;
    case Type::kSequence:
      return 3;
    default:
      return 4 + static_cast<int>(key.type());
  }
}

const void* Address(const Value& key) {
  switch (key.type()) {
    case Type::kNamespace:
      return &key.AsNamespace();
    case Type::kLoop:
      return &key.AsLoop();
    case Type::kMacro:
      return &key.AsMacro();
    case Type::kIterator:
      return &key.AsIterator();
    default:
      return nullptr;
  }
}

// A total order in which Python's equal keys are equal.
int CompareKeys(const Value& a, const Value& b) {
  const int rank = Rank(a);
  if (const int other = Rank(b); rank != other) return rank < other ? -1 : 1;
  if (rank == 0) {
    const bool nan_a = a.Is(Type::kFloat) && std::isnan(a.AsFloat());
    const bool nan_b = b.Is(Type::kFloat) && std::isnan(b.AsFloat());
    if (nan_a || nan_b) return static_cast<int>(nan_a) - static_cast<int>(nan_b);
    return CompareNumbers(a, b);
  }
  if (rank == 1) return a.AsString().bytes.compare(b.AsString().bytes);
  if (rank == 3) {
    const auto &x = a.AsSequence().items, &y = b.AsSequence().items;
    for (size_t i = 0; i < std::min(x.size(), y.size()); ++i) {
      if (const int order = CompareKeys(x[i], y[i]); order != 0) return order;
    }
    return x.size() == y.size() ? 0 : x.size() < y.size() ? -1 : 1;
  }
  if (a.Is(Type::kFunction)) {
    return static_cast<int>(a.AsFunction()) - static_cast<int>(b.AsFunction());
  }
  const auto order = std::compare_three_way()(Address(a), Address(b));
  return order < 0 ? -1 : order > 0 ? 1 : 0;
}

}  // namespace

bool Dict::Less::operator()(uint32_t a, uint32_t b) const {
  return CompareKeys(dict->entries_[a].key, dict->entries_[b].key) < 0;
}
bool Dict::Less::operator()(uint32_t a, const Value& b) const {
  return CompareKeys(dict->entries_[a].key, b) < 0;
}
bool Dict::Less::operator()(const Value& a, uint32_t b) const {
  return CompareKeys(a, dict->entries_[b].key) < 0;
}

Dict::Dict(const Dict& other) : depth(other.depth), index_(Less{this}) {
  for (const Entry& entry : other.entries_) Set(entry.key, entry.value);
}

int64_t Dict::Position(const Value& key) const {
  if (entries_.size() <= kSmall) {
    for (size_t i = 0; i < entries_.size(); ++i) {
      if (CompareKeys(entries_[i].key, key) == 0) return static_cast<int64_t>(i);
    }
    return -1;
  }
  const auto found = index_.find(key);
  return found == index_.end() ? -1 : static_cast<int64_t>(*found);
}

void Dict::Set(Value key, Value value) {
  depth = std::max({depth, DepthOf(key) + 1, DepthOf(value) + 1});
  if (const int64_t at = Position(key); at >= 0) {
    entries_[static_cast<size_t>(at)].value = std::move(value);
    return;
  }
  entries_.push_back({std::move(key), std::move(value)});
  if (entries_.size() == kSmall + 1) {
    for (uint32_t i = 0; i <= kSmall; ++i) index_.insert(i);
  } else if (entries_.size() > kSmall) {
    index_.insert(static_cast<uint32_t>(entries_.size() - 1));
  }
}

const Value* Dict::Find(const Value& key) const {
  const int64_t at = Position(key);
  return at < 0 ? nullptr : &entries_[static_cast<size_t>(at)].value;
}

const Value* Dict::Find(std::string_view key) const {
  if (entries_.size() <= kSmall) {
    for (const Entry& entry : entries_) {
      if (entry.key.IsString() && entry.key.AsString().bytes == key) return &entry.value;
    }
    return nullptr;
  }
  return Find(Value(std::make_shared<const Str>(Str{std::string(key), 0, false})));
}

std::string TypeName(const Value& value) {
  static constexpr std::array<const char*, 15> kNames{
      "Undefined", "NoneType",    "bool",  "int",      "float",
      "str",       "list",        "dict",  "range",    "generator",
      "Namespace", "LoopContext", "Macro", "function", "builtin_function_or_method"};
  if (value.Is(Type::kSequence)) {
    static constexpr std::array<const char*, 6> kKinds{"list",      "tuple",       "tuple",
                                                       "dict_keys", "dict_values", "dict_items"};
    return kKinds.at(static_cast<size_t>(value.AsSequence().kind));
  }
  if (value.IsString() && value.AsString().is_markup) return "Markup";
  return kNames.at(static_cast<size_t>(value.type()));
}

int DepthOf(const Value& value) {
  switch (value.type()) {
    case Type::kSequence:
      return value.AsSequence().depth;
    case Type::kDict:
      return value.AsDict().depth;
    case Type::kIterator:
      return value.AsIterator().depth;
    case Type::kMethod:
      return value.AsMethod().depth;
    default:
      return 0;
  }
}

int CompareNumbers(const Value& a, const Value& b) {
  if (a.IsInteger() && b.IsInteger()) {
    const int64_t x = a.Integer(), y = b.Integer();
    return x < y ? -1 : x > y ? 1 : 0;
  }
  // 64 bits of mantissa hold any int64 and any double.
  static_assert(__LDBL_MANT_DIG__ >= 64, "int64 and double must both fit");
  const auto wide = [](const Value& v) {
    return v.Is(Type::kFloat) ? static_cast<long double>(v.AsFloat())
                              : static_cast<long double>(v.Integer());
  };
  const long double x = wide(a), y = wide(b);
  return x < y ? -1 : x > y ? 1 : x == y ? 0 : 2;
}

bool IsHashable(const Value& value) {
  switch (value.type()) {
    case Type::kSequence: {
      const Seq& seq = value.AsSequence();
      if (!value.IsTuple()) return false;
      return std::all_of(seq.items.begin(), seq.items.end(), IsHashable);
    }
    case Type::kDict:
    case Type::kRange:   // is in Python; as a key not done here
    case Type::kMethod:  // likewise
      return false;
    default:
      return true;
  }
}

bool SameObject(const Value& a, const Value& b) {
  if (a.type() != b.type()) return false;
  switch (a.type()) {
    case Type::kSequence:
      return &a.AsSequence() == &b.AsSequence();
    case Type::kDict:
      return &a.AsDict() == &b.AsDict();
    case Type::kRange:
      return &a.AsRange() == &b.AsRange();
    case Type::kFunction:
      return a.AsFunction() == b.AsFunction();
    default:
      return Address(a) == Address(b);
  }
}

bool Truth(const Value& value) {
  switch (value.type()) {
    case Type::kUndefined:
    case Type::kNone:
      return false;
    case Type::kBool:
      return value.AsBool();
    case Type::kInt:
      return value.AsInt() != 0;
    case Type::kFloat:
      return value.AsFloat() != 0;
    case Type::kString:
      return !value.AsString().bytes.empty();
    case Type::kSequence:
      return !value.AsSequence().items.empty();
    case Type::kDict:
      return value.AsDict().size() != 0;
    case Type::kRange:
      return value.AsRange().length != 0;
    case Type::kLoop:
      return !value.AsLoop().items.empty();
    default:
      return true;
  }
}

std::string FloatText(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  std::array<char, 40> buffer{};
  // The shortest digits that give the same value: d.ddde[+-]xx
  const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value,
                                 std::chars_format::scientific)
                       .ptr;
  const std::string_view text(buffer.data(), static_cast<size_t>(end - buffer.data()));
  const size_t e = text.find('e');
  std::string digits;
  std::string result;
  for (const char c : text.substr(0, e)) {
    if (c == '-') {
      result.push_back('-');
    } else if (c != '.') {
      digits.push_back(c);
    }
  }
  const int exponent = std::atoi(std::string(text.substr(e + 1)).c_str());
  const auto count = static_cast<int>(digits.size());
  if (exponent < -4 || exponent >= 16) {
    result += digits.substr(0, 1);
    if (count > 1) result.append(1, '.').append(digits, 1);
    result += exponent < 0 ? "e-" : "e+";
    const std::string number = std::to_string(std::abs(exponent));
    if (number.size() < 2) result.push_back('0');
    return result + number;
  }
  if (exponent < 0) {
    return result + "0." + std::string(static_cast<size_t>(-exponent - 1), '0') + digits;
  }
  if (count <= exponent + 1) {
    return result + digits + std::string(static_cast<size_t>(exponent + 1 - count), '0') + ".0";
  }
  const size_t point = static_cast<size_t>(exponent) + 1;
  return result + digits.substr(0, point) + "." + digits.substr(point);
}

}  // namespace samebits::jinja
