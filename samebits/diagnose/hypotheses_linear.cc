// Hypotheses of linears and of weights.
#include <fmt/format.h>

#include <algorithm>
#include <memory>

#include "samebits/diagnose/hypotheses.h"

namespace samebits {
namespace {

std::string WeightName(const Node& node, const char* module, const char* kind) {
  return fmt::format("{}{}.{}", LayerPrefix(node), module, kind);
}

// Row maps of one projection; `base` must have one weight, and a bias or none.
std::shared_ptr<RowMap> OwnRows(const Node& node) {
  auto map = std::make_shared<RowMap>();
  map->weights = {node.weights[0]};
  if (node.weights.size() > 1) map->biases = {node.weights[1]};
  map->row.resize(static_cast<size_t>(node.attributes.out_features));
  return map;
}

void AddMap(Hypotheses& list, const Replay& base, const char* cause, std::string detail,
            std::shared_ptr<const RowMap> map) {
  for (size_t i = 0; i < map->row.size(); ++i) {
    const bool moved = map->row[i] != std::pair<int, int64_t>(0, static_cast<int64_t>(i)) ||
                       map->weights[0] != base.node.weights[0];
    if (!moved) continue;
    Replay r = base;
    r.row_map = std::move(map);
    AddHypothesis(list, cause, std::move(detail), r);
    return;
  }
}

// The rows of each head in another order.
void HeadRowHypotheses(const Replay& base, int64_t heads, int64_t d, bool rotated,
                       Hypotheses& list) {
  const auto permuted = [&](const char* cause, const char* detail, auto&& source_row) {
    auto map = OwnRows(base.node);
    for (int64_t h = 0; h < heads; ++h) {
      for (int64_t i = 0; i < d; ++i) map->row[h * d + i] = {0, source_row(h, i)};
    }
    AddMap(list, base, cause, detail, map);
  };
  permuted("head-layout", "reads [heads, head_dim] as [head_dim, heads]",
           [&](int64_t h, int64_t i) {
             const int64_t at = h * d + i;
             return at % heads * d + at / heads;
           });
  permuted("head-layout", "reads [head_dim, heads] where [heads, head_dim] is stored",
           [&](int64_t h, int64_t i) { return i * heads + h; });
  if (!rotated) return;
  permuted("rope-row-permutation", "has the rows of each head permuted for pairs (2i, 2i+1)",
           [&](int64_t h, int64_t i) { return h * d + i / 2 + i % 2 * (d / 2); });
  permuted("rope-row-permutation", "has the rows of each head permuted for pairs (i, i + d/2)",
           [&](int64_t h, int64_t i) { return h * d + i % (d / 2) * 2 + i / (d / 2); });
}

// q, k and v in one fused weight that is split where other rows lie.
void FusedHypotheses(const Replay& base, const ModelConfig& config, Hypotheses& list) {
  const Node& node = base.node;
  const int64_t d = config.head_dim, kv_heads = config.num_key_value_heads;
  const int64_t group = config.num_attention_heads / kv_heads, blocks = (group + 2) * kv_heads;
  const int64_t heads = config.num_attention_heads;
  auto map = OwnRows(node);
  map->weights.clear();
  map->biases.clear();
  for (const char* module : {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"}) {
    map->weights.push_back(WeightName(node, module, "weight"));
    if (node.weights.size() > 1) map->biases.push_back(WeightName(node, module, "bias"));
  }
  // Heads of the fused weight, one behind the other as [q; k; v] and group by group.
  std::vector<std::pair<int, int64_t>> joined, grouped;
  for (int64_t h = 0; h < heads; ++h) joined.emplace_back(0, h);
  for (int64_t h = 0; h < kv_heads; ++h) joined.emplace_back(1, h);
  for (int64_t h = 0; h < kv_heads; ++h) joined.emplace_back(2, h);
  for (int64_t g = 0; g < kv_heads; ++g) {
    for (int64_t i = 0; i < group; ++i) grouped.emplace_back(0, g * group + i);
    grouped.emplace_back(1, g);
    grouped.emplace_back(2, g);
  }
  const int which = node.name.ends_with("q_proj") ? 0 : node.name.ends_with("k_proj") ? 1 : 2;
  // The head at place p of the layout that the port assumes is at p of the one that is stored.
  const auto split = [&](const std::vector<std::pair<int, int64_t>>& assumed,
                         const std::vector<std::pair<int, int64_t>>& stored, const char* detail) {
    auto rows = std::make_shared<RowMap>(*map);
    for (int64_t p = 0; p < blocks; ++p) {
      if (assumed[p].first != which) continue;
      for (int64_t i = 0; i < d; ++i) {
        rows->row[assumed[p].second * d + i] = {stored[p].first, stored[p].second * d + i};
      }
    }
    Replay r = base;
    r.row_map = rows;
    AddHypothesis(list, "head-layout", detail, r);
  };
  if (grouped == joined) return;
  split(grouped, joined, "splits a fused [q; k; v] group by group");
  split(joined, grouped, "splits a fused weight, stored group by group, as [q; k; v]");
}

void GateUpHypotheses(const Replay& base, Hypotheses& list) {
  const Node& node = base.node;
  const bool gate = node.name.ends_with("gate_proj");
  if (!gate && !node.name.ends_with("up_proj")) return;
  auto map = OwnRows(node);
  map->weights.clear();
  map->biases.clear();
  for (const char* module : {"mlp.gate_proj", "mlp.up_proj"}) {
    map->weights.push_back(WeightName(node, module, "weight"));
    if (node.weights.size() > 1) map->biases.push_back(WeightName(node, module, "bias"));
  }
  const auto outs = static_cast<int64_t>(map->row.size());
  for (int64_t n = 0; n < outs; ++n) {
    const int64_t fused = 2 * n + (gate ? 0 : 1);
    map->row[n] = {fused < outs ? 0 : 1, fused % outs};
  }
  Replay r = base;
  r.row_map = map;
  AddHypothesis(list, "gate-up-swapped", "splits a fused [gate; up] into even and odd rows", r);
}

void BiasHypotheses(const Replay& base, const ReplaySource& source, Hypotheses& list) {
  const Node& node = base.node;
  Replay missing = base;
  missing.bias_times = 0;
  AddHypothesis(list, "bias-missing", "adds no bias", missing);
  for (const int times : {2, 4, 8}) {
    for (BiasPlace place :
         {base.bias_place, BiasPlace::kBeforeRounding, BiasPlace::kBeforeAndAfter}) {
      Replay r = base;
      r.bias_times = times;
      r.bias_place = place;
      AddHypothesis(list, "bias-twice",
                    times == 2 ? std::string("adds the bias twice")
                               : fmt::format("adds the bias {} times", times),
                    r);
    }
  }
  for (const Node& other : source.graph->nodes) {
    if (other.kind != OpKind::kLinear || other.layer != node.layer || other.weights.size() < 2 ||
        other.name == node.name || other.attributes.out_features != node.attributes.out_features) {
      continue;
    }
    Replay r = base;
    r.node.weights[1] = other.weights[1];
    AddHypothesis(list, "bias-on-wrong-op", fmt::format("adds {}", other.weights[1]), r);
  }
}

}  // namespace

void LinearHypotheses(const Replay& base, const ReplaySource& source, Hypotheses& list) {
  const Node& node = base.node;
  const Attributes& a = node.attributes;
  if (a.in_features == a.out_features) {
    Replay r = base;
    r.weight_transposed = true;
    AddHypothesis(list, "weight-not-transposed", "computes x W instead of x W^T", r);
  }
  const bool gate = node.name.ends_with("gate_proj"), up = node.name.ends_with("up_proj");
  for (const Node& other : source.graph->nodes) {
    const bool fits = other.kind == OpKind::kLinear && other.layer == node.layer &&
                      other.weights[0] != node.weights[0] &&
                      other.attributes.in_features == a.in_features &&
                      other.attributes.out_features == a.out_features;
    if (!fits) continue;
    const bool pair =
        (gate && other.name.ends_with("up_proj")) || (up && other.name.ends_with("gate_proj"));
    Replay r = base;
    r.node.weights[0] = other.weights[0];
    AddHypothesis(list, pair ? "gate-up-swapped" : "weights-swapped",
                  fmt::format("uses {}", other.weights[0]), r);
    if (node.weights.size() > 1 && other.weights.size() > 1) {
      r.node.weights[1] = other.weights[1];
      AddHypothesis(list, pair ? "gate-up-swapped" : "weights-swapped",
                    fmt::format("uses {} and its bias", other.weights[0]), r);
    }
  }
  if (node.weights.size() > 1) BiasHypotheses(base, source, list);
  const ModelConfig& config = source.graph->config;
  const bool q = node.name.ends_with("self_attn.q_proj");
  if (q || node.name.ends_with("self_attn.k_proj") || node.name.ends_with("self_attn.v_proj")) {
    HeadRowHypotheses(base, q ? config.num_attention_heads : config.num_key_value_heads,
                      config.head_dim, !node.name.ends_with("v_proj"), list);
    FusedHypotheses(base, config, list);
  }
  GateUpHypotheses(base, list);
  if (node.name == "lm_head") {
    if (node.weights[0] != "model.embed_tokens.weight") {
      Replay r = base;
      r.node.weights[0] = "model.embed_tokens.weight";
      AddHypothesis(list, "lm-head-tying", "uses the embedding for lm_head, which is not tied", r);
    }
    for (const double cap : {30.0, 50.0, 20.0, 15.0}) {
      for (const Softcap::Rounding rounding : kSoftcapRoundings) {
        Replay r = base;
        r.softcap = {cap, rounding};
        list.push_back({"softcap", fmt::format("caps the logits at {:g} with tanh", cap), r, cap,
                        std::nullopt});
      }
    }
  }
  WeightHypotheses(base, source, list);
}

void WeightHypotheses(const Replay& base, const ReplaySource& source, Hypotheses& list) {
  const Node& node = base.node;
  const DType stored = source.checkpoint->Get(node.weights[0]).dtype;
  for (const DType through : {DType::kF16, DType::kBF16}) {
    if (stored == through || source.dtype == through) continue;
    if (through == DType::kBF16 && stored == DType::kF16) continue;
    Replay r = base;
    r.weight_through = through;
    AddHypothesis(list, "weight-dtype-chain",
                  fmt::format("has weights that went through {}", ModelDTypeName(through)), r);
  }
  if (node.layer < 0) return;
  // Layers in another order: by name as text (1, 10, 11, 2), backwards, or shifted by one.
  const int64_t layers = source.graph->config.num_hidden_layers;
  std::vector<int64_t> by_text(static_cast<size_t>(layers));
  for (int64_t n = 0; n < layers; ++n) by_text[static_cast<size_t>(n)] = n;
  std::sort(by_text.begin(), by_text.end(),
            [](int64_t a, int64_t b) { return std::to_string(a) < std::to_string(b); });
  const std::pair<int64_t, const char*> others[] = {
      {by_text[static_cast<size_t>(node.layer)], "layers in the order of their names as text"},
      {layers - 1 - node.layer, "layers in reverse order"},
      {node.layer + 1, "layers shifted by one"},
      {node.layer - 1, "layers shifted by one"}};
  for (const auto& [other, detail] : others) {
    if (other == node.layer || other < 0 || other >= layers) continue;
    Replay r = base;
    for (std::string& name : r.node.weights) {
      const std::string prefix = LayerPrefix(node);
      if (name.starts_with(prefix)) {
        name = fmt::format("model.layers.{}.{}", other, name.substr(prefix.size()));
      }
    }
    AddHypothesis(list, "layer-order", fmt::format("reads the {}", detail), r);
  }
}

}  // namespace samebits
