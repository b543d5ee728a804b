// The expressions of the interpreter.
#include <algorithm>
#include <array>
#include <ctime>
#include <memory>
#include <string>

#include "samebits/jinja/filters.h"
#include "samebits/jinja/interpreter.h"
#include "samebits/jinja/methods.h"
#include "samebits/jinja/operators.h"
#include "samebits/jinja/tests.h"

namespace samebits::jinja {
namespace {

// As a call in Python: keys of ** are names, and none comes twice.
void AddKeywords(Runtime& runtime, const Value& dict, Arguments& arguments) {
  if (!dict.Is(Type::kDict)) runtime.Fail("argument after ** must be a mapping");
  for (const auto& [key, value] : dict.AsDict().entries()) {
    if (!key.IsString()) runtime.Fail("keywords must be strings");
    const std::string& name = key.AsString().bytes;
    runtime.Step(1 + static_cast<int64_t>(arguments.keyword.size() / 8));
    for (const auto& argument : arguments.keyword) {
      if (argument.first == name) runtime.Fail("the argument '{}' is given twice", name);
    }
    arguments.keyword.emplace_back(name, value);
  }
}

std::string FormatTime(Runtime& runtime, const std::string& format) {
  constexpr std::string_view kKnown = "aAbBdDeFhHIjmMpRSTuUVwWyYcxXnt%";
  for (size_t i = 0; i < format.size(); ++i) {
    if (format[i] != '%') continue;
    ++i;
    if (i < format.size() && format[i] == '-') ++i;
    if (i >= format.size() || kKnown.find(format[i]) == std::string_view::npos) {
      runtime.Unsupported("the format '{}' of strftime_now", format);
    }
  }
  if (format.empty()) return "";
  if (format.size() > 1000 || format.find('\0') != std::string::npos) {
    runtime.Unsupported("a format of strftime_now with NUL or more than 1000 bytes");
  }
  const std::tm now = runtime.environment().clock();
  std::string text(format.size() * 32 + 64, '\0');
  // The C locale: nothing here calls setlocale.
  text.resize(std::strftime(text.data(), text.size(), format.c_str(), &now));
  return text;
}

}  // namespace

Value Interpreter::Lookup(int name) {
  int64_t looked_at = 0;
  for (const Scope* scope = scope_; scope != nullptr; scope = scope->parent) {
    looked_at += static_cast<int64_t>(scope->names.size()) + 1;
    for (const auto& [number, value] : scope->names) {
      if (number != name) continue;
      runtime_.Step(looked_at / 8);
      if (!value.IsMissing()) return value;
      return Runtime::MakeUndefined(
          fmt::format("'{}' is undefined", tree_.names[static_cast<size_t>(name)]));
    }
  }
  runtime_.Step(looked_at / 8);
  const Value& value = outermost_[static_cast<size_t>(name)];
  if (!value.IsUndefined()) return value;
  const std::string& text = tree_.names[static_cast<size_t>(name)];
  if (text == "cycler" || text == "joiner" || text == "lipsum" || text == "self") {
    runtime_.Unsupported("the variable '{}'", text);
  }
  return Runtime::MakeUndefined(fmt::format("'{}' is undefined", text));
}

Value Interpreter::Evaluate(const Node* node) {
  const Runtime::Deeper deeper(runtime_);
  runtime_.Step();
  runtime_.line = node->line;
  switch (node->kind) {
    case NodeKind::kConst:
      return node->value;
    case NodeKind::kName:
      return Lookup(node->name);
    case NodeKind::kTuple:
    case NodeKind::kListOf:
      return EvaluateList(node);
    case NodeKind::kDictOf:
      return EvaluateDict(node);
    case NodeKind::kConcat:
      return EvaluateConcat(node);
    case NodeKind::kCompare:
      return EvaluateCompare(node);
    case NodeKind::kTest:
      return EvaluateTest(node);
    case NodeKind::kFilter:
      return EvaluateFilter(node);
    case NodeKind::kCall:
      return EvaluateCall(node);
    case NodeKind::kGetattr: {
      const Value object = Evaluate(node->a);
      return GetAttribute(runtime_, object, node->text);
    }
    case NodeKind::kGetitem:
      return EvaluateItem(node);
    default:
      return EvaluateOperator(node);
  }
}

Value Interpreter::EvaluateOperator(const Node* node) {
  switch (node->kind) {
    case NodeKind::kNegative:
      return Negate(runtime_, Evaluate(node->a));
    case NodeKind::kPositive:
      return Plus(runtime_, Evaluate(node->a));
    case NodeKind::kNot:
      return Value(!Truth(Evaluate(node->a)));
    case NodeKind::kAnd: {
      Value left = Evaluate(node->a);
      return Truth(left) ? Evaluate(node->b) : left;
    }
    case NodeKind::kOr: {
      Value left = Evaluate(node->a);
      return Truth(left) ? left : Evaluate(node->b);
    }
    case NodeKind::kBinary: {
      const Value left = Evaluate(node->a), right = Evaluate(node->b);
      return Calculate(runtime_, node->op, left, right);
    }
    case NodeKind::kCondition:
      if (Truth(Evaluate(node->b))) return Evaluate(node->a);
      if (node->c != nullptr) return Evaluate(node->c);
      return Runtime::MakeUndefined(
          "the inline if-expression evaluated to false and no else section was defined");
    case NodeKind::kSlice:
      // Behind a comma; Python makes a slice object, which no key of ours equals.
      runtime_.Unsupported("a slice in a tuple of subscripts");
    default:
      runtime_.Fail("a tag where an expression is expected");
  }
}

Value Interpreter::EvaluateList(const Node* node) {
  std::vector<Value> items;
  items.reserve(node->list.size());
  for (const Node* item : node->list) items.push_back(Evaluate(item));
  return node->kind == NodeKind::kTuple ? runtime_.Tuple(std::move(items))
                                        : runtime_.List(std::move(items));
}

Value Interpreter::EvaluateDict(const Node* node) {
  auto dict = std::make_shared<Dict>();
  for (size_t i = 0; i + 1 < node->list.size(); i += 2) {
    Value key = Evaluate(node->list[i]), value = Evaluate(node->list[i + 1]);
    runtime_.CheckHashable(key);
    dict->Set(std::move(key), std::move(value));
  }
  return runtime_.Wrap(std::move(dict));
}

Value Interpreter::EvaluateConcat(const Node* node) {
  std::vector<Value> parts;
  parts.reserve(node->list.size());
  for (const Node* part : node->list) parts.push_back(Evaluate(part));
  std::string text;
  for (const Value& part : parts) AppendText(runtime_, part, text);
  return runtime_.String(std::move(text));
}

Value Interpreter::EvaluateCompare(const Node* node) {
  Value left = Evaluate(node->a);
  for (size_t i = 0; i < node->list.size(); ++i) {
    Value right = Evaluate(node->list[i]);
    if (!Compare(runtime_, node->ops[i], left, right)) return Value(false);
    left = std::move(right);
  }
  return Value(true);
}

Value Interpreter::EvaluateItem(const Node* node) {
  const Value object = Evaluate(node->a);
  if (node->b->kind != NodeKind::kSlice) return GetItem(runtime_, object, Evaluate(node->b));
  const auto bound = [&](const Node* part) {
    return part == nullptr ? Value(None{}) : Evaluate(part);
  };
  const Value start = bound(node->b->a), stop = bound(node->b->b), step = bound(node->b->c);
  return GetSlice(runtime_, object, start, stop, step);
}

Arguments Interpreter::EvaluateArguments(const CallSyntax* call) {
  Arguments arguments;
  if (call == nullptr) return arguments;
  arguments.positional.reserve(call->positional.size());
  for (const Node* argument : call->positional) {
    arguments.positional.push_back(Evaluate(argument));
  }
  arguments.keyword.reserve(call->keyword.size());
  for (const auto& [name, argument] : call->keyword) {
    arguments.keyword.emplace_back(name, Evaluate(argument));
  }
  if (call->star != nullptr) {
    std::vector<Value> more = Items(runtime_, Evaluate(call->star));
    arguments.positional.insert(arguments.positional.end(), more.begin(), more.end());
  }
  if (call->double_star != nullptr) {
    AddKeywords(runtime_, Evaluate(call->double_star), arguments);
  }
  return arguments;
}

Value Interpreter::EvaluateTest(const Node* node) {
  if (node->test == nullptr) runtime_.Fail("there is no test named '{}'", node->text);
  const Value value = Evaluate(node->a);
  const Arguments arguments = EvaluateArguments(node->call.get());
  return Value(node->test->holds(runtime_, value, arguments));
}

Value Interpreter::EvaluateFilter(const Node* node) {
  if (node->filter == nullptr) runtime_.Fail("there is no filter named '{}'", node->text);
  const Value value = node->a == nullptr ? *block_text_ : Evaluate(node->a);
  const Arguments arguments = EvaluateArguments(node->call.get());
  runtime_.line = node->line;
  return node->filter->apply(runtime_, value, arguments);
}

Value Interpreter::EvaluateCall(const Node* node) {
  const Value callee = Evaluate(node->a);
  Arguments arguments = EvaluateArguments(node->call.get());
  runtime_.line = node->line;
  return Call(callee, std::move(arguments));
}

Value Interpreter::Call(const Value& callee, Arguments arguments) {
  switch (callee.type()) {
    case Type::kMacro:
      return CallMacro(callee.AsMacro(), std::move(arguments));
    case Type::kMethod:
      return CallMethod(runtime_, callee.AsMethod(), arguments);
    case Type::kFunction:
      return CallFunction(callee.AsFunction(), arguments);
    case Type::kLoop:
      return CallLoop(callee.AsLoop(), arguments);
    case Type::kUndefined:
      runtime_.UseOfUndefined(callee);
    default:
      runtime_.Fail("'{}' object is not callable", TypeName(callee));
  }
}

void Interpreter::BindParameters(const Macro& macro, Arguments arguments, Scope* scope) {
  const Node& node = *macro.node;
  const std::string name = macro.name;
  const auto take = [&](std::string_view key, Value& value) {
    const auto found = std::find_if(arguments.keyword.begin(), arguments.keyword.end(),
                                    [&](const auto& argument) { return argument.first == key; });
    if (found == arguments.keyword.end()) return false;
    value = std::move(found->second);
    arguments.keyword.erase(found);
    return true;
  };
  const size_t count = node.parameters.size(), given = arguments.positional.size();
  bool has_caller = false, own_kwargs = false, own_varargs = false;
  for (size_t i = 0; i < count; ++i) {
    const std::string& parameter = tree_.names[static_cast<size_t>(node.parameters[i])];
    has_caller = has_caller || parameter == "caller";
    own_kwargs = own_kwargs || parameter == "kwargs";
    own_varargs = own_varargs || parameter == "varargs";
    Value value(Undefined{nullptr, true});
    if (i < given) {
      value = std::move(arguments.positional[i]);
    } else {
      take(parameter, value);
    }
    SetName(scope, node.parameters[i], std::move(value));
  }
  const auto set = [&](const char* special, Value value) {
    SetName(scope, tree_.name_numbers.at(special), std::move(value));
  };
  if (node.uses_caller && !has_caller) {
    Value caller;
    if (!take("caller", caller) || caller.IsNone()) {
      caller = Runtime::MakeUndefined("No caller defined");
    }
    set("caller", std::move(caller));
  }
  if (node.uses_kwargs && !own_kwargs) {
    auto rest = std::make_shared<Dict>();
    for (auto& [key, value] : arguments.keyword) rest->Set(runtime_.String(key), std::move(value));
    set("kwargs", runtime_.Wrap(std::move(rest)));
  } else if (!arguments.keyword.empty()) {
    runtime_.Fail("macro '{}' takes no keyword argument '{}'", name, arguments.keyword[0].first);
  }
  if (node.uses_varargs && !own_varargs) {
    std::vector<Value> rest;
    for (size_t i = count; i < given; ++i) rest.push_back(std::move(arguments.positional[i]));
    set("varargs", runtime_.Tuple(std::move(rest)));
  } else if (given > count) {
    runtime_.Fail("macro '{}' takes not more than {} argument(s)", name, count);
  }
}

Value Interpreter::CallMacro(const Macro& macro, Arguments arguments) {
  const Runtime::Deeper deeper(runtime_);
  const Node& node = *macro.node;
  const int line = runtime_.line;
  Scope* outside = scope_;
  Scope* scope = Open(macro.scope, node.frame);
  BindParameters(macro, std::move(arguments), scope);
  std::string text;
  std::string* out = out_;
  scope_ = scope;
  out_ = &text;
  const size_t required = node.parameters.size() - node.list.size();
  for (size_t i = 0; i < node.parameters.size(); ++i) {
    const int name = node.parameters[i];
    const bool missing = std::any_of(
        scope->names.begin(), scope->names.end(),
        [&](const auto& entry) { return entry.first == name && entry.second.IsMissing(); });
    if (!missing) continue;
    SetName(scope, name,
            i >= required
                ? Evaluate(node.list[i - required])
                : Runtime::MakeUndefined(fmt::format("parameter '{}' was not provided",
                                                     tree_.names[static_cast<size_t>(name)])));
  }
  Execute(node.body);
  Close(scope, node.frame);
  scope_ = outside;
  out_ = out;
  runtime_.line = line;
  return runtime_.String(std::move(text));
}

Value Interpreter::CallLoop(const Loop& loop, const Arguments& arguments) {
  const Parameters given(runtime_, "loop", arguments, {"iterable"}, 1);
  if (loop.recursive == nullptr) {
    runtime_.Fail("the loop must have the 'recursive' marker to be called recursively");
  }
  const Runtime::Deeper deeper(runtime_);
  std::string text;
  std::string* out = out_;
  Scope* outside = scope_;
  out_ = &text;
  scope_ = loop.scope;
  ExecuteFor(loop.recursive, Items(runtime_, given[0]), loop.depth0 + 1);
  scope_ = outside;
  out_ = out;
  return runtime_.String(std::move(text));
}

Value Interpreter::MakeRange(const Arguments& arguments) {
  const Parameters given(runtime_, "range", arguments, {"start", "stop", "step"}, 1);
  if (!arguments.keyword.empty()) runtime_.Fail("range() takes no keyword arguments");
  Range range;
  if (given.Given(1)) {
    range.start = given.Int(0, 0);
    range.stop = given.Int(1, 0);
  } else {
    range.stop = given.Int(0, 0);
  }
  range.step = given.Int(2, 1);
  if (range.step == 0) runtime_.Fail("range() arg 3 must not be zero");
  constexpr int64_t kFar = int64_t{1} << 60;  // differences still fit
  for (const int64_t number : {range.start, range.stop, range.step}) {
    if (number < -kFar || number > kFar) runtime_.Unsupported("range() of numbers beyond 2**60");
  }
  const int64_t distance = range.step > 0 ? range.stop - range.start : range.start - range.stop;
  const int64_t size = range.step > 0 ? range.step : -range.step;
  range.length = distance <= 0 ? 0 : (distance - 1) / size + 1;
  if (range.length > kMaxRange) {
    runtime_.Fail("range too big: {} numbers, at most {} are allowed", range.length, kMaxRange);
  }
  return Value(std::make_shared<const Range>(range));
}

std::shared_ptr<Dict> Interpreter::MakeDict(const Arguments& arguments) {
  auto dict = std::make_shared<Dict>();
  if (arguments.positional.size() > 1) runtime_.Fail("dict expected at most 1 argument");
  if (!arguments.positional.empty()) {
    const Value& source = arguments.positional[0];
    if (source.Is(Type::kDict)) {
      for (const auto& [key, value] : source.AsDict().entries()) dict->Set(key, value);
    } else {
      for (const Value& item : Items(runtime_, source)) {
        const std::vector<Value> pair = Items(runtime_, item);
        if (pair.size() != 2) runtime_.Fail("dict() needs pairs");
        runtime_.CheckHashable(pair[0]);
        dict->Set(pair[0], pair[1]);
      }
    }
  }
  for (const auto& [name, value] : arguments.keyword) dict->Set(runtime_.String(name), value);
  return dict;
}

Value Interpreter::CallFunction(Function function, const Arguments& arguments) {
  switch (function) {
    case Function::kRange:
      return MakeRange(arguments);
    case Function::kDict:
      return runtime_.Wrap(MakeDict(arguments));
    case Function::kNamespace: {
      const std::shared_ptr<Dict> dict = MakeDict(arguments);
      Namespace* space = runtime_.NewNamespace();
      for (const auto& [key, value] : dict->entries()) {
        if (key.IsString() && key.AsString().bytes.starts_with('_')) {
          runtime_.Fail("a namespace can't store '{}': names that start with '_' are not safe",
                        key.AsString().bytes);
        }
        space->attributes.Set(key, value);
      }
      return Value(space);
    }
    case Function::kRaiseException: {
      const Parameters given(runtime_, "raise_exception", arguments, {"message"}, 1);
      runtime_.Fail("the template refuses this chat: {}", Text(runtime_, given[0]));
    }
    default: {
      const Parameters given(runtime_, "strftime_now", arguments, {"format"}, 1);
      return runtime_.String(FormatTime(runtime_, given.String(0)));
    }
  }
}

}  // namespace samebits::jinja
