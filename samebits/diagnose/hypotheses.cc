#include "samebits/diagnose/hypotheses.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "samebits/base/error.h"
#include "samebits/tensor/convert.h"

namespace samebits {

void AddHypothesis(Hypotheses& list, const char* cause, std::string detail, Replay replay) {
  list.push_back({cause, std::move(detail), std::move(replay), {}, {}});
}

std::string LayerPrefix(const Node& node) { return fmt::format("model.layers.{}.", node.layer); }

void EmbeddingHypotheses(const Replay& base, const ReplaySource& source, Hypotheses& list) {
  const double root = std::sqrt(static_cast<double>(source.graph->config.hidden_size));
  for (const DType dtype : {DType::kF32, source.dtype}) {  // of the constant
    Replay r = base;
    r.embedding_factor = RoundToDType(root, dtype);
    AddHypothesis(list, "embedding-scale", "multiplies the embedding by sqrt(hidden_size)", r);
  }
  WeightHypotheses(base, source, list);
}

namespace {

void ActivationHypotheses(const Replay& base, const ReplaySource& source, Hypotheses& list) {
  for (const char* name : {"gelu", "gelu_tanh", "relu", "quick_gelu", "identity"}) {
    Replay r = base;
    r.node.attributes.activation = name;
    AddHypothesis(list, "activation",
                  fmt::format("computes {} instead of {}", name, base.node.attributes.activation),
                  r);
  }
  Replay other = base;
  other.node.inputs[0] = LayerPrefix(base.node) + "mlp.up_proj";
  AddHypothesis(list, "gate-up-swapped", "takes up_proj instead of gate_proj", other);
  if (source.dtype == DType::kF32) return;
  for (LowPrecisionForm form = 1; form <= kActivationForms; ++form) {
    Replay r = base;
    r.activation_form = form;
    AddHypothesis(list, "activation-low-precision", "rounds the steps of SiLU to the model's dtype",
                  r);
  }
}

// What an addition takes for the residual, in the order in which it could have been at hand.
void ResidualHypotheses(const Replay& base, Hypotheses& list) {
  const Node& node = base.node;
  const bool attention = node.name.ends_with("attn_residual");
  const std::string prefix = LayerPrefix(node);
  Replay normed = base;
  normed.node.inputs[0] = prefix + (attention ? "input_layernorm" : "post_attention_layernorm");
  AddHypothesis(list, "residual-source", "adds to the normalised input instead of the input",
                normed);
  Replay missing = base;
  missing.drops_first = true;
  AddHypothesis(list, "residual-source", "adds no residual", missing);
  if (!attention) {
    Replay early = base;
    early.node.inputs[0] =
        node.layer == 0 ? "model.embed_tokens" : fmt::format("model.layers.{}", node.layer - 1);
    AddHypothesis(list, "residual-source", "adds to the layer's input instead of attn_residual",
                  early);
  }
}

void ElementwiseHypotheses(const Replay& base, Hypotheses& list) {
  if (base.node.kind == OpKind::kAdd) return ResidualHypotheses(base, list);
  Replay r = base;
  r.node.inputs[1] = LayerPrefix(base.node) + "mlp.gate_proj";
  AddHypothesis(list, "gate-up-swapped", "multiplies by gate_proj instead of up_proj", r);
}

// A result that has the bits of a narrower dtype than the model runs in.
void NarrowHypotheses(const Replay& base, const ReplaySource& source, Hypotheses& list) {
  if (source.dtype != DType::kF32) return;
  const char* cause = nullptr;
  switch (base.node.kind) {
    case OpKind::kRotary:
    case OpKind::kRope:
      cause = "rope-low-precision";
      break;
    case OpKind::kRmsNorm:
      cause = "norm-low-precision";
      break;
    case OpKind::kLinear:
      cause = "accumulator-low-precision";
      break;
    case OpKind::kAttention:
      cause = base.output == 1 ? "softmax-low-precision" : "accumulator-low-precision";
      break;
    case OpKind::kActivation:
    case OpKind::kMultiply:
      cause = "activation-low-precision";
      break;
    case OpKind::kAdd:
      cause = "residual-low-precision";
      break;
    case OpKind::kEmbedding:  // its weights are what is narrow
    case OpKind::kGather:     // not in a whole graph, nor are these
    case OpKind::kSend:
    case OpKind::kReceive:
      return;
  }
  for (const DType dtype : {DType::kBF16, DType::kF16}) {
    Replay r = base;
    r.rounded_to = dtype;
    AddHypothesis(list, cause,
                  fmt::format("rounds the result to {} in a float32 model", ModelDTypeName(dtype)),
                  r);
  }
  if (base.node.kind != OpKind::kLinear && base.node.kind != OpKind::kAttention) return;
  if (base.node.kind == OpKind::kAttention && base.output == 1) return;
  Replay r = base;
  r.products = exact::Products::kBf16;
  AddHypothesis(list, "accumulator-low-precision",
                "rounds the operands of its products to bfloat16", r);
}

}  // namespace

std::vector<Hypothesis> HypothesesFor(const Replay& base, const ReplaySource& source) {
  Hypotheses list;
  switch (base.node.kind) {
    case OpKind::kEmbedding:
      EmbeddingHypotheses(base, source, list);
      break;
    case OpKind::kRotary:
      RotaryHypotheses(base, source, list);
      break;
    case OpKind::kRmsNorm:
      NormHypotheses(base, source, list);
      break;
    case OpKind::kLinear:
      LinearHypotheses(base, source, list);
      break;
    case OpKind::kRope:
      RopeHypotheses(base, source, list);
      break;
    case OpKind::kAttention:
      if (base.output == 0) ScoresHypotheses(base, source, list);
      if (base.output == 1) ProbsHypotheses(base, source, list);
      if (base.output == 2) ContextHypotheses(base, source, list);
      break;
    case OpKind::kActivation:
      ActivationHypotheses(base, source, list);
      break;
    case OpKind::kAdd:
    case OpKind::kMultiply:
      ElementwiseHypotheses(base, list);
      break;
    case OpKind::kGather:
    case OpKind::kSend:
    case OpKind::kReceive:
      break;  // not in a whole graph
  }
  NarrowHypotheses(base, source, list);
  // An edit may ask for tensors that the trace does not hold.
  std::erase_if(list, [&](const Hypothesis& h) {
    const std::vector<std::string> names = RequiredTensors(h.replay);
    return std::any_of(names.begin(), names.end(),
                       [&](const std::string& name) { return source.tensor(name) == nullptr; });
  });
  return list;
}

bool HasContinuousValue(const std::string& cause) {
  return cause == "norm-eps" || cause == "rope-theta" || cause == "attention-scale";
}

Hypothesis WithValue(const Hypothesis& hypothesis, double value) {
  Hypothesis result = hypothesis;
  result.value = value;
  Attributes& attributes = result.replay.node.attributes;
  if (hypothesis.cause == "norm-eps") {
    attributes.eps = value;
    result.detail = fmt::format("uses eps {:g}", value);
  } else if (hypothesis.cause == "rope-theta") {
    attributes.rope.theta = value;
    result.detail = fmt::format("uses theta {:g}", value);
  } else {
    SAMEBITS_CHECK(hypothesis.cause == "attention-scale", hypothesis.cause);
    attributes.scale = static_cast<float>(value);
    result.value = static_cast<double>(attributes.scale);  // the fp32 constant is what counts
    result.detail = fmt::format("scales by {:.9g}", *result.value);
  }
  return result;
}

}  // namespace samebits
