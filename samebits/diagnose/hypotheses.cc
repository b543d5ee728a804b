#include "samebits/diagnose/hypotheses.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <map>
#include <set>

#include "samebits/base/error.h"
#include "samebits/diagnose/scan.h"

namespace samebits {
namespace {

using List = std::vector<Hypothesis>;

void Add(List& list, const char* cause, std::string detail, Replay replay) {
  list.push_back({cause, std::move(detail), std::move(replay), {}, {}});
}

std::string LayerPrefix(const Node& node) { return fmt::format("model.layers.{}.", node.layer); }

void RotaryHypotheses(const Replay& base, const ReplaySource& source, List& list) {
  const RopeParameters& rope = base.node.attributes.rope;
  if (rope.kind != RopeKind::kDefault) {
    Replay r = base;
    r.node.attributes.rope = RopeParameters{};
    r.node.attributes.rope.theta = rope.theta;
    Add(list, "rope-scaling-missing",
        fmt::format("has the frequencies of theta alone, without {} scaling",
                    RopeKindName(rope.kind)),
        r);
  }
  if (rope.kind == RopeKind::kYarn) {
    Replay r = base;
    r.node.attributes.rope.attention_factor = 1.0;
    Add(list, "rope-attention-factor", "leaves out yarn's factor on cos and sin", r);
  }
  for (double theta : ThetaCandidates(base, source)) {
    list.push_back(WithValue({"rope-theta", "", base, {}, base.node.attributes.rope.theta}, theta));
  }
  Replay layout = base;
  layout.rotary_interleaved = true;
  Add(list, "rope-interleaved", "lays the angles out for pairs (2i, 2i+1)", layout);
  if (base.output == 1) {
    Replay sign = base;
    sign.sin_sign = -1;
    Add(list, "rope-rotation-direction", "has the sine with the other sign", sign);
  }
  for (int64_t offset : {1, -1}) {
    Replay r = base;
    r.position_offset = offset;
    list.push_back({"rope-position-offset", fmt::format("positions are off by {}", offset), r,
                    static_cast<double>(offset), 0.0});
  }
}

void NormHypotheses(const Replay& base, const ReplaySource& source, List& list) {
  const Node& node = base.node;
  for (bool rounded : {false, true}) {
    Replay r = base;
    r.weight_offset = 1;
    r.offset_rounded = rounded;
    Add(list, "norm-weight-plus-one", "multiplies by 1 + weight", r);
  }
  if (node.attributes.heads > 0) {
    Replay r = base;
    r.norm_skipped = true;
    Add(list, "qk-norm-missing", "does not normalise the heads", r);
  }
  std::set<std::string> others;
  for (const Node& other : source.graph->nodes) {
    const bool near = other.layer == node.layer || other.layer < 0;
    const bool fits = other.kind == OpKind::kRmsNorm &&
                      other.attributes.in_features == node.attributes.in_features &&
                      (other.attributes.heads > 0) == (node.attributes.heads > 0);
    if (near && fits) others.insert(other.weights[0]);
  }
  others.erase(node.weights[0]);
  for (const std::string& other : others) {
    Replay r = base;
    r.node.weights[0] = other;
    Add(list, "weights-swapped", fmt::format("uses {}", other), r);
  }
  for (double eps : EpsCandidates(base, source)) {
    list.push_back(WithValue({"norm-eps", "", base, {}, node.attributes.eps}, eps));
  }
  if (source.dtype == DType::kF32) return;
  using Finish = NormPrecision::Finish;
  for (Finish finish : {Finish::kFloat32, Finish::kRsqrt, Finish::kSqrtDivide}) {
    for (bool squares : {false, true}) {
      Replay r = base;
      r.norm_precision = {true, squares, finish};
      Add(list, "norm-low-precision", "takes the mean of squares in the model's dtype", r);
    }
  }
}

void LinearHypotheses(const Replay& base, const ReplaySource& source, List& list) {
  const Node& node = base.node;
  if (node.attributes.in_features == node.attributes.out_features) {
    Replay r = base;
    r.weight_transposed = true;
    Add(list, "weight-not-transposed", "computes x W instead of x W^T", r);
  }
  const bool gate = node.name.ends_with("gate_proj"), up = node.name.ends_with("up_proj");
  for (const Node& other : source.graph->nodes) {
    const bool fits = other.kind == OpKind::kLinear && other.layer == node.layer &&
                      other.weights[0] != node.weights[0] &&
                      other.attributes.in_features == node.attributes.in_features &&
                      other.attributes.out_features == node.attributes.out_features;
    if (!fits) continue;
    const bool pair =
        (gate && other.name.ends_with("up_proj")) || (up && other.name.ends_with("gate_proj"));
    Replay r = base;
    r.node.weights[0] = other.weights[0];
    Add(list, pair ? "gate-up-swapped" : "weights-swapped",
        fmt::format("uses {}", other.weights[0]), r);
    if (node.weights.size() > 1 && other.weights.size() > 1) {
      r.node.weights[1] = other.weights[1];
      Add(list, "weights-swapped", fmt::format("uses {} and its bias", other.weights[0]), r);
    }
  }
  if (node.weights.size() < 2) return;
  Replay missing = base;
  missing.bias_times = 0;
  Add(list, "bias-missing", "adds no bias", missing);
  for (BiasPlace place :
       {base.bias_place, BiasPlace::kBeforeRounding, BiasPlace::kBeforeAndAfter}) {
    Replay r = base;
    r.bias_times = 2;
    r.bias_place = place;
    Add(list, "bias-twice", "adds the bias twice", r);
  }
}

void RopeHypotheses(const Replay& base, List& list) {
  for (bool halves : {false, true}) {
    for (bool by_pair : {false, true}) {
      Replay r = base;
      r.rope_interleaved = true;
      r.rope_angle_by_pair = by_pair;
      r.rope_output_halves = halves;
      Add(list, "rope-interleaved", "rotates the pairs (2i, 2i+1) instead of (i, i + head_dim/2)",
          r);
    }
  }
  Replay sign = base;
  sign.sin_sign = -1;
  Add(list, "rope-rotation-direction", "rotates the other way", sign);
  Replay skipped = base;
  skipped.rope_skipped = true;
  Add(list, "rope-missing", "does not rotate", skipped);
  std::string& input = skipped.node.inputs[0];
  if (input.ends_with("_norm")) {
    skipped.rope_skipped = false;
    input.replace(input.size() - 4, 4, "proj");
    Add(list, "qk-norm-missing", "rotates what was not normalised", skipped);
  }
}

void ScoresHypotheses(const Replay& base, const ReplaySource& source, List& list) {
  Replay tiled = base;
  tiled.kv_heads_tiled = true;
  const Attributes& a = base.node.attributes;
  if (a.kv_heads > 1 && a.kv_heads < a.heads) {
    Add(list, "gqa-head-order", "head h reads key-value head h mod n instead of h div group",
        tiled);
  }
  for (double scale : ScaleCandidates(base, source)) {
    list.push_back(
        WithValue({"attention-scale", "", base, {}, static_cast<double>(a.scale)}, scale));
  }
}

void WindowHypotheses(const Replay& base, const ReplaySource& source, List& list) {
  const int64_t window = base.node.attributes.window;
  const auto add = [&](const char* cause, int64_t other, std::string detail) {
    Replay r = base;
    r.node.attributes.window = other;
    Add(list, cause, std::move(detail), r);
  };
  if (window > 0 && window < source.tokens()) {
    add("window-missing", 0, "sees all tokens before: there is no sliding window");
  }
  for (const int64_t other : {window - 1, window + 1}) {
    if (window == 0 || other == 0) continue;
    add("window-off-by-one", other,
        fmt::format("sees {} tokens, itself included, instead of {}", other, window));
  }
  const int64_t shown = WindowInTrace(base, source);
  if (shown != 0 && std::abs(shown - window) > (window == 0 ? 0 : 1)) {
    add("window-size", shown,
        window == 0 ? fmt::format("has a sliding window of {}; the checkpoint has none here", shown)
                    : fmt::format("has a sliding window of {} instead of {}", shown, window));
  }
}

void ProbsHypotheses(const Replay& base, const ReplaySource& source, List& list) {
  const std::pair<MaskKind, const char*> masks[] = {
      {MaskKind::kNone, "sees later tokens: there is no causal mask"},
      {MaskKind::kLater, "sees later tokens: there is a window and no causal mask"},
      {MaskKind::kNotSelf, "a token does not see itself"},
      {MaskKind::kNext, "a token sees the next one"}};
  for (const auto& [mask, detail] : masks) {
    if (mask == MaskKind::kLater && base.node.attributes.window == 0) continue;
    Replay r = base;
    r.mask = mask;
    const bool missing = mask == MaskKind::kNone || mask == MaskKind::kLater;
    Add(list, missing ? "mask-missing" : "mask-offset", detail, r);
  }
  WindowHypotheses(base, source, list);
  if (source.dtype == DType::kF32) return;
  for (LowPrecisionForm form = 1; form <= kSoftmaxForms; ++form) {
    Replay r = base;
    r.softmax_form = form;
    Add(list, "softmax-low-precision", "takes exp and sum in the model's dtype", r);
  }
}

void ActivationHypotheses(const Replay& base, const ReplaySource& source, List& list) {
  for (const char* name : {"gelu", "gelu_tanh", "relu", "quick_gelu", "identity"}) {
    Replay r = base;
    r.node.attributes.activation = name;
    Add(list, "activation",
        fmt::format("computes {} instead of {}", name, base.node.attributes.activation), r);
  }
  Replay other = base;
  other.node.inputs[0] = LayerPrefix(base.node) + "mlp.up_proj";
  Add(list, "gate-up-swapped", "takes up_proj instead of gate_proj", other);
  if (source.dtype == DType::kF32) return;
  for (LowPrecisionForm form = 1; form <= kActivationForms; ++form) {
    Replay r = base;
    r.activation_form = form;
    Add(list, "activation-low-precision", "rounds the steps of SiLU to the model's dtype", r);
  }
}

void ElementwiseHypotheses(const Replay& base, List& list) {
  const Node& node = base.node;
  Replay r = base;
  if (node.kind == OpKind::kMultiply) {
    r.node.inputs[1] = LayerPrefix(node) + "mlp.gate_proj";
    Add(list, "gate-up-swapped", "multiplies by gate_proj instead of up_proj", r);
    return;
  }
  r.node.inputs[0] =
      LayerPrefix(node) +
      (node.name.ends_with("attn_residual") ? "input_layernorm" : "post_attention_layernorm");
  Add(list, "residual-source", "adds to the normalised input instead of the input", r);
}

}  // namespace

std::vector<Hypothesis> HypothesesFor(const Replay& base, const ReplaySource& source) {
  List list;
  switch (base.node.kind) {
    case OpKind::kEmbedding:
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
      RopeHypotheses(base, list);
      break;
    case OpKind::kAttention:
      if (base.output == 0) ScoresHypotheses(base, source, list);
      if (base.output == 1) ProbsHypotheses(base, source, list);
      if (base.output == 2 && base.node.attributes.kv_heads > 1) {
        Replay tiled = base;
        tiled.kv_heads_tiled = true;
        Add(list, "gqa-head-order", "head h reads key-value head h mod n instead of h div group",
            tiled);
      }
      break;
    case OpKind::kActivation:
      ActivationHypotheses(base, source, list);
      break;
    case OpKind::kAdd:
    case OpKind::kMultiply:
      ElementwiseHypotheses(base, list);
      break;
  }
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

std::string FixFor(const std::string& cause) {
  static const std::map<std::string, std::string> kFixes = {
      {"weight-not-transposed",
       "Checkpoints store [out, in]: transpose the weight on loading (in JAX: kernel = weight.T). "
       "Square weights raise no shape error."},
      {"weights-swapped", "Load each tensor under its own name."},
      {"gate-up-swapped", "The activation belongs on gate_proj; up_proj is multiplied as it is."},
      {"bias-missing", "The checkpoint has a bias for this projection: load and add it."},
      {"bias-twice", "Add the bias once; with several ranks or fused layers, on one of them only."},
      {"norm-eps", "Take rms_norm_eps from config.json."},
      {"norm-weight-plus-one",
       "Multiply by the weight itself: this family does not store weight - 1."},
      {"norm-low-precision", "Compute the mean of squares and the root in fp32, then cast."},
      {"rope-theta", "Take rope_theta from config.json."},
      {"rope-interleaved",
       "Hugging Face rotates the halves: pair (i, i + head_dim/2); either do the same or permute "
       "the "
       "rows of q_proj and k_proj."},
      {"rope-rotation-direction", "y = x cos + rotate_half(x) sin, rotate_half(x) = (-x2, x1)."},
      {"rope-position-offset", "Positions count from 0."},
      {"rope-scaling-missing",
       "Read rope_scaling (rope_parameters in newer files) of config.json and scale the inverse "
       "frequencies as it says."},
      {"rope-attention-factor",
       "With yarn cos and sin are multiplied by attention_factor: 0.1 ln(factor) + 1 unless "
       "config.json says otherwise."},
      {"qk-norm-missing",
       "Normalise each head of q and k (q_norm, k_norm) before the rotary embedding."},
      {"window-missing", "Mask the keys at token - sliding_window and before."},
      {"window-off-by-one",
       "A token sees sliding_window tokens, itself included: token - sliding_window < key <= "
       "token."},
      {"window-size",
       "Take the window, and the layers that have it, from config.json: sliding_window, "
       "use_sliding_window, max_window_layers, layer_types."},
      {"rope-missing", "Apply the rotary embedding to q and to k."},
      {"attention-scale", "Scale the scores once, by head_dim ** -0.5."},
      {"gqa-head-order",
       "Query head h belongs to key-value head h // (num_attention_heads / num_key_value_heads): "
       "repeat each key-value head in place (repeat), do not tile."},
      {"mask-missing", "Apply the causal mask before the softmax."},
      {"mask-offset", "A token sees itself and all before it: key j <= query t."},
      {"activation", "Take hidden_act from config.json."},
      {"cast-truncation", "Round to nearest even when casting fp32 down; do not cut bits off."},
      {"softmax-low-precision", "Cast the scores to fp32, take the softmax, cast back."},
      {"activation-low-precision", "Cast to fp32 before SiLU and back behind it."},
      {"residual-source", "The residual is the input of the norm, not its output."},
      {"unexplained", "No known cause reproduces these values: look at this operation first."},
  };
  const auto found = kFixes.find(cause);
  return found == kFixes.end() ? "" : found->second;
}

}  // namespace samebits
