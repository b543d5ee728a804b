#include <algorithm>
#include <array>
#include <memory>

#include "samebits/jinja/filters.h"
#include "samebits/jinja/parser_state.h"
#include "samebits/jinja/tests.h"

namespace samebits::jinja {
namespace {

// As deep as brackets and prefixes may nest.
constexpr int kMaxNesting = 600;  // each pair of brackets counts three times

class Deeper {
 public:
  explicit Deeper(int& depth) : depth_(depth) { ++depth_; }
  ~Deeper() { --depth_; }
  Deeper(const Deeper&) = delete;
  Deeper& operator=(const Deeper&) = delete;

 private:
  int& depth_;
};

}  // namespace

Node* Parser::Binary(NodeKind kind, Op op, Node* a, Node* b) {
  Node* node = New(kind);
  node->op = op;
  node->a = Child(node, a);
  node->b = Child(node, b);
  return node;
}

Node* Parser::Expression(bool with_condition) {
  const Deeper deeper(depth_);
  if (depth_ > kMaxNesting) Fail("expressions nested deeper than {}", kMaxNesting);
  // Filters and tests that do not exist are found by the outermost expression, since only what
  // follows shows that they stand in a conditional one: there they fail when they are reached.
  const size_t first = tree_.nodes.size();
  ++expressions_;
  Node* node = Or();
  if (with_condition && IsName("if")) {
    node = Conditions(node);
    Soften(first);
  }
  if (--expressions_ == 0) {
    for (size_t i = first; i < tree_.nodes.size(); ++i) CheckNames(tree_.nodes[i]);
  }
  return node;
}

Node* Parser::Conditions(Node* node) {
  while (SkipName("if")) {
    Node* condition = New(NodeKind::kCondition);
    condition->a = Child(condition, node);
    condition->b = Child(condition, Or());
    if (SkipName("else")) condition->c = Child(condition, Expression());
    node = condition;
  }
  return node;
}

void Parser::CheckNames(const Node& node) const {
  if (node.soft) return;
  if (node.kind == NodeKind::kFilter && node.filter == nullptr) {
    Fail("there is no filter named '{}'", node.text);
  }
  if (node.kind == NodeKind::kTest && node.test == nullptr) {
    Fail("there is no test named '{}'", node.text);
  }
}

void Parser::Soften(size_t first) {
  for (size_t i = first; i < tree_.nodes.size(); ++i) tree_.nodes[i].soft = true;
}

Node* Parser::Or() {
  Node* left = And();
  while (SkipName("or")) {
    const size_t first = tree_.nodes.size();
    Node* right = And();
    if (left->known_truth == 1) Soften(first);
    const int known = left->known_truth == 0 ? right->known_truth : left->known_truth;
    left = Binary(NodeKind::kOr, Op::kAdd, left, right);
    left->known_truth = known;
  }
  return left;
}

Node* Parser::And() {
  Node* left = Not();
  while (SkipName("and")) {
    const size_t first = tree_.nodes.size();
    Node* right = Not();
    if (left->known_truth == 0) Soften(first);
    const int known = left->known_truth == 1 ? right->known_truth : left->known_truth;
    left = Binary(NodeKind::kAnd, Op::kAdd, left, right);
    left->known_truth = known;
  }
  return left;
}

Node* Parser::Not() {
  const Deeper deeper(depth_);
  if (depth_ > kMaxNesting) Fail("expressions nested deeper than {}", kMaxNesting);
  if (!SkipName("not")) return Compare();
  Node* node = New(NodeKind::kNot);
  node->a = Child(node, Not());
  if (node->a->known_truth >= 0) node->known_truth = 1 - node->a->known_truth;
  return node;
}

Node* Parser::Compare() {
  struct Entry {
    std::string_view text;
    Op op;
  };
  constexpr std::array<Entry, 6> kOperators{{{"==", Op::kEqual},
                                             {"!=", Op::kNotEqual},
                                             {"<", Op::kLess},
                                             {"<=", Op::kLessEqual},
                                             {">", Op::kGreater},
                                             {">=", Op::kGreaterEqual}}};
  Node* left = Sum();
  Node* node = nullptr;
  for (;;) {
    Op op = Op::kIn;
    const auto* found = std::find_if(kOperators.begin(), kOperators.end(),
                                     [&](const Entry& entry) { return IsOperator(entry.text); });
    if (found != kOperators.end()) {
      op = found->op;
      Next();
    } else if (IsName("not") && Ahead().type == Token::kName && Ahead().text == "in") {
      op = Op::kNotIn;
      Next();
      Next();
    } else if (!SkipName("in")) {
      return node == nullptr ? left : node;
    }
    if (node == nullptr) {
      node = New(NodeKind::kCompare);
      node->a = Child(node, left);
    }
    node->ops.push_back(op);
    node->list.push_back(Child(node, Sum()));
  }
}

Node* Parser::Sum() {
  Node* left = Concat();
  for (;;) {
    if (SkipOperator("+")) {
      left = Binary(NodeKind::kBinary, Op::kAdd, left, Concat());
    } else if (SkipOperator("-")) {
      left = Binary(NodeKind::kBinary, Op::kSub, left, Concat());
    } else {
      return left;
    }
  }
}

Node* Parser::Concat() {
  Node* first = Product();
  if (!IsOperator("~")) return first;
  Node* node = New(NodeKind::kConcat);
  node->list.push_back(Child(node, first));
  while (SkipOperator("~")) node->list.push_back(Child(node, Product()));
  return node;
}

Node* Parser::Product() {
  Node* left = Power();
  for (;;) {
    if (SkipOperator("*")) {
      left = Binary(NodeKind::kBinary, Op::kMul, left, Power());
    } else if (SkipOperator("/")) {
      left = Binary(NodeKind::kBinary, Op::kDiv, left, Power());
    } else if (SkipOperator("//")) {
      left = Binary(NodeKind::kBinary, Op::kFloorDiv, left, Power());
    } else if (SkipOperator("%")) {
      left = Binary(NodeKind::kBinary, Op::kMod, left, Power());
    } else {
      return left;
    }
  }
}

Node* Parser::Power() {
  Node* left = Unary();
  while (SkipOperator("**")) left = Binary(NodeKind::kBinary, Op::kPow, left, Unary());
  return left;
}

Node* Parser::Unary(bool with_filter) {
  const Deeper deeper(depth_);
  if (depth_ > kMaxNesting) Fail("expressions nested deeper than {}", kMaxNesting);
  Node* node = nullptr;
  if (IsOperator("-") || IsOperator("+")) {
    node = New(IsOperator("-") ? NodeKind::kNegative : NodeKind::kPositive);
    Next();
    node->a = Child(node, Unary(false));
  } else {
    node = Primary();
  }
  node = Postfix(node);
  return with_filter ? FilterExpression(node) : node;
}

void Parser::LoadName(const std::string& name) {
  if (name == "loop") {
    for (Node* loop : fors_) loop->uses_loop = true;
  }
  for (Node* macro : macros_) {
    if (name == "caller") macro->uses_caller = true;
    if (name == "varargs") macro->uses_varargs = true;
    if (name == "kwargs") macro->uses_kwargs = true;
  }
}

Node* Parser::Primary(bool with_namespace) {
  const TokenText& token = Now();
  switch (token.type) {
    case Token::kName: {
      Next();
      if (token.text == "true" || token.text == "True") return Constant(Value(true));
      if (token.text == "false" || token.text == "False") return Constant(Value(false));
      if (token.text == "none" || token.text == "None") return Constant(Value(None{}));
      Node* node = New(NodeKind::kName);
      node->name = NameNumber(token.text);
      LoadName(token.text);
      if (with_namespace && SkipOperator(".")) {
        node->kind = NodeKind::kNamespaceRef;
        node->text = ExpectAnyName("the name of an attribute");
      }
      return node;
    }
    case Token::kString: {
      std::string text;
      for (; Now().type == Token::kString; Next()) text += Now().text;
      return Constant(StringValue(std::move(text)));
    }
    case Token::kInteger:
      Next();
      return Constant(Value(token.integer));
    case Token::kFloat:
      Next();
      return Constant(Value(token.number));
    default:
      break;
  }
  if (SkipOperator("(")) {
    Node* node = TupleOrExpression(true, Stop::kNothing, true);
    ExpectOperator(")");
    return node;
  }
  if (IsOperator("[")) return ListLiteral();
  if (IsOperator("{")) return DictLiteral();
  Fail("unexpected {}", Describe());
}

bool Parser::EndsTuple(Stop stop) const {
  if (Now().type == Token::kVariableEnd || Now().type == Token::kBlockEnd || IsOperator(")")) {
    return true;
  }
  return (stop == Stop::kIn && IsName("in")) || (stop == Stop::kRecursive && IsName("recursive"));
}

Node* Parser::TupleOrExpression(bool with_condition, Stop stop, bool in_parentheses) {
  std::vector<Node*> items;
  bool is_tuple = false;
  for (;;) {
    if (!items.empty()) ExpectOperator(",");
    if (EndsTuple(stop)) break;
    items.push_back(Expression(with_condition));
    if (!IsOperator(",")) break;
    is_tuple = true;
  }
  if (!is_tuple) {
    if (!items.empty()) return items[0];
    if (!in_parentheses) Fail("expected an expression, found {}", Describe());
  }
  Node* node = New(NodeKind::kTuple);
  for (Node* item : items) node->list.push_back(Child(node, item));
  return node;
}

Node* Parser::ListLiteral() {
  Node* node = New(NodeKind::kListOf);
  ExpectOperator("[");
  while (!IsOperator("]")) {
    if (!node->list.empty()) ExpectOperator(",");
    if (IsOperator("]")) break;
    node->list.push_back(Child(node, Expression()));
  }
  ExpectOperator("]");
  return node;
}

Node* Parser::DictLiteral() {
  Node* node = New(NodeKind::kDictOf);
  ExpectOperator("{");
  while (!IsOperator("}")) {
    if (!node->list.empty()) ExpectOperator(",");
    if (IsOperator("}")) break;
    node->list.push_back(Child(node, Expression()));
    ExpectOperator(":");
    node->list.push_back(Child(node, Expression()));
  }
  ExpectOperator("}");
  return node;
}

Node* Parser::Postfix(Node* node) {
  for (;;) {
    if (IsOperator(".") || IsOperator("[")) {
      node = Subscript(node);
    } else if (IsOperator("(")) {
      node = Call(node);
    } else {
      return node;
    }
  }
}

Node* Parser::FilterExpression(Node* node) {
  for (;;) {
    if (IsOperator("|")) {
      node = FilterChain(node);
    } else if (IsName("is")) {
      node = Test(node);
    } else if (IsOperator("(")) {
      node = Call(node);
    } else {
      return node;
    }
  }
}

Node* Parser::Subscript(Node* node) {
  if (SkipOperator(".")) {
    if (Now().type == Token::kName) {
      Node* result = New(NodeKind::kGetattr);
      result->text = Now().text;
      result->a = Child(result, node);
      Next();
      return result;
    }
    if (Now().type != Token::kInteger) Fail("expected a name or a number, found {}", Describe());
    Node* index = Constant(Value(Now().integer));
    Next();
    return Binary(NodeKind::kGetitem, Op::kAdd, node, index);
  }
  ExpectOperator("[");
  std::vector<Node*> arguments;
  while (!IsOperator("]")) {
    if (!arguments.empty()) ExpectOperator(",");
    arguments.push_back(Subscribed());
  }
  ExpectOperator("]");
  if (arguments.size() == 1) return Binary(NodeKind::kGetitem, Op::kAdd, node, arguments[0]);
  Node* tuple = New(NodeKind::kTuple);
  for (Node* argument : arguments) tuple->list.push_back(Child(tuple, argument));
  return Binary(NodeKind::kGetitem, Op::kAdd, node, tuple);
}

Node* Parser::Subscribed() {
  Node* first = nullptr;
  if (!IsOperator(":")) {
    first = Expression();
    if (!IsOperator(":")) return first;
  }
  ExpectOperator(":");
  Node* slice = New(NodeKind::kSlice);
  if (first != nullptr) slice->a = Child(slice, first);
  const auto ends = [&] { return IsOperator("]") || IsOperator(","); };
  if (!IsOperator(":") && !ends()) slice->b = Child(slice, Expression());
  if (SkipOperator(":") && !ends()) slice->c = Child(slice, Expression());
  return slice;
}

Node* Parser::Call(Node* node) {
  Node* call = New(NodeKind::kCall);
  call->a = Child(call, node);
  CallArguments(call);
  return call;
}

void Parser::CallArguments(Node* node) {
  node->call = std::make_unique<CallSyntax>();
  CallSyntax& call = *node->call;
  ExpectOperator("(");
  bool needs_comma = false;
  const auto ensure = [&](bool holds) {
    if (!holds) Fail("arguments of a call in a wrong order");
  };
  while (!IsOperator(")")) {
    if (needs_comma) {
      ExpectOperator(",");
      if (IsOperator(")")) break;
    }
    needs_comma = true;
    if (SkipOperator("*")) {
      ensure(call.star == nullptr && call.double_star == nullptr);
      call.star = Child(node, Expression());
    } else if (SkipOperator("**")) {
      ensure(call.double_star == nullptr);
      call.double_star = Child(node, Expression());
    } else if (Now().type == Token::kName && Ahead().type == Token::kOperator &&
               Ahead().text == "=") {
      ensure(call.double_star == nullptr);
      std::string name = Now().text;
      const bool repeated =
          std::any_of(call.keyword.begin(), call.keyword.end(),
                      [&](const auto& argument) { return argument.first == name; });
      if (repeated) Fail("the argument '{}' is given twice", name);
      if (call.keyword.size() > 200) Fail("a call with more than 200 named arguments");
      Next();
      Next();
      call.keyword.emplace_back(std::move(name), Child(node, Expression()));
    } else {
      ensure(call.star == nullptr && call.double_star == nullptr && call.keyword.empty());
      call.positional.push_back(Child(node, Expression()));
    }
  }
  ExpectOperator(")");
}

std::string Parser::DottedName(std::string_view what) {
  std::string name = ExpectAnyName(what);
  while (SkipOperator(".")) {
    name.push_back('.');
    name += ExpectAnyName(what);
  }
  return name;
}

Node* Parser::FilterChain(Node* node, bool starts_inside) {
  while (starts_inside || IsOperator("|")) {
    if (!starts_inside) Next();
    starts_inside = false;
    Node* filter = New(NodeKind::kFilter);
    if (node != nullptr) filter->a = Child(filter, node);
    filter->text = DottedName("the name of a filter");
    filter->filter = FindFilter(filter->text);
    if (IsOperator("(")) CallArguments(filter);
    if (expressions_ == 0) CheckNames(*filter);
    node = filter;
  }
  return node;
}

Node* Parser::Test(Node* node) {
  ExpectName("is");
  const bool negated = SkipName("not");
  Node* test = New(NodeKind::kTest);
  test->a = Child(test, node);
  test->text = DottedName("the name of a test");
  test->test = FindTest(test->text);
  const Token type = Now().type;
  if (IsOperator("(")) {
    CallArguments(test);
  } else if ((type == Token::kName && !IsName("else") && !IsName("or") && !IsName("and")) ||
             type == Token::kString || type == Token::kInteger || type == Token::kFloat ||
             IsOperator("[") || IsOperator("{")) {
    if (IsName("is")) Fail("tests can not be chained with 'is'");
    test->call = std::make_unique<CallSyntax>();
    test->call->positional.push_back(Child(test, Postfix(Primary())));
  }
  if (!negated) return test;
  Node* result = New(NodeKind::kNot);
  result->a = Child(result, test);
  return result;
}

}  // namespace samebits::jinja
