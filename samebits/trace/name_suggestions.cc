#include "samebits/trace/name_suggestions.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>
#include <set>

#include "samebits/base/json.h"

namespace samebits {
namespace {

// What people call the same thing.
const std::map<std::string, std::string>& Synonyms() {
  static const std::map<std::string, std::string> kWords = {{"h", "layer"},
                                                            {"layers", "layer"},
                                                            {"block", "layer"},
                                                            {"blocks", "layer"},
                                                            {"blk", "layer"},
                                                            {"l", "layer"},
                                                            {"attention", "attn"},
                                                            {"self", "attn"},
                                                            {"wq", "q"},
                                                            {"query", "q"},
                                                            {"wk", "k"},
                                                            {"key", "k"},
                                                            {"wv", "v"},
                                                            {"value", "v"},
                                                            {"wo", "o"},
                                                            {"out", "o"},
                                                            {"dense", "o"},
                                                            {"output", "o"},
                                                            {"ffn", "mlp"},
                                                            {"feed", "mlp"},
                                                            {"w1", "gate"},
                                                            {"w3", "up"},
                                                            {"w2", "down"},
                                                            {"ln", "norm"},
                                                            {"layernorm", "norm"},
                                                            {"rmsnorm", "norm"},
                                                            {"rms", "norm"},
                                                            {"wte", "embed"},
                                                            {"tok", "embed"},
                                                            {"token", "embed"},
                                                            {"embd", "embed"},
                                                            {"embedding", "embed"},
                                                            {"embeddings", "embed"},
                                                            {"embedder", "embed"},
                                                            {"logits", "head"},
                                                            {"lm", "head"},
                                                            {"softmax", "probs"},
                                                            {"kq", "scores"},
                                                            {"qk", "scores"},
                                                            {"weights", "probs"},
                                                            {"cosine", "cos"},
                                                            {"sine", "sin"},
                                                            {"silu", "act"},
                                                            {"roped", "rope"},
                                                            {"rotary", "rope"},
                                                            {"input", "input"},
                                                            {"post", "post"},
                                                            {"final", "final"}};
  return kWords;
}

struct Words {
  std::set<std::string> words;
  std::string number;  // of the layer
};

Words WordsOf(const std::string& name) {
  static const std::set<std::string> kNoise = {"model",  "transformer", "proj",     "tokens",
                                               "module", "params",      "residual", "decoder"};
  std::vector<std::string> parts;
  for (const char c : name) {
    const bool digit = c >= '0' && c <= '9';
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    const bool joins = !parts.empty() && !parts.back().empty();
    if (!digit && !letter) {
      parts.emplace_back();
      continue;
    }
    // A number is a word of its own, but w1 is one word.
    const bool number = joins && parts.back()[0] >= '0' && parts.back()[0] <= '9';
    if (parts.empty() || (number && letter)) parts.emplace_back();
    parts.back() += letter && c < 'a' ? static_cast<char>(c + 32) : c;
  }
  Words result;
  for (const std::string& part : parts) {
    if (part.empty()) continue;
    if (part[0] >= '0' && part[0] <= '9') {
      if (result.number.empty()) result.number = part;
      continue;
    }
    const auto same = Synonyms().find(part);
    const std::string& word = same == Synonyms().end() ? part : same->second;
    if (!kNoise.contains(word)) result.words.insert(word);
  }
  return result;
}

// The same sizes in some order, axes of size 1 left out, or the same number of elements.
int Likeness(const Shape& a, const Shape& b) {
  const auto sorted = [](const Shape& shape) {
    Shape s;
    for (const int64_t n : shape) {
      if (n != 1) s.push_back(n);
    }
    std::sort(s.begin(), s.end());
    return s;
  };
  if (a == b) return 3;
  if (sorted(a) == sorted(b)) return 2;
  return NumElements(a) == NumElements(b) ? 1 : 0;
}

struct Scored {
  double score = 0;
  bool words = false, shape = false;
};

// The names to choose from, with their words.
class Names {
 public:
  explicit Names(const std::vector<ModelTensor>& expected) : expected_(expected) {
    for (const ModelTensor& tensor : expected) {
      words_.push_back(WordsOf(tensor.name));
      known_.insert(tensor.name);
    }
  }

  bool Knows(const std::string& name) const { return known_.contains(name); }

  // The one that is most like `tensor`, whose words are `words`; null when none is like enough.
  const ModelTensor* Best(const NamedTensor& tensor, const Words& words, Scored* best) const {
    const ModelTensor* found = nullptr;
    for (size_t i = 0; i < expected_.size(); ++i) {
      const Scored scored = ScoreOf(words, tensor.view.shape, i);
      if (!scored.words || scored.score <= best->score) continue;
      *best = scored;
      found = &expected_[i];
    }
    constexpr double kEnough = 1.5;
    return best->score >= kEnough ? found : nullptr;
  }

 private:
  Scored ScoreOf(const Words& theirs, const Shape& shape, size_t index) const {
    const Words& words = words_[index];
    if (theirs.number != words.number) return {};
    std::vector<std::string> common;
    std::set_intersection(theirs.words.begin(), theirs.words.end(), words.words.begin(),
                          words.words.end(), std::back_inserter(common));
    std::erase(common, "layer");
    const size_t all = theirs.words.size() + words.words.size() - common.size();
    const int like = Likeness(shape, expected_[index].shape);
    Scored scored;
    scored.words = !common.empty();
    scored.shape = like > 0;
    scored.score =
        all == 0 ? 0 : 4.0 * static_cast<double>(common.size()) / static_cast<double>(all);
    scored.score += like;
    return scored;
  }

  const std::vector<ModelTensor>& expected_;
  std::vector<Words> words_;  // parallel
  std::set<std::string, std::less<>> known_;
};

std::string WithPlaceholder(const std::string& name, const std::string& number) {
  if (number.empty()) return name;
  for (size_t at = name.find(number); at != std::string::npos; at = name.find(number, at + 1)) {
    const bool starts = at == 0 || isdigit(name[at - 1]) == 0;
    const size_t end = at + number.size();
    if (starts && (end == name.size() || isdigit(name[end]) == 0)) {
      return name.substr(0, at) + "{N}" + name.substr(end);
    }
  }
  return name;
}

}  // namespace

std::vector<Suggestion> SuggestNames(const std::vector<NamedTensor>& tensors,
                                     const std::vector<ModelTensor>& expected) {
  const Names names(expected);
  std::vector<Suggestion> suggestions;
  for (const NamedTensor& tensor : tensors) {
    if (names.Knows(tensor.name)) continue;
    Scored scored;
    const ModelTensor* best = names.Best(tensor, WordsOf(tensor.name), &scored);
    const std::string why =
        best == nullptr ? "nothing is called like it"
        : scored.shape  ? "its words and its shape"
                        : fmt::format("its words; shapes {} and {}",
                                      ShapeToString(tensor.view.shape), ShapeToString(best->shape));
    suggestions.push_back({tensor.name, best == nullptr ? "" : best->name, why});
  }
  return suggestions;
}

std::string SuggestMap(const TensorFile& file, const std::vector<ModelTensor>& expected) {
  const Names names(expected);
  OrderedJson map;
  OrderedJson metadata = OrderedJson::object(), rules = OrderedJson::array();
  for (const char* key : {"input_ids", "dtype"}) {
    if (!file.metadata.contains(key)) metadata[key] = key[0] == 'i' ? "[1, 2, 3]" : "bfloat16";
  }
  std::set<std::string> seen, targets;
  OrderedJson skip = OrderedJson::array();
  for (const NamedTensor& tensor : file.tensors) {
    if (names.Knows(tensor.name)) continue;
    Scored scored;
    const Words words = WordsOf(tensor.name);
    const ModelTensor* best = names.Best(tensor, words, &scored);
    const std::string& number = words.number;
    const std::string from = WithPlaceholder(tensor.name, number);
    if (!seen.insert(from).second) continue;
    if (best == nullptr || !targets.insert(best->name).second) {
      skip.push_back(from);
      continue;
    }
    OrderedJson rule = {{"from", from}, {"to", WithPlaceholder(best->name, number)}};
    const Shape& theirs = tensor.view.shape;
    if (theirs != best->shape) {
      Shape shape = theirs;
      if (!shape.empty() && shape[0] == 1 && shape.size() == best->shape.size() + 1) {
        rule["take"] = {{0, 0}};
        shape.erase(shape.begin());
      }
      if (shape != best->shape && shape.size() == 2 && best->shape.size() == 2 &&
          shape[0] == best->shape[1] && shape[1] == best->shape[0]) {
        rule["transpose"] = {1, 0};
      } else if (shape != best->shape && NumElements(shape) == NumElements(best->shape)) {
        rule["reshape"] = best->shape;
      }
    }
    rules.push_back(std::move(rule));
  }
  if (!metadata.empty()) map["metadata"] = metadata;
  map["tensors"] = rules;
  if (!skip.empty()) map["skip"] = skip;
  return map.dump(2, ' ', false, OrderedJson::error_handler_t::replace);
}

}  // namespace samebits
