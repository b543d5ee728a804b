// A value of a template: Python's None, bool, int (64 bits), float, str, list, tuple, dict, dict
// views, range and iterators, jinja2's Undefined and Namespace, and what can be called. Everything
// but a namespace is immutable, so a value can hold no cycle; what is mutable or refers to a scope
// lives in the Runtime, and a value only points at it.
#pragma once

#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace samebits::jinja {

class Dict;
class Value;
struct BoundMethod;
struct Iterator;
struct Loop;
struct Macro;
struct Namespace;
struct Range;
struct Seq;

struct Str {
  std::string bytes;       // valid UTF-8
  int64_t length = 0;      // characters
  bool is_markup = false;  // jinja2's Markup: made by `safe` and `escape`

  bool IsAscii() const { return length == static_cast<int64_t>(bytes.size()); }
};

// `hint` is what an error about its use says. `is_missing` marks a variable of a scope that is
// assigned later: it hides those of the same name further out.
struct Undefined {
  std::shared_ptr<const std::string> hint;
  bool is_missing = false;
};

struct None {};

// Functions of the environment: range(), namespace() and the like.
enum class Function : uint8_t { kRange, kNamespace, kDict, kRaiseException, kStrftimeNow };

enum class Type : uint8_t {
  kUndefined,
  kNone,
  kBool,
  kInt,
  kFloat,
  kString,
  kSequence,  // list, tuple or a dict's view: see Seq::kind
  kDict,
  kRange,
  kIterator,
  kNamespace,
  kLoop,
  kMacro,
  kFunction,
  kMethod,
};

class Value {
 public:
  using Storage = std::variant<Undefined, None, bool, int64_t, double, std::shared_ptr<const Str>,
                               std::shared_ptr<const Seq>, std::shared_ptr<const Dict>,
                               std::shared_ptr<const Range>, std::shared_ptr<Iterator>, Namespace*,
                               Loop*, const Macro*, Function, std::shared_ptr<const BoundMethod>>;

  Value() = default;
  template <typename T>
  explicit Value(T value) : storage_(std::move(value)) {}

  Type type() const { return static_cast<Type>(storage_.index()); }
  bool Is(Type type) const { return this->type() == type; }

  bool AsBool() const { return std::get<bool>(storage_); }
  int64_t AsInt() const { return std::get<int64_t>(storage_); }
  double AsFloat() const { return std::get<double>(storage_); }
  const Str& AsString() const { return *std::get<std::shared_ptr<const Str>>(storage_); }
  const Seq& AsSequence() const { return *std::get<std::shared_ptr<const Seq>>(storage_); }
  const Dict& AsDict() const { return *std::get<std::shared_ptr<const Dict>>(storage_); }
  const Range& AsRange() const { return *std::get<std::shared_ptr<const Range>>(storage_); }
  Iterator& AsIterator() const { return *std::get<std::shared_ptr<Iterator>>(storage_); }
  Namespace& AsNamespace() const { return *std::get<Namespace*>(storage_); }
  Loop& AsLoop() const { return *std::get<Loop*>(storage_); }
  const Macro& AsMacro() const { return *std::get<const Macro*>(storage_); }
  Function AsFunction() const { return std::get<Function>(storage_); }
  const BoundMethod& AsMethod() const {
    return *std::get<std::shared_ptr<const BoundMethod>>(storage_);
  }
  const Undefined& AsUndefined() const { return std::get<Undefined>(storage_); }

  bool IsUndefined() const { return Is(Type::kUndefined); }
  bool IsNone() const { return Is(Type::kNone); }
  bool IsString() const { return Is(Type::kString); }
  bool IsInteger() const { return Is(Type::kInt) || Is(Type::kBool); }
  bool IsNumber() const { return IsInteger() || Is(Type::kFloat); }
  bool IsMissing() const { return IsUndefined() && AsUndefined().is_missing; }
  bool IsList() const;
  bool IsTuple() const;
  // Of an int or bool.
  int64_t Integer() const { return Is(Type::kBool) ? (AsBool() ? 1 : 0) : AsInt(); }
  // Of an int, bool or float.
  double Number() const { return Is(Type::kFloat) ? AsFloat() : static_cast<double>(Integer()); }

  const Storage& storage() const { return storage_; }

 private:
  Storage storage_;
};

struct Seq {
  enum class Kind : uint8_t { kList, kTuple, kGroup, kKeys, kValues, kItems };
  Kind kind = Kind::kList;  // kGroup: the tuple of groupby, with .grouper and .list
  int depth = 1;
  std::vector<Value> items;
};

struct Range {
  int64_t start = 0, stop = 0, step = 1, length = 0;
  int64_t At(int64_t index) const { return start + index * step; }
};

// What map, select and other filters return: can be read once.
struct Iterator {
  std::vector<Value> items;
  size_t next = 0;
  int depth = 1;
};

// Keys in order of insertion; found through an ordered index, so that no choice of keys is slow.
class Dict {
 public:
  struct Entry {
    Value key, value;
  };

  Dict() : index_(Less{this}) {}
  Dict(const Dict& other);
  Dict& operator=(const Dict&) = delete;
  ~Dict() = default;

  void Set(Value key, Value value);  // the key must be hashable
  const Value* Find(const Value& key) const;
  const Value* Find(std::string_view key) const;
  const std::vector<Entry>& entries() const { return entries_; }
  int64_t size() const { return static_cast<int64_t>(entries_.size()); }

  int depth = 1;

 private:
  struct Less {
    using is_transparent = void;
    const Dict* dict;
    bool operator()(uint32_t a, uint32_t b) const;
    bool operator()(uint32_t a, const Value& b) const;
    bool operator()(const Value& a, uint32_t b) const;
  };

  static constexpr size_t kSmall = 8;  // up to here entries are compared one by one
  int64_t Position(const Value& key) const;

  std::vector<Entry> entries_;
  std::set<uint32_t, Less> index_;
};

struct Namespace {
  Dict attributes;
  bool is_printing = false;
};

struct BoundMethod {
  Value self;
  std::string name;
  int depth = 1;
};

inline bool Value::IsList() const {
  return Is(Type::kSequence) && AsSequence().kind == Seq::Kind::kList;
}
inline bool Value::IsTuple() const {
  return Is(Type::kSequence) &&
         (AsSequence().kind == Seq::Kind::kTuple || AsSequence().kind == Seq::Kind::kGroup);
}

// As Python's name of the type: "int", "dict_items".
std::string TypeName(const Value& value);

// How deep lists and dicts are nested in it: 0 for a number.
int DepthOf(const Value& value);

// Order of an integer and a number without rounding either: -1, 0, 1; 2 when one is NaN.
int CompareNumbers(const Value& a, const Value& b);

// Usable as a key of a dict, as Python's hash() says.
bool IsHashable(const Value& value);

// Python's `is`, of values that are no numbers or strings.
bool SameObject(const Value& a, const Value& b);

// Truth of a value. A Loop's is that of its length.
bool Truth(const Value& value);

// Python's repr of a float.
std::string FloatText(double value);

}  // namespace samebits::jinja
