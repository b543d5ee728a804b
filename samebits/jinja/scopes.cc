#include "samebits/jinja/scopes.h"

#include <map>
#include <set>
#include <utility>
#include <vector>

namespace samebits::jinja {
namespace {

// How a name of a scope gets its first value.
enum class Load : uint8_t { kParameter, kUndefined, kOuter };

struct Symbols {
  const Symbols* parent = nullptr;
  std::map<int, Load> refs;
  std::set<int> stores;

  bool Finds(int name) const {
    for (const Symbols* at = this; at != nullptr; at = at->parent) {
      if (at->refs.contains(name)) return true;
    }
    return false;
  }
  void LoadName(int name) {
    if (!Finds(name)) refs[name] = Load::kOuter;
  }
  void Store(int name) {
    stores.insert(name);
    if (refs.contains(name)) return;
    refs[name] = parent != nullptr && parent->Finds(name) ? Load::kOuter : Load::kUndefined;
  }
  void Parameter(int name) {
    stores.insert(name);
    refs[name] = Load::kParameter;
  }
};

class Finder {
 public:
  explicit Finder(Tree& tree) : tree_(tree) {}

  void Run() {
    Symbols root;
    for (Node* node : tree_.body) Visit(node, root);
    Finish(root, tree_.frame);
    for (Node* node : tree_.body) Inside(node, root, tree_.frame);
  }

 private:
  static void Finish(const Symbols& symbols, Frame& frame) {
    for (const auto& [name, load] : symbols.refs) {
      if (load == Load::kUndefined) frame.missing.push_back(name);
    }
  }

  void Arguments(const Node* node, Symbols& symbols) {
    if (node->call == nullptr) return;
    for (Node* argument : node->call->positional) Visit(argument, symbols);
    for (const auto& argument : node->call->keyword) Visit(argument.second, symbols);
    if (node->call->star != nullptr) Visit(node->call->star, symbols);
    if (node->call->double_star != nullptr) Visit(node->call->double_star, symbols);
  }

  void Target(const Node* node, Symbols& symbols, bool as_parameter) {
    if (node->kind == NodeKind::kTuple) {
      for (const Node* item : node->list) Target(item, symbols, as_parameter);
    } else if (node->kind == NodeKind::kNamespaceRef) {
      symbols.LoadName(node->name);
    } else if (as_parameter) {
      symbols.Parameter(node->name);
    } else {
      symbols.Store(node->name);
    }
  }

  void If(const Node* node, Symbols& symbols) {
    // The conditions behind the first belong to the second branch, as in jinja2's tree.
    Visit(node->list[0], symbols);
    Symbols first = symbols, second = symbols, third = symbols;
    for (Node* child : node->branches[0]) Visit(child, first);
    for (size_t i = 1; i < node->branches.size(); ++i) {
      Symbols inner = second;
      Visit(node->list[i], inner);
      Symbols body = inner;
      for (Node* child : node->branches[i]) Visit(child, body);
      Merge({&body}, inner);
      second = inner;
    }
    for (Node* child : node->other) Visit(child, third);
    Merge({&first, &second, &third}, symbols);
  }

  static void Merge(const std::vector<const Symbols*>& branches, Symbols& symbols) {
    std::set<int> stores;
    for (const Symbols* branch : branches) {
      for (const int name : branch->stores) {
        if (!symbols.stores.contains(name)) stores.insert(name);
      }
    }
    for (const Symbols* branch : branches) {
      for (const auto& [name, load] : branch->refs) symbols.refs[name] = load;
      symbols.stores.insert(branch->stores.begin(), branch->stores.end());
    }
    for (const int name : stores) symbols.refs[name] = Load::kOuter;
  }

  // What the node reads and assigns in the scope around it.
  void Visit(Node* node, Symbols& symbols) {
    switch (node->kind) {
      case NodeKind::kName:
        symbols.LoadName(node->name);
        return;
      case NodeKind::kIf:
        If(node, symbols);
        return;
      case NodeKind::kSet:
        Visit(node->b, symbols);
        Target(node->a, symbols, false);
        return;
      case NodeKind::kSetBlock:
        Target(node->a, symbols, false);
        return;
      case NodeKind::kMacro:
        symbols.Store(node->name);
        return;
      case NodeKind::kFor:
        Visit(node->b, symbols);
        return;
      case NodeKind::kCallBlock:
      case NodeKind::kFilterBlock:
        Visit(node->a, symbols);
        return;
      case NodeKind::kWith:
        for (size_t i = 1; i < node->list.size(); i += 2) Visit(node->list[i], symbols);
        return;
      case NodeKind::kGeneration:
        return;
      default:
        break;
    }
    for (Node* child : {node->a, node->b, node->c}) {
      if (child != nullptr) Visit(child, symbols);
    }
    for (Node* child : node->list) Visit(child, symbols);
    Arguments(node, symbols);
  }

  void Scope(const std::vector<Node*>& body, Symbols& symbols, Frame& frame) {
    for (Node* node : body) Visit(node, symbols);
    Finish(symbols, frame);
    for (Node* node : body) Inside(node, symbols, frame);
  }

  void MacroBody(Node* node, const Symbols& symbols) {
    Symbols inner{&symbols, {}, {}};
    for (const int name : node->parameters) inner.Parameter(name);
    for (Node* value : node->list) Visit(value, inner);
    for (const auto& [used, name] :
         {std::pair(node->uses_caller, "caller"), std::pair(node->uses_kwargs, "kwargs"),
          std::pair(node->uses_varargs, "varargs")}) {
      const auto number = tree_.name_numbers.find(name);
      if (used && number != tree_.name_numbers.end()) inner.Parameter(number->second);
    }
    Scope(node->body, inner, node->frame);
  }

  void For(Node* node, const Symbols& symbols) {
    Symbols inner{&symbols, {}, {}};
    Target(node->a, inner, true);
    if (node->uses_loop) inner.Parameter(tree_.name_numbers.at("loop"));
    Scope(node->body, inner, node->frame);
    Symbols other{&symbols, {}, {}};
    Scope(node->other, other, node->other_frame);
  }

  // Analyzes the scopes that the node opens.
  void Inside(Node* node, const Symbols& symbols, Frame& frame) {
    Symbols inner{&symbols, {}, {}};
    switch (node->kind) {
      case NodeKind::kIf:
        for (const auto& branch : node->branches) {
          for (Node* child : branch) Inside(child, symbols, frame);
        }
        for (Node* child : node->other) Inside(child, symbols, frame);
        return;
      case NodeKind::kFor:
        For(node, symbols);
        // A macro inside closes over this scope as well.
        frame.has_closure = frame.has_closure || node->recursive || node->frame.has_closure ||
                            node->other_frame.has_closure;
        return;
      case NodeKind::kMacro:
      case NodeKind::kCallBlock:
        MacroBody(node, symbols);
        frame.has_closure = true;
        return;
      case NodeKind::kWith:
        for (size_t i = 0; i < node->list.size(); i += 2) Target(node->list[i], inner, true);
        break;
      case NodeKind::kSetBlock:
      case NodeKind::kFilterBlock:
      case NodeKind::kGeneration:
        break;
      default:
        return;
    }
    Scope(node->body, inner, node->frame);
    frame.has_closure = frame.has_closure || node->frame.has_closure;
  }

  Tree& tree_;
};

}  // namespace

void FindScopes(Tree& tree) {
  // A name that is only special, never written, still needs a number.
  for (const char* name : {"loop", "caller", "varargs", "kwargs"}) {
    const auto [at, is_new] =
        tree.name_numbers.try_emplace(name, static_cast<int>(tree.names.size()));
    if (is_new) tree.names.emplace_back(at->first);
  }
  Finder(tree).Run();
}

}  // namespace samebits::jinja
