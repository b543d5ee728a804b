// Walks the tree of a template.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <utility>
#include <vector>

#include "samebits/jinja/arguments.h"
#include "samebits/jinja/ast.h"
#include "samebits/jinja/loop.h"
#include "samebits/jinja/macro.h"
#include "samebits/jinja/runtime.h"

namespace samebits::jinja {

struct Scope {
  Scope* parent = nullptr;
  std::vector<std::pair<int, Value>> names;
};

class Interpreter {
 public:
  Interpreter(const Tree& tree, Runtime& runtime, const Dict& variables);
  std::string Run();

 private:
  enum class Control : uint8_t { kNext, kBreak, kContinue };

  // Expressions: expressions.cc.
  Value Evaluate(const Node* node);
  Value EvaluateOperator(const Node* node);
  Value EvaluateList(const Node* node);
  Value EvaluateDict(const Node* node);
  Value EvaluateConcat(const Node* node);
  Value EvaluateCompare(const Node* node);
  Value EvaluateItem(const Node* node);
  Value EvaluateTest(const Node* node);
  Value EvaluateFilter(const Node* node);
  Value EvaluateCall(const Node* node);
  Value Lookup(int name);
  Arguments EvaluateArguments(const CallSyntax* call);
  Value Call(const Value& callee, Arguments arguments);
  Value CallMacro(const Macro& macro, Arguments arguments);
  Value CallFunction(Function function, const Arguments& arguments);
  Value CallLoop(const Loop& loop, const Arguments& arguments);
  Value MakeRange(const Arguments& arguments);
  std::shared_ptr<Dict> MakeDict(const Arguments& arguments);
  void BindParameters(const Macro& macro, Arguments arguments, Scope* scope);

  // Statements: interpreter.cc.
  Control Execute(const std::vector<Node*>& body);
  Control ExecuteOne(const Node* node);
  Control ExecuteIf(const Node* node);
  Control ExecuteFor(const Node* node, const std::vector<Value>& items, int64_t depth0);
  bool PassesCondition(const Node* node, const Value& item);
  void ExecuteSet(const Node* node);
  void ExecuteSetBlock(const Node* node);
  void ExecuteCallBlock(const Node* node);
  void ExecuteFilterBlock(const Node* node);
  Control ExecuteWith(const Node* node);
  std::string Capture(const std::vector<Node*>& body);
  void Assign(const Node* target, const Value& value);
  void Unpack(const Node* target, const Value& value);
  const Macro* NewMacro(const Node* node);

  // Opens a scope inside `parent`, and gives it back.
  Scope* Open(Scope* parent, const Frame& frame);
  void Close(Scope* scope, const Frame& frame);
  static void SetName(Scope* scope, int name, Value value);

  const Tree& tree_;
  Runtime& runtime_;
  std::vector<Value> outermost_;  // variables and functions, by number of the name
  std::deque<Scope> scopes_;
  std::vector<Scope*> free_scopes_;
  std::deque<Macro> macros_;
  Scope* scope_ = nullptr;
  std::string* out_ = nullptr;
  const Value* block_text_ = nullptr;  // what a filter without operand works on
};

}  // namespace samebits::jinja
