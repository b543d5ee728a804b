#include "samebits/jinja/parser.h"

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "samebits/jinja/lexer.h"
#include "samebits/jinja/parser_state.h"
#include "samebits/jinja/restore.h"
#include "samebits/jinja/scopes.h"
#include "samebits/jinja/unicode.h"

namespace samebits::jinja {
namespace {

constexpr int kMaxHeight = 250;  // of the tree
constexpr int kMaxBlocks = 100;  // statements inside statements
constexpr size_t kMaxParameters = 200;

}  // namespace

void Parser::Throw(ErrorCode code, const std::string& message) const {
  throw Error(code, fmt::format("{}:{}: {}", place_, Now().line, message));
}

std::string Parser::Describe() const {
  switch (Now().type) {
    case Token::kData:
      return "text";
    case Token::kBlockBegin:
      return "'{%'";
    case Token::kBlockEnd:
      return "'%}'";
    case Token::kVariableBegin:
      return "'{{'";
    case Token::kVariableEnd:
      return "'}}'";
    case Token::kString:
      return "a string";
    case Token::kEnd:
      return "the end of the template";
    default:
      return "'" + Now().text + "'";
  }
}

bool Parser::SkipOperator(std::string_view text) {
  if (!IsOperator(text)) return false;
  Next();
  return true;
}
bool Parser::SkipName(std::string_view text) {
  if (!IsName(text)) return false;
  Next();
  return true;
}
void Parser::ExpectOperator(std::string_view text) {
  if (!SkipOperator(text)) Fail("expected '{}', found {}", text, Describe());
}
void Parser::ExpectName(std::string_view text) {
  if (!SkipName(text)) Fail("expected '{}', found {}", text, Describe());
}
std::string Parser::ExpectAnyName(std::string_view what) {
  if (Now().type != Token::kName) Fail("expected {}, found {}", what, Describe());
  std::string name = Now().text;
  Next();
  return name;
}
void Parser::Expect(Token type, std::string_view what) {
  if (Now().type != type) Fail("expected {}, found {}", what, Describe());
  Next();
}

Node* Parser::New(NodeKind kind) {
  if (static_cast<int64_t>(tree_.nodes.size()) >= limits_.nodes) {
    Fail("a template of more than {} operations", limits_.nodes);
  }
  Node& node = tree_.nodes.emplace_back();
  node.kind = kind;
  node.line = Now().line;
  node.soft = soft_;
  return &node;
}

Node* Parser::Constant(Value value) {
  Node* node = New(NodeKind::kConst);
  node->value = std::move(value);
  node->known_truth = Truth(node->value) ? 1 : 0;
  return node;
}

Value Parser::StringValue(std::string text) {
  const int64_t length = CountCharacters(text);
  return Value(std::make_shared<const Str>(Str{std::move(text), length, false}));
}

Node* Parser::Child(Node* parent, Node* child) {
  parent->height = std::max(parent->height, child->height + 1);
  if (parent->height > kMaxHeight) Fail("more than {} operations in one another", kMaxHeight);
  return child;
}

int Parser::NameNumber(const std::string& name) {
  const auto [found, is_new] =
      tree_.name_numbers.try_emplace(name, static_cast<int>(tree_.names.size()));
  if (is_new) tree_.names.push_back(name);
  return found->second;
}

void Parser::ParseAll() {
  Body(tree_.body, {});
  if (Now().type != Token::kEnd) Fail("unexpected {}", Describe());
}

// Up to a tag with one of the words, which is then the present token; to the end without words.
void Parser::Body(std::vector<Node*>& body, Words ends) {
  for (;;) {
    switch (Now().type) {
      case Token::kData: {
        Node* data = New(NodeKind::kData);
        data->text = Now().text;
        body.push_back(data);
        Next();
        break;
      }
      case Token::kVariableBegin: {
        Node* output = New(NodeKind::kOutput);
        Next();
        output->list.push_back(Child(output, TupleOrExpression(true)));
        Expect(Token::kVariableEnd, "'}}'");
        body.push_back(output);
        break;
      }
      case Token::kBlockBegin: {
        Next();
        const bool stops = Now().type == Token::kName &&
                           std::find(ends.begin(), ends.end(), Now().text) != ends.end();
        if (stops) return;
        Statement(body);
        Expect(Token::kBlockEnd, "'%}'");
        break;
      }
      default:
        if (ends.size() == 0) return;
        Fail("expected '{}', found {}", *ends.begin(), Describe());
    }
  }
}

void Parser::BlockBody(Node* owner, std::vector<Node*>& body, Words ends) {
  SkipOperator(":");
  Expect(Token::kBlockEnd, "'%}'");
  Body(body, ends);
  for (const Node* node : body) {
    owner->height = std::max(owner->height, node->height + 1);
  }
  if (owner->height > kMaxHeight) Fail("more than {} operations in one another", kMaxHeight);
}

void Parser::Statement(std::vector<Node*>& body) {
  struct Entry {
    std::string_view word;
    Node* (Parser::*parse)();
  };
  static constexpr std::array<Entry, 11> kStatements{{{"for", &Parser::For},
                                                      {"if", &Parser::If},
                                                      {"set", &Parser::Set},
                                                      {"with", &Parser::With},
                                                      {"macro", &Parser::Macro},
                                                      {"call", &Parser::CallBlock},
                                                      {"filter", &Parser::FilterBlock},
                                                      {"generation", &Parser::Generation},
                                                      {"print", &Parser::Print},
                                                      {"break", &Parser::LoopControl},
                                                      {"continue", &Parser::LoopControl}}};
  static constexpr std::array<std::string_view, 6> kUnsupported{"include", "import", "from",
                                                                "extends", "block",  "autoescape"};
  if (Now().type != Token::kName) Fail("expected the name of a tag, found {}", Describe());
  const std::string word = Now().text;
  if (std::find(kUnsupported.begin(), kUnsupported.end(), word) != kUnsupported.end()) {
    Throw(ErrorCode::kUnsupported, fmt::format("not supported: the tag '{}'", word));
  }
  const auto* found = std::find_if(kStatements.begin(), kStatements.end(),
                                   [&](const Entry& entry) { return entry.word == word; });
  if (found == kStatements.end()) Fail("unknown tag '{}'", word);
  const Restore<int> deeper(depth_, depth_ + 1);
  if (depth_ > kMaxBlocks) Fail("tags nested deeper than {}", kMaxBlocks);
  body.push_back((this->*found->parse)());
}

void Parser::CheckTarget(const Node* target) const {
  if (target->kind == NodeKind::kTuple) {
    for (const Node* item : target->list) CheckTarget(item);
  } else if (target->kind != NodeKind::kName && target->kind != NodeKind::kNamespaceRef) {
    Fail("can't assign to that");
  }
}

// Names, and tuples of names in parentheses.
Node* Parser::Target(bool with_namespace, Stop stop) {
  std::vector<Node*> items;
  bool is_tuple = false;
  for (;;) {
    if (!items.empty()) ExpectOperator(",");
    if (EndsTuple(stop)) break;
    items.push_back(Primary(with_namespace));
    if (!IsOperator(",")) break;
    is_tuple = true;
  }
  Node* target = nullptr;
  if (!is_tuple) {
    if (items.empty()) Fail("expected an expression, found {}", Describe());
    target = items[0];
  } else {
    target = New(NodeKind::kTuple);
    for (Node* item : items) target->list.push_back(Child(target, item));
  }
  CheckTarget(target);
  return target;
}

Node* Parser::For() {
  Node* node = New(NodeKind::kFor);
  Next();
  node->a = Child(node, Target(false, Stop::kIn));
  ExpectName("in");
  node->b = Child(node, TupleOrExpression(false, Stop::kRecursive));
  const Restore<bool> hard(soft_, false);
  if (SkipName("if")) node->c = Child(node, Expression());
  node->recursive = SkipName("recursive");
  {
    const Restore<int> loop(loops_, loops_ + 1);
    const Restore<bool> block(in_block_text_, false);
    fors_.push_back(node);
    BlockBody(node, node->body, {"endfor", "else"});
    fors_.pop_back();
  }
  if (SkipName("else")) {
    BlockBody(node, node->other, {"endfor"});
  }
  Next();
  node->uses_loop = node->uses_loop || node->recursive;
  return node;
}

Node* Parser::If() {
  Node* node = New(NodeKind::kIf);
  const Restore<bool> soft(soft_, true);
  do {
    Next();
    node->list.push_back(Child(node, TupleOrExpression(false)));
    std::vector<Node*>& branch = node->branches.emplace_back();
    BlockBody(node, branch, {"elif", "else", "endif"});
  } while (IsName("elif"));
  if (SkipName("else")) BlockBody(node, node->other, {"endif"});
  Next();
  return node;
}

Node* Parser::Set() {
  Node* node = New(NodeKind::kSet);
  Next();
  node->a = Child(node, Target(true));
  if (SkipOperator("=")) {
    node->b = Child(node, TupleOrExpression(true));
    return node;
  }
  node->kind = NodeKind::kSetBlock;
  const Restore<bool> hard(soft_, false);
  const Restore<bool> block(in_block_text_, true);
  if (Node* filter = FilterChain(nullptr); filter != nullptr) node->b = Child(node, filter);
  BlockBody(node, node->body, {"endset"});
  Next();
  return node;
}

Node* Parser::With() {
  Node* node = New(NodeKind::kWith);
  Next();
  while (Now().type != Token::kBlockEnd) {
    if (!node->list.empty()) ExpectOperator(",");
    node->list.push_back(Child(node, Target(false)));
    ExpectOperator("=");
    node->list.push_back(Child(node, Expression()));
  }
  const Restore<bool> hard(soft_, false);
  BlockBody(node, node->body, {"endwith"});
  Next();
  return node;
}

void Parser::Signature(Node* node) {
  ExpectOperator("(");
  while (!IsOperator(")")) {
    if (!node->parameters.empty()) ExpectOperator(",");
    const std::string name = ExpectAnyName("the name of a parameter");
    if (name == "true" || name == "True" || name == "false" || name == "False" || name == "none" ||
        name == "None") {
      Fail("can't assign to '{}'", name);
    }
    const int number = NameNumber(name);
    if (std::find(node->parameters.begin(), node->parameters.end(), number) !=
        node->parameters.end()) {
      Fail("the parameter '{}' stands twice", name);
    }
    node->parameters.push_back(number);
    if (node->parameters.size() > kMaxParameters) {
      Fail("more than {} parameters", kMaxParameters);
    }
    if (SkipOperator("=")) {
      node->list.push_back(Child(node, Expression()));
    } else if (!node->list.empty()) {
      Fail("a parameter without default behind one with default");
    }
  }
  ExpectOperator(")");
}

void Parser::MacroBody(Node* node, Words ends) {
  const Restore<bool> hard(soft_, false);
  const Restore<int> loops(loops_, 0);
  macros_.push_back(node);
  BlockBody(node, node->body, ends);
  macros_.pop_back();
  Next();
  const int caller = NameNumber("caller");
  const auto at = std::find(node->parameters.begin(), node->parameters.end(), caller);
  const auto index = static_cast<size_t>(at - node->parameters.begin());
  if (node->uses_caller && at != node->parameters.end() &&
      index + node->list.size() < node->parameters.size()) {
    Fail("the parameter 'caller' needs a default");
  }
}

Node* Parser::Macro() {
  Node* node = New(NodeKind::kMacro);
  Next();
  const std::string name = ExpectAnyName("the name of a macro");
  node->text = name;
  node->name = NameNumber(name);
  Signature(node);
  MacroBody(node, {"endmacro"});
  return node;
}

Node* Parser::CallBlock() {
  Node* node = New(NodeKind::kCallBlock);
  Next();
  if (IsOperator("(")) Signature(node);
  node->a = Child(node, Expression());
  if (node->a->kind != NodeKind::kCall) Fail("expected a call");
  node->text = "caller";
  MacroBody(node, {"endcall"});
  return node;
}

Node* Parser::FilterBlock() {
  Node* node = New(NodeKind::kFilterBlock);
  Next();
  const Restore<bool> hard(soft_, false);
  const Restore<bool> block(in_block_text_, true);
  node->a = Child(node, FilterChain(nullptr, true));
  BlockBody(node, node->body, {"endfilter"});
  Next();
  return node;
}

Node* Parser::Generation() {
  Node* node = New(NodeKind::kGeneration);
  Next();
  MacroBody(node, {"endgeneration"});
  return node;
}

Node* Parser::Print() {
  Node* node = New(NodeKind::kOutput);
  Next();
  while (Now().type != Token::kBlockEnd) {
    if (!node->list.empty()) ExpectOperator(",");
    node->list.push_back(Child(node, Expression()));
  }
  return node;
}

Node* Parser::LoopControl() {
  const bool breaks = IsName("break");
  if (loops_ == 0) Fail("'{}' outside a loop", Now().text);
  if (in_block_text_) {
    Throw(ErrorCode::kUnsupported,
          fmt::format("not supported: '{}' inside a set or filter block", Now().text));
  }
  Node* node = New(breaks ? NodeKind::kBreak : NodeKind::kContinue);
  Next();
  return node;
}

std::unique_ptr<Tree> ParseTemplate(std::string_view source, const std::string& place,
                                    const Limits& limits) {
  if (static_cast<int64_t>(source.size()) > limits.template_bytes) {
    Fail(ErrorCode::kBadInput, "{}: a template of {} bytes; at most {} are taken", place,
         source.size(), limits.template_bytes);
  }
  auto tree = std::make_unique<Tree>();
  Parser parser(Tokenize(source, place), *tree, place, limits);
  parser.ParseAll();
  FindScopes(*tree);
  return tree;
}

}  // namespace samebits::jinja
