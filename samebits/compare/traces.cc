#include "samebits/compare/traces.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <string_view>
#include <tuple>

#include "samebits/compare/hidden_scores.h"

namespace samebits {
namespace {

// The order of docs/trace-format.md within a layer; "" is the layer's output.
constexpr std::array<std::string_view, 20> kInLayer = {
    ".input_layernorm",   ".self_attn.q_proj",
    ".self_attn.k_proj",  ".self_attn.v_proj",
    ".self_attn.q_norm",  ".self_attn.k_norm",
    ".self_attn.q_rope",  ".self_attn.k_rope",
    ".self_attn.scores",  ".self_attn.probs",
    ".self_attn.context", ".self_attn.o_proj",
    ".attn_residual",     ".post_attention_layernorm",
    ".mlp.gate_proj",     ".mlp.up_proj",
    ".mlp.act",           ".mlp.gated",
    ".mlp.down_proj",     ""};

using Key = std::tuple<int, int64_t, int64_t>;

Key ForwardKey(const std::string& name) {
  constexpr std::string_view kLayers = "model.layers.";
  if (name == "model.embed_tokens") return {0, 0, 0};
  if (name == "model.rotary.cos") return {1, 0, 0};
  if (name == "model.rotary.sin") return {1, 0, 1};
  if (name == "model.norm") return {3, 0, 0};
  if (name == "lm_head") return {4, 0, 0};
  if (name.starts_with(kLayers)) {
    uint32_t layer = 0;
    const char* end = name.data() + name.size();
    const auto [rest, error] = std::from_chars(name.data() + kLayers.size(), end, layer);
    const auto* place = std::find(kInLayer.begin(), kInLayer.end(),
                                  std::string_view(rest, static_cast<size_t>(end - rest)));
    if (error == std::errc() && place != kInLayer.end()) {
      return {2, layer, place - kInLayer.begin()};
    }
  }
  return {5, 0, 0};
}

// In the order in which the tensors lie in the file.
std::vector<std::string> NamesInFile(const Trace& trace) {
  std::vector<const NamedTensor*> entries;
  for (const NamedTensor& entry : trace.tensors()) entries.push_back(&entry);
  std::stable_sort(entries.begin(), entries.end(), [](const NamedTensor* a, const NamedTensor* b) {
    return a->view.data < b->view.data;
  });
  std::vector<std::string> names;
  names.reserve(entries.size());
  for (const NamedTensor* entry : entries) names.push_back(entry->name);
  return names;
}

bool InputsDiffer(const TraceInfo& a, const TraceInfo& b) {
  return a.batch != b.batch || a.input_ids != b.input_ids || a.positions != b.positions ||
         a.attention_mask != b.attention_mask;
}

LogitMetrics LogitsOf(const Trace& a, const Trace& b, const TensorView& x, const TensorView& y) {
  const std::vector<int64_t>&mask_a = a.info().attention_mask, &mask_b = b.info().attention_mask;
  const int64_t rows = x.elements() == 0 ? 0 : x.elements() / x.shape.back();
  const auto all = static_cast<size_t>(rows);
  if (mask_a.size() != all || mask_b.size() != all) return CompareLogits(x, y);
  return CompareLogits(x, y, [&](int64_t row) { return mask_a[row] == 0 || mask_b[row] == 0; });
}

NodeDifference CompareNode(const Trace& a, const Trace& b, const std::string& name) {
  const TensorView &x = *a.Find(name), &y = *b.Find(name);
  NodeDifference node;
  node.name = name;
  node.dtype_a = x.dtype;
  node.dtype_b = y.dtype;
  node.shape_a = x.shape;
  node.shape_b = y.shape;
  std::function<bool(int64_t)> ignore;
  const size_t rank = x.shape.size();
  if (name.ends_with(".self_attn.scores") && x.shape == y.shape && (rank == 3 || rank == 4)) {
    ignore = HiddenScores(a, b, name);
  }
  node.metrics = CompareTensors(x, y, ignore);
  node.difference = DifferenceOf(x, y, node.metrics);
  const bool numbers = ComparedAsNumbers(x.dtype) && ComparedAsNumbers(y.dtype);
  if (name == "lm_head" && x.shape == y.shape && rank > 0 && numbers) {
    node.logits = LogitsOf(a, b, x, y);
  }
  return node;
}

}  // namespace

void SortByForwardPass(std::vector<std::string>& names) {
  std::stable_sort(names.begin(), names.end(), [](const std::string& a, const std::string& b) {
    return ForwardKey(a) < ForwardKey(b);
  });
}

TraceDifference CompareTraces(const Trace& a, const Trace& b) {
  TraceDifference result;
  result.inputs_differ = InputsDiffer(a.info(), b.info());
  std::vector<std::string> names;
  for (const std::string& name : NamesInFile(a)) {
    (b.Find(name) != nullptr ? names : result.only_a).push_back(name);
  }
  for (const std::string& name : NamesInFile(b)) {
    if (a.Find(name) == nullptr) result.only_b.push_back(name);
  }
  SortByForwardPass(names);
  SortByForwardPass(result.only_a);
  SortByForwardPass(result.only_b);
  for (const std::string& name : names) {
    NodeDifference node = CompareNode(a, b, name);
    if (result.first.empty() && node.difference != Difference::kNone) result.first = name;
    if (result.first_values.empty() && node.metrics.differing > 0) result.first_values = name;
    result.nodes.push_back(std::move(node));
  }
  return result;
}

}  // namespace samebits
