// The syntax tree of a template. Nodes lie in one arena, so that none is destroyed recursively, and
// their height is limited by the parser.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "samebits/jinja/value.h"

namespace samebits::jinja {

struct Filter;
struct Node;
struct TestEntry;

enum class NodeKind : uint8_t {
  // Expressions.
  kConst,         // value
  kName,          // name
  kTuple,         // list
  kListOf,        // list
  kDictOf,        // list: key, value, key, value ...
  kNegative,      // a
  kPositive,      // a
  kNot,           // a
  kAnd,           // a, b
  kOr,            // a, b
  kBinary,        // a op b
  kConcat,        // list
  kCompare,       // a, then list and ops
  kTest,          // a, text, call
  kFilter,        // a (null: the text of a block), text, call
  kCall,          // a, call
  kGetattr,       // a, text
  kGetitem,       // a, b
  kSlice,         // a : b : c, each may be null
  kCondition,     // a if b else c, c may be null
  kNamespaceRef,  // name, text: only as a target of set
  // Statements.
  kData,         // text
  kOutput,       // list
  kFor,          // target a, iterable b, condition c, body, other
  kIf,           // list: conditions; branches: their bodies; other
  kSet,          // target a, value b
  kSetBlock,     // target a, filter b (may be null), body
  kMacro,        // name, parameters, list: defaults, body
  kCallBlock,    // call a, parameters, list: defaults, body
  kFilterBlock,  // filter a, body
  kWith,         // list: target, value, target, value ...; body
  kGeneration,   // body
  kBreak,
  kContinue,
};

enum class Op : uint8_t {
  kAdd,
  kSub,
  kMul,
  kDiv,
  kFloorDiv,
  kMod,
  kPow,
  kEqual,
  kNotEqual,
  kLess,
  kLessEqual,
  kGreater,
  kGreaterEqual,
  kIn,
  kNotIn,
};

struct CallSyntax {
  std::vector<Node*> positional;
  std::vector<std::pair<std::string, Node*>> keyword;
  Node* star = nullptr;         // *args
  Node* double_star = nullptr;  // **kwargs
};

// What is known of a scope before it runs.
struct Frame {
  std::vector<int> missing;  // names that are assigned here, and nowhere outside
  bool has_closure = false;  // a macro is defined in it, which may outlive it
};

struct Node {
  NodeKind kind = NodeKind::kConst;
  Op op = Op::kAdd;
  bool soft = false;       // in a conditional: an unknown filter fails when it is reached
  bool recursive = false;  // of a for
  bool uses_loop = false;  // its body reads `loop`
  bool uses_caller = false, uses_varargs = false, uses_kwargs = false;  // of a macro
  int known_truth = -1;  // 0 or 1 of a constant: jinja2 never looks at what it makes unreachable
  int line = 1;
  int height = 1;
  int name = -1;  // number of the name
  std::string text;
  Value value;
  Node *a = nullptr, *b = nullptr, *c = nullptr;
  std::vector<Node*> list, body, other;
  std::vector<std::vector<Node*>> branches;
  std::vector<Op> ops;
  std::vector<int> parameters;
  std::unique_ptr<CallSyntax> call;
  const Filter* filter = nullptr;  // null: none of this name, an error when it is reached
  const TestEntry* test = nullptr;
  Frame frame, other_frame, test_frame;  // of body, other, and a for's condition
};

struct Tree {
  std::deque<Node> nodes;
  std::vector<Node*> body;
  std::vector<std::string> names;
  std::unordered_map<std::string, int> name_numbers;
  Frame frame;
};

}  // namespace samebits::jinja
