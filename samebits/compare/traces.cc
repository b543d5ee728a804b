#include "samebits/compare/traces.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <string_view>
#include <tuple>

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

using Key = std::tuple<int, int64_t, int64_t, std::string>;

Key ForwardKey(const std::string& name) {
  constexpr std::string_view kLayers = "model.layers.";
  if (name == "model.embed_tokens") return {0, 0, 0, name};
  if (name.starts_with("model.rotary.")) return {1, 0, 0, name};
  if (name == "model.norm") return {3, 0, 0, name};
  if (name == "lm_head") return {4, 0, 0, name};
  if (name.starts_with(kLayers)) {
    int64_t layer = 0;
    const char* end = name.data() + name.size();
    const auto [rest, error] = std::from_chars(name.data() + kLayers.size(), end, layer);
    const auto* place = std::find(kInLayer.begin(), kInLayer.end(),
                                  std::string_view(rest, static_cast<size_t>(end - rest)));
    if (error == std::errc() && place != kInLayer.end()) {
      return {2, layer, place - kInLayer.begin(), name};
    }
  }
  return {5, 0, 0, name};
}

bool IsZero(const TensorView& view, int64_t index) {
  const int64_t size = DTypeSize(view.dtype);
  return std::all_of(view.data + index * size, view.data + (index + 1) * size,
                     [](std::byte b) { return b == std::byte{0}; });
}

}  // namespace

void SortByForwardPass(std::vector<std::string>& names) {
  std::sort(names.begin(), names.end(), [](const std::string& a, const std::string& b) {
    return ForwardKey(a) < ForwardKey(b);
  });
}

TraceDifference CompareTraces(const Trace& a, const Trace& b) {
  TraceDifference result;
  result.inputs_differ =
      a.info().input_ids != b.info().input_ids || a.info().positions != b.info().positions;
  std::vector<std::string> names;
  for (const TensorEntry& entry : a.tensors()) {
    (b.Find(entry.name) != nullptr ? names : result.only_a).push_back(entry.name);
  }
  for (const TensorEntry& entry : b.tensors()) {
    if (a.Find(entry.name) == nullptr) result.only_b.push_back(entry.name);
  }
  SortByForwardPass(names);
  SortByForwardPass(result.only_a);
  SortByForwardPass(result.only_b);
  for (const std::string& name : names) {
    const TensorView& x = *a.Find(name);
    std::function<bool(int64_t)> ignore;
    if (name.ends_with(".self_attn.scores") && x.shape.size() == 3) {
      const int64_t rows = x.shape[1], keys = x.shape[2];
      const std::string probs = name.substr(0, name.size() - 6) + "probs";
      const TensorView* p = a.Find(probs);
      const TensorView* q = b.Find(probs);
      if (p != nullptr && q != nullptr && (p->shape != x.shape || q->shape != x.shape)) p = nullptr;
      ignore = [rows, keys, p, q](int64_t i) {
        if (i % keys > i / keys % rows + keys - rows) return true;
        // A sliding window hides more: where both say probability 0, the score counts for nothing.
        return p != nullptr && q != nullptr && IsZero(*p, i) && IsZero(*q, i);
      };
    }
    result.nodes.push_back({name, CompareTensors(x, *b.Find(name), ignore)});
    if (result.first.empty() && !result.nodes.back().metrics.same()) result.first = name;
  }
  return result;
}

}  // namespace samebits
