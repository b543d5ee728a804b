#include "samebits/graph/graph.h"

#include <algorithm>

#include "samebits/base/error.h"
#include "samebits/graph/builders.h"

namespace samebits {

std::string_view OpKindName(OpKind kind) {
  switch (kind) {
    case OpKind::kEmbedding:
      return "embedding";
    case OpKind::kRotary:
      return "rotary";
    case OpKind::kRmsNorm:
      return "rms_norm";
    case OpKind::kLinear:
      return "linear";
    case OpKind::kRope:
      return "rope";
    case OpKind::kAttention:
      return "attention";
    case OpKind::kAdd:
      return "add";
    case OpKind::kActivation:
      return "activation";
    case OpKind::kMultiply:
      return "multiply";
    case OpKind::kGather:
      return "gather";
    case OpKind::kSend:
      return "send";
    case OpKind::kReceive:
      return "receive";
  }
  return "";
}

const Node* Graph::Producer(std::string_view tensor) const {
  for (const Node& node : nodes) {
    if (std::find(node.outputs.begin(), node.outputs.end(), tensor) != node.outputs.end()) {
      return &node;
    }
  }
  return nullptr;
}

size_t FirstForLogits(const Graph& graph) {
  size_t index = graph.nodes.size();
  while (index > 0 && graph.nodes[index - 1].kind != OpKind::kAttention &&
         graph.nodes[index - 1].kind != OpKind::kSend) {
    --index;
  }
  return index;
}

std::vector<int64_t> OutputShape(const Graph& graph, const Node& node, std::string_view output,
                                 int64_t tokens) {
  const ModelConfig& c = graph.config;
  const Attributes& a = node.attributes;
  switch (node.kind) {
    case OpKind::kEmbedding:
    case OpKind::kAdd:
    case OpKind::kReceive:
      return {tokens, c.hidden_size};
    case OpKind::kRmsNorm:
      if (a.heads != 0) return {tokens, a.heads, a.head_dim};
      return {tokens, a.in_features};
    case OpKind::kRotary:
      return {tokens, a.head_dim};
    case OpKind::kLinear:
      return {tokens, a.out_features};
    case OpKind::kRope:
      return {tokens, a.heads, a.head_dim};
    case OpKind::kAttention:
      if (output == node.outputs[2]) return {tokens, a.heads * a.head_dim};
      return {a.heads, tokens, tokens};
    case OpKind::kActivation:
    case OpKind::kMultiply:
      return {tokens, node.split ? node.split.range().size() : c.intermediate_size};
    case OpKind::kGather:
      return {tokens, node.split.whole * node.split.unit};
    case OpKind::kSend:
      return {};
  }
  return {};
}

Graph BuildGraph(const ModelConfig& config) {
  if (!config.unsupported.empty()) {
    std::string reasons;
    for (const std::string& reason : config.unsupported) reasons += "\n  " + reason;
    Fail(ErrorCode::kUnsupported, "config.json: this checkpoint can not be run:{}", reasons);
  }
  if (config.model_type == "llama") return BuildLlama(config);
  if (config.model_type == "mistral") return BuildMistral(config);
  if (config.model_type == "qwen2") return BuildQwen2(config);
  if (config.model_type == "qwen3") return BuildQwen3(config);
  Fail(ErrorCode::kUnsupported, "model_type '{}': supported are llama, mistral, qwen2 and qwen3",
       config.model_type);
}

}  // namespace samebits
