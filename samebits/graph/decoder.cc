#include "samebits/graph/decoder.h"

#include <fmt/format.h>

#include <cmath>

namespace samebits {
namespace {

class Builder {
 public:
  Builder(const ModelConfig& config, const DecoderParts& parts) : parts_(parts) {
    graph_.config = config;
  }

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

  std::string HeadNorm(const std::string& name, const std::string& x, int64_t heads) {
    Norm(name, x);
    Attributes& attributes = graph_.nodes.back().attributes;
    attributes.heads = heads;
    attributes.head_dim = attributes.in_features = graph_.config.head_dim;
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
  std::string Layer(int index, const std::string& x);

  void set_layer(int layer) { layer_ = layer; }
  Graph Take() { return std::move(graph_); }

 private:
  std::string Attention(const std::string& attention, const std::string& x);
  std::string Mlp(const std::string& mlp, const std::string& x);

  const DecoderParts parts_;
  Graph graph_;
  int layer_ = -1;
};

// The output of o_proj.
std::string Builder::Attention(const std::string& attention, const std::string& x) {
  const ModelConfig& c = graph_.config;
  const int64_t heads = c.num_attention_heads, kv_heads = c.num_key_value_heads;
  const auto project = [&](const char* name, int64_t size) {
    return Linear(attention + name, x, attention + name, c.hidden_size, size, parts_.qkv_bias);
  };
  std::string q = project(".q_proj", heads * c.head_dim);
  std::string k = project(".k_proj", kv_heads * c.head_dim);
  const std::string v = project(".v_proj", kv_heads * c.head_dim);
  if (parts_.qk_norm) {
    q = HeadNorm(attention + ".q_norm", q, heads);
    k = HeadNorm(attention + ".k_norm", k, kv_heads);
  }
  q = Rope(attention + ".q_rope", q, heads);
  k = Rope(attention + ".k_rope", k, kv_heads);
  Node& node = Add(OpKind::kAttention, attention, {q, k, v});
  node.outputs = {attention + ".scores", attention + ".probs", attention + ".context"};
  node.attributes.heads = heads;
  node.attributes.kv_heads = kv_heads;
  node.attributes.head_dim = c.head_dim;
  node.attributes.window = parts_.windows ? c.window(layer_) : 0;
  // round: Python computes head_dim ** -0.5 in fp64, the product with a tensor takes it as fp32
  node.attributes.scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(c.head_dim)));
  return Linear(attention + ".o_proj", attention + ".context", attention + ".o_proj",
                heads * c.head_dim, c.hidden_size, parts_.o_bias);
}

// The output of down_proj.
std::string Builder::Mlp(const std::string& mlp, const std::string& x) {
  const int64_t hidden = graph_.config.hidden_size, inner = graph_.config.intermediate_size;
  const bool bias = parts_.mlp_bias;
  const std::string gate = Linear(mlp + ".gate_proj", x, mlp + ".gate_proj", hidden, inner, bias);
  const std::string up = Linear(mlp + ".up_proj", x, mlp + ".up_proj", hidden, inner, bias);
  Add(OpKind::kActivation, mlp + ".act", {gate}).attributes.activation = graph_.config.hidden_act;
  Add(OpKind::kMultiply, mlp + ".gated", {mlp + ".act", up});
  return Linear(mlp + ".down_proj", mlp + ".gated", mlp + ".down_proj", inner, hidden, bias);
}

std::string Builder::Layer(int index, const std::string& x) {
  layer_ = index;
  std::string layer = fmt::format("model.layers.{}", index);
  const std::string attended = Attention(layer + ".self_attn", Norm(layer + ".input_layernorm", x));
  const std::string residual = layer + ".attn_residual";
  Add(OpKind::kAdd, residual, {x, attended});
  const std::string fed = Mlp(layer + ".mlp", Norm(layer + ".post_attention_layernorm", residual));
  Add(OpKind::kAdd, layer, {residual, fed});
  return layer;
}

}  // namespace

Graph BuildPreNormDecoder(const ModelConfig& config, const DecoderParts& parts) {
  Builder builder(config, parts);
  builder.Add(OpKind::kEmbedding, "model.embed_tokens", {std::string(kInputIds)},
              {"model.embed_tokens.weight"});
  Node& rotary = builder.Add(OpKind::kRotary, "model.rotary", {std::string(kPositions)});
  rotary.outputs = {"model.rotary.cos", "model.rotary.sin"};
  rotary.attributes.rope = config.rope;
  rotary.attributes.head_dim = config.head_dim;
  std::string x = "model.embed_tokens";
  for (int64_t n = 0; n < config.num_hidden_layers; ++n) {
    x = builder.Layer(static_cast<int>(n), x);
  }
  builder.set_layer(-1);
  x = builder.Norm("model.norm", x);
  builder.Linear("lm_head", x, config.tie_word_embeddings ? "model.embed_tokens" : "lm_head",
                 config.hidden_size, config.vocab_size);
  return builder.Take();
}

}  // namespace samebits
