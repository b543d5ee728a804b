// What one rendering shares: limits and what is used up of them, the line for messages, the clock,
// and the objects that values point at.
#pragma once

#include <fmt/format.h>

#include <ctime>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "samebits/base/error.h"
#include "samebits/jinja/loop.h"
#include "samebits/jinja/value.h"

namespace samebits::jinja {

struct Limits {
  int64_t template_bytes = 1 << 19;
  int64_t nodes = 200'000;     // of the syntax tree
  int64_t steps = 20'000'000;  // about one for each operation and 64 bytes of text
  int64_t bytes = 1 << 30;     // of all strings and containers that are made, freed or not
  int64_t output_bytes = 1 << 26;
  int depth = 500;  // of nested evaluation, macro calls included
};

struct Environment {
  // Local time, for strftime_now.
  std::function<std::tm()> clock;
};

constexpr int kMaxValueDepth = 100;
constexpr int64_t kMaxRange = 100'000;  // jinja2's sandbox has the same

class Runtime {
 public:
  Runtime(const std::string& place, const Limits& limits, const Environment& environment)
      : place_(place), limits_(limits), environment_(environment) {}

  // Throws Error "place:line: message".
  template <typename... Args>
  [[noreturn]] void Fail(fmt::format_string<Args...> format, Args&&... args) const {
    Throw(ErrorCode::kBadInput, fmt::format(format, std::forward<Args>(args)...));
  }
  // Python would do it.
  template <typename... Args>
  [[noreturn]] void Unsupported(fmt::format_string<Args...> format, Args&&... args) const {
    Throw(ErrorCode::kUnsupported,
          "not supported: " + fmt::format(format, std::forward<Args>(args)...));
  }
  [[noreturn]] void Throw(ErrorCode code, const std::string& message) const;

  // Counts against the limits; `bytes` before they are allocated.
  void Step(int64_t steps = 1) {
    steps_ += steps;
    if (steps_ > limits_.steps) StepsExceeded();
  }
  void StepBytes(size_t bytes) { Step(1 + static_cast<int64_t>(bytes / 64)); }
  void Charge(int64_t bytes);
  void ChargeItems(size_t count) { Charge(static_cast<int64_t>(count * sizeof(Value))); }
  void CheckOutput(size_t bytes) const;
  [[noreturn]] void StepsExceeded() const;

  Value String(std::string bytes, bool is_markup = false);
  Value List(std::vector<Value> items) { return Sequence(Seq::Kind::kList, std::move(items)); }
  Value Tuple(std::vector<Value> items) { return Sequence(Seq::Kind::kTuple, std::move(items)); }
  Value Sequence(Seq::Kind kind, std::vector<Value> items);
  Value Iterate(std::vector<Value> items);
  Value Wrap(std::shared_ptr<Dict> dict);
  Value Method(const Value& self, std::string_view name);
  static Value MakeUndefined(std::string hint);
  Namespace* NewNamespace();
  Loop* NewLoop();

  // A key for a dict, or an error.
  void CheckHashable(const Value& key) const;
  // Fails with what an undefined value's use says.
  [[noreturn]] void UseOfUndefined(const Value& value) const;

  // A string as one character of `text` from byte `at` on, which is moved.
  Value Character(std::string_view text, size_t& at);

  // Nested evaluation: throws when too deep.
  class Deeper {
   public:
    explicit Deeper(Runtime& runtime) : runtime_(runtime) {
      if (++runtime_.depth_ > runtime_.limits_.depth) {
        --runtime_.depth_;
        runtime_.TooDeep();
      }
    }
    ~Deeper() { --runtime_.depth_; }
    Deeper(const Deeper&) = delete;
    Deeper& operator=(const Deeper&) = delete;

   private:
    Runtime& runtime_;
  };

  int line = 1;  // of the template, for messages
  const Environment& environment() const { return environment_; }
  const Limits& limits() const { return limits_; }

 private:
  [[noreturn]] void TooDeep() const;
  void CheckDepth(int depth) const;

  const std::string& place_;
  const Limits& limits_;
  const Environment& environment_;
  int64_t steps_ = 0, bytes_ = 0;
  int depth_ = 0;
  std::deque<Namespace> namespaces_;
  std::deque<Loop> loops_;
};

// The items that a for loop would see; an iterator is used up. Throws for what can't be iterated.
std::vector<Value> Items(Runtime& runtime, const Value& value);
bool IsIterable(const Value& value);
// Python's len(); throws for what has none.
int64_t Length(Runtime& runtime, const Value& value);
bool HasLength(const Value& value);

// Python's str() and repr(), appended.
void AppendText(Runtime& runtime, const Value& value, std::string& out);
void AppendRepr(Runtime& runtime, const Value& value, std::string& out);
std::string Text(Runtime& runtime, const Value& value);
std::string Repr(Runtime& runtime, const Value& value);

// A value in a message: its repr, cut to a readable length.
std::string Excerpt(Runtime& runtime, const Value& value);

}  // namespace samebits::jinja
