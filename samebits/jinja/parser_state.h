// The parser's class: expressions are in expression_parser.cc, statements in parser.cc.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "samebits/jinja/ast.h"
#include "samebits/jinja/lexer.h"
#include "samebits/jinja/runtime.h"

namespace samebits::jinja {

class Parser {
 public:
  Parser(std::vector<TokenText> tokens, Tree& tree, const std::string& place, const Limits& limits)
      : tokens_(std::move(tokens)), tree_(tree), place_(place), limits_(limits) {}

  void ParseAll();

 private:
  enum class Stop : uint8_t { kNothing, kIn, kRecursive };

  // Tokens.
  const TokenText& Now() const { return tokens_[at_]; }
  const TokenText& Ahead() const { return tokens_[at_ + 1 < tokens_.size() ? at_ + 1 : at_]; }
  void Next() {
    if (at_ + 1 < tokens_.size()) ++at_;
  }
  bool IsOperator(std::string_view text) const {
    return Now().type == Token::kOperator && Now().text == text;
  }
  bool IsName(std::string_view text) const {
    return Now().type == Token::kName && Now().text == text;
  }
  bool SkipOperator(std::string_view text);
  bool SkipName(std::string_view text);
  void ExpectOperator(std::string_view text);
  void ExpectName(std::string_view text);
  std::string ExpectAnyName(std::string_view what);
  void Expect(Token type, std::string_view what);
  std::string Describe() const;

  template <typename... Args>
  [[noreturn]] void Fail(fmt::format_string<Args...> format, Args&&... args) const {
    Throw(ErrorCode::kBadInput, fmt::format(format, std::forward<Args>(args)...));
  }
  [[noreturn]] void Throw(ErrorCode code, const std::string& message) const;

  // Nodes.
  Node* New(NodeKind kind);
  Node* Constant(Value value);
  Node* Child(Node* parent, Node* child);  // raises the parent's height, gives the child
  Node* Binary(NodeKind kind, Op op, Node* a, Node* b);
  int NameNumber(const std::string& name);
  static Value StringValue(std::string text);

  // Expressions.
  Node* Expression(bool with_condition = true);
  Node* Conditions(Node* node);
  void CheckNames(const Node& node) const;
  void Soften(size_t first);  // all nodes made since
  Node* Or();
  Node* And();
  Node* Not();
  Node* Compare();
  Node* Sum();
  Node* Concat();
  Node* Product();
  Node* Power();
  Node* Unary(bool with_filter = true);
  Node* Primary(bool with_namespace = false);
  Node* TupleOrExpression(bool with_condition, Stop stop = Stop::kNothing,
                          bool in_parentheses = false);
  Node* ListLiteral();
  Node* DictLiteral();
  Node* Postfix(Node* node);
  Node* FilterExpression(Node* node);
  Node* Subscript(Node* node);
  Node* Subscribed();
  Node* Call(Node* node);
  void CallArguments(Node* node);
  Node* FilterChain(Node* node, bool starts_inside = false);
  Node* Test(Node* node);
  bool EndsTuple(Stop stop) const;
  std::string DottedName(std::string_view what);
  void LoadName(const std::string& name);

  // Statements.
  using Words = std::initializer_list<std::string_view>;
  void Body(std::vector<Node*>& body, Words ends);
  void BlockBody(Node* owner, std::vector<Node*>& body, Words ends);
  void Statement(std::vector<Node*>& body);
  Node* For();
  Node* If();
  Node* Set();
  Node* With();
  Node* Macro();
  Node* CallBlock();
  Node* FilterBlock();
  Node* Generation();
  Node* Print();
  Node* LoopControl();
  void Signature(Node* node);
  Node* Target(bool with_namespace, Stop stop = Stop::kNothing);
  void CheckTarget(const Node* target) const;
  void MacroBody(Node* node, Words ends);

  const std::vector<TokenText> tokens_;
  Tree& tree_;
  const std::string& place_;
  const Limits& limits_;
  size_t at_ = 0;
  int depth_ = 0;
  int expressions_ = 0;         // around this place
  bool soft_ = false;           // a filter that does not exist is an error only when it is reached
  int loops_ = 0;               // around this place, and inside the same macro
  bool in_block_text_ = false;  // between such a loop and here is a set or filter block
  std::vector<Node*> macros_;   // around this place
  std::vector<Node*> fors_;
};

}  // namespace samebits::jinja
