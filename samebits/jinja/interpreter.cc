#include "samebits/jinja/interpreter.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "samebits/jinja/operators.h"
#include "samebits/jinja/restore.h"

namespace samebits::jinja {
namespace {

struct Global {
  std::string_view name;
  Function function;
};
constexpr std::array<Global, 5> kGlobals{{{"range", Function::kRange},
                                          {"namespace", Function::kNamespace},
                                          {"dict", Function::kDict},
                                          {"raise_exception", Function::kRaiseException},
                                          {"strftime_now", Function::kStrftimeNow}}};

}  // namespace

Interpreter::Interpreter(const Tree& tree, Runtime& runtime, const Dict& variables)
    : tree_(tree), runtime_(runtime) {
  outermost_.reserve(tree.names.size());
  for (const std::string& name : tree.names) {
    if (const Value* given = variables.Find(name)) {
      outermost_.push_back(*given);
      continue;
    }
    const auto* global = std::find_if(kGlobals.begin(), kGlobals.end(),
                                      [&](const Global& entry) { return entry.name == name; });
    outermost_.push_back(global == kGlobals.end() ? Value() : Value(global->function));
  }
}

std::string Interpreter::Run() {
  std::string out;
  out_ = &out;
  scope_ = Open(nullptr, tree_.frame);
  Execute(tree_.body);
  return out;
}

Scope* Interpreter::Open(Scope* parent, const Frame& frame) {
  Scope* scope = nullptr;
  if (free_scopes_.empty()) {
    runtime_.Charge(2 * sizeof(Scope));
    scope = &scopes_.emplace_back();
  } else {
    scope = free_scopes_.back();
    free_scopes_.pop_back();
  }
  scope->parent = parent;
  for (const int name : frame.missing) {
    scope->names.emplace_back(name, Value(Undefined{nullptr, true}));
  }
  runtime_.Step(static_cast<int64_t>(frame.missing.size()));
  return scope;
}

void Interpreter::Close(Scope* scope, const Frame& frame) {
  if (frame.has_closure) return;
  scope->names.clear();
  free_scopes_.push_back(scope);
}

void Interpreter::SetName(Scope* scope, int name, Value value) {
  const auto found = std::find_if(scope->names.begin(), scope->names.end(),
                                  [&](const auto& entry) { return entry.first == name; });
  if (found != scope->names.end()) {
    found->second = std::move(value);
  } else {
    scope->names.emplace_back(name, std::move(value));
  }
}

Interpreter::Control Interpreter::Execute(const std::vector<Node*>& body) {
  for (const Node* node : body) {
    if (const Control control = ExecuteOne(node); control != Control::kNext) return control;
  }
  return Control::kNext;
}

Interpreter::Control Interpreter::ExecuteOne(const Node* node) {
  const Runtime::Deeper deeper(runtime_);
  runtime_.Step();
  runtime_.line = node->line;
  switch (node->kind) {
    case NodeKind::kData:
      runtime_.StepBytes(node->text.size());
      *out_ += node->text;
      runtime_.CheckOutput(out_->size());
      return Control::kNext;
    case NodeKind::kOutput:
      for (const Node* expression : node->list) {
        AppendText(runtime_, Evaluate(expression), *out_);
      }
      return Control::kNext;
    case NodeKind::kIf:
      return ExecuteIf(node);
    case NodeKind::kFor:
      return ExecuteFor(node, Items(runtime_, Evaluate(node->b)), 0);
    case NodeKind::kSet:
      ExecuteSet(node);
      return Control::kNext;
    case NodeKind::kSetBlock:
      ExecuteSetBlock(node);
      return Control::kNext;
    case NodeKind::kMacro:
      SetName(scope_, node->name, Value(NewMacro(node)));
      return Control::kNext;
    case NodeKind::kCallBlock:
      ExecuteCallBlock(node);
      return Control::kNext;
    case NodeKind::kFilterBlock:
      ExecuteFilterBlock(node);
      return Control::kNext;
    case NodeKind::kWith:
      return ExecuteWith(node);
    case NodeKind::kGeneration: {
      const Restore<Scope*> scope(scope_, Open(scope_, node->frame));
      Execute(node->body);
      Close(scope_, node->frame);
      return Control::kNext;
    }
    case NodeKind::kBreak:
      return Control::kBreak;
    case NodeKind::kContinue:
      return Control::kContinue;
    default:
      runtime_.Fail("an expression where a tag is expected");
  }
}

Interpreter::Control Interpreter::ExecuteIf(const Node* node) {
  for (size_t i = 0; i < node->list.size(); ++i) {
    if (Truth(Evaluate(node->list[i]))) return Execute(node->branches[i]);
  }
  return Execute(node->other);
}

bool Interpreter::PassesCondition(const Node* node, const Value& item) {
  const Restore<Scope*> scope(scope_, Open(scope_, node->test_frame));
  Assign(node->a, item);
  const bool passes = Truth(Evaluate(node->c));
  Close(scope_, node->test_frame);
  return passes;
}

Interpreter::Control Interpreter::ExecuteFor(const Node* node, const std::vector<Value>& items,
                                             int64_t depth0) {
  Loop* loop = nullptr;
  if (node->uses_loop) {
    loop = runtime_.NewLoop();
    loop->depth0 = depth0;
    loop->scope = scope_;
    if (node->recursive) loop->recursive = node;
    loop->items.reserve(items.size());
    for (const Value& item : items) {
      // Here all at once, since loop.length counts those that pass.
      if (node->c == nullptr || PassesCondition(node, item)) loop->items.push_back(item);
    }
  }
  const size_t count = loop == nullptr ? items.size() : loop->items.size();
  const int loop_name = tree_.name_numbers.at("loop");
  bool any = false;
  Control control = Control::kNext;
  for (size_t i = 0; i < count && control != Control::kBreak; ++i) {
    runtime_.Step();
    const Value& item = loop == nullptr ? items[i] : loop->items[i];
    if (loop == nullptr && node->c != nullptr && !PassesCondition(node, item)) continue;
    any = true;
    const Restore<Scope*> scope(scope_, Open(scope_, node->frame));
    if (loop != nullptr) {
      loop->index0 = static_cast<int64_t>(i);
      SetName(scope_, loop_name, Value(loop));
    }
    Assign(node->a, item);
    control = Execute(node->body);
    Close(scope_, node->frame);
  }
  if (!any && !node->other.empty()) {
    const Restore<Scope*> scope(scope_, Open(scope_, node->other_frame));
    control = Execute(node->other);
    Close(scope_, node->other_frame);
    return control;
  }
  return Control::kNext;
}

void Interpreter::Unpack(const Node* target, const Value& value) {
  const std::vector<Value> items = Items(runtime_, value);
  if (items.size() != target->list.size()) {
    runtime_.Fail("{} values to unpack, expected {}", items.size(), target->list.size());
  }
  for (size_t i = 0; i < items.size(); ++i) Assign(target->list[i], items[i]);
}

void Interpreter::Assign(const Node* target, const Value& value) {
  runtime_.Step(1 + static_cast<int64_t>(scope_->names.size() / 8));
  if (target->kind == NodeKind::kTuple) {
    Unpack(target, value);
    return;
  }
  if (target->kind == NodeKind::kName) {
    SetName(scope_, target->name, value);
    return;
  }
  const Value space = Lookup(target->name);
  if (!space.Is(Type::kNamespace)) {
    runtime_.Fail("cannot assign attribute on non-namespace object");
  }
  if (target->text.starts_with('_')) {
    runtime_.Fail("a namespace can't store '{}': names that start with '_' are not safe",
                  target->text);
  }
  space.AsNamespace().attributes.Set(runtime_.String(target->text), value);
}

void Interpreter::ExecuteSet(const Node* node) { Assign(node->a, Evaluate(node->b)); }

std::string Interpreter::Capture(const std::vector<Node*>& body) {
  std::string text;
  const Restore<std::string*> out(out_, &text);
  Execute(body);
  return text;
}

void Interpreter::ExecuteSetBlock(const Node* node) {
  Value text;
  {
    const Restore<Scope*> scope(scope_, Open(scope_, node->frame));
    text = runtime_.String(Capture(node->body));
    if (node->b != nullptr) {
      const Restore<const Value*> block(block_text_, &text);
      text = Evaluate(node->b);
    }
    Close(scope_, node->frame);
  }
  Assign(node->a, text);
}

void Interpreter::ExecuteFilterBlock(const Node* node) {
  const Restore<Scope*> scope(scope_, Open(scope_, node->frame));
  const Value text = runtime_.String(Capture(node->body));
  const Restore<const Value*> block(block_text_, &text);
  AppendText(runtime_, Evaluate(node->a), *out_);
  Close(scope_, node->frame);
}

void Interpreter::ExecuteCallBlock(const Node* node) {
  const Value callee = Evaluate(node->a->a);
  Arguments arguments = EvaluateArguments(node->a->call.get());
  for (const auto& argument : arguments.keyword) {
    if (argument.first == "caller") runtime_.Fail("the argument 'caller' is given twice");
  }
  arguments.keyword.emplace_back("caller", Value(NewMacro(node)));
  AppendText(runtime_, Call(callee, std::move(arguments)), *out_);
}

Interpreter::Control Interpreter::ExecuteWith(const Node* node) {
  std::vector<Value> values;
  values.reserve(node->list.size() / 2);
  for (size_t i = 1; i < node->list.size(); i += 2) values.push_back(Evaluate(node->list[i]));
  const Restore<Scope*> scope(scope_, Open(scope_, node->frame));
  for (size_t i = 0; i < values.size(); ++i) Assign(node->list[2 * i], values[i]);
  const Control control = Execute(node->body);
  Close(scope_, node->frame);
  return control;
}

const Macro* Interpreter::NewMacro(const Node* node) {
  runtime_.Charge(2 * sizeof(Macro));
  return &macros_.emplace_back(Macro{node, scope_, node->text});
}

}  // namespace samebits::jinja
