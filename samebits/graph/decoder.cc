#include "samebits/graph/decoder.h"

#include <fmt/format.h>

#include <cmath>

namespace samebits {
namespace {

class Builder {
 public:
  explicit Builder(const ModelConfig& config) { graph_.config = config; }

  Node& Add(OpKind kind, const std::string& name, std::vector<std::string> inputs,
            std::vector<std::string> weights = {}) {
    Node node{kind, name, layer_, std::move(inputs), std::move(weights), {name}, {}};
    graph_.nodes.push_back(std::move(node));
    return graph_.nodes.back();
  }

  std::string Norm(const std::string& name, const std::string& x) {
    Node& node = Add(OpKind::kRmsNorm, name, {x}, {name + ".weight"});
    node.attributes.eps = graph_.config.rms_norm_eps;
    node.attributes.in_features = graph_.config.hidden_size;
    return name;
  }

  std::string Linear(const std::string& name, const std::string& x, const std::string& weight,
                     int64_t in_features, int64_t out_features, bool bias = false) {
    Node& node = Add(OpKind::kLinear, name, {x}, {weight + ".weight"});
    if (bias) node.weights.push_back(weight + ".bias");
    node.attributes.in_features = in_features;
    node.attributes.out_features = out_features;
    return name;
  }

  std::string Rope(const std::string& name, const std::string& x, int64_t heads) {
    Node& node = Add(OpKind::kRope, name, {x, "model.rotary.cos", "model.rotary.sin"});
    node.attributes.heads = heads;
    node.attributes.head_dim = graph_.config.head_dim;
    return name;
  }

  // Returns the layer's output.
  std::string Layer(int index, const std::string& x, bool qkv_bias);

  void set_layer(int layer) { layer_ = layer; }
  Graph Take() { return std::move(graph_); }

 private:
  Graph graph_;
  int layer_ = -1;
};

std::string Builder::Layer(int index, const std::string& x, bool qkv_bias) {
  const ModelConfig c = graph_.config;
  layer_ = index;
  std::string layer = fmt::format("model.layers.{}", index);
  const std::string attention = layer + ".self_attn", mlp = layer + ".mlp";
  const int64_t q_size = c.num_attention_heads * c.head_dim;
  const int64_t kv_size = c.num_key_value_heads * c.head_dim;

  const std::string normed = Norm(layer + ".input_layernorm", x);
  const auto project = [&](const char* name, int64_t size) {
    return Linear(attention + name, normed, attention + name, c.hidden_size, size, qkv_bias);
  };
  const std::string q = project(".q_proj", q_size);
  const std::string k = project(".k_proj", kv_size);
  const std::string v = project(".v_proj", kv_size);
  const std::string q_rope = Rope(attention + ".q_rope", q, c.num_attention_heads);
  const std::string k_rope = Rope(attention + ".k_rope", k, c.num_key_value_heads);
  Node& node = Add(OpKind::kAttention, attention, {q_rope, k_rope, v});
  node.outputs = {attention + ".scores", attention + ".probs", attention + ".context"};
  node.attributes.heads = c.num_attention_heads;
  node.attributes.kv_heads = c.num_key_value_heads;
  node.attributes.head_dim = c.head_dim;
  // round: Python computes head_dim ** -0.5 in fp64, the product with a tensor takes it as fp32
  node.attributes.scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(c.head_dim)));
  const std::string o = Linear(attention + ".o_proj", attention + ".context", attention + ".o_proj",
                               q_size, c.hidden_size);
  const std::string residual = layer + ".attn_residual";
  Add(OpKind::kAdd, residual, {x, o});

  const std::string post = Norm(layer + ".post_attention_layernorm", residual);
  const std::string gate =
      Linear(mlp + ".gate_proj", post, mlp + ".gate_proj", c.hidden_size, c.intermediate_size);
  const std::string up =
      Linear(mlp + ".up_proj", post, mlp + ".up_proj", c.hidden_size, c.intermediate_size);
  Add(OpKind::kActivation, mlp + ".act", {gate}).attributes.activation = c.hidden_act;
  Add(OpKind::kMultiply, mlp + ".gated", {mlp + ".act", up});
  const std::string down = Linear(mlp + ".down_proj", mlp + ".gated", mlp + ".down_proj",
                                  c.intermediate_size, c.hidden_size);
  Add(OpKind::kAdd, layer, {residual, down});
  return layer;
}

}  // namespace

Graph BuildPreNormDecoder(const ModelConfig& config, bool qkv_bias) {
  Builder builder(config);
  builder.Add(OpKind::kEmbedding, "model.embed_tokens", {std::string(kInputIds)},
              {"model.embed_tokens.weight"});
  Node& rotary = builder.Add(OpKind::kRotary, "model.rotary", {std::string(kPositions)});
  rotary.outputs = {"model.rotary.cos", "model.rotary.sin"};
  rotary.attributes.rope_theta = config.rope_theta;
  rotary.attributes.head_dim = config.head_dim;
  std::string x = "model.embed_tokens";
  for (int64_t n = 0; n < config.num_hidden_layers; ++n) {
    x = builder.Layer(static_cast<int>(n), x, qkv_bias);
  }
  builder.set_layer(-1);
  x = builder.Norm("model.norm", x);
  builder.Linear("lm_head", x, config.tie_word_embeddings ? "model.embed_tokens" : "lm_head",
                 config.hidden_size, config.vocab_size);
  return builder.Take();
}

}  // namespace samebits
