#include "samebits/diagnose/forms.h"

#include <map>

#include "samebits/base/error.h"

namespace samebits {

void Form::Apply(Replay& replay) const {
  replay.truncate = truncate;
  replay.truncate_weights = truncate_weights;
  for (const std::string& id : chains) {
    if (id == "bias-after-rounding") {
      replay.bias_place = BiasPlace::kAfterRounding;
    } else if (id == "norm-weight-fp32") {
      replay.norm_weight_fp32 = true;
    } else if (id == "rope-fp32") {
      replay.rope_fp32 = true;
    } else if (id == "scale-before-rounding") {
      replay.scale_place = ScalePlace::kBeforeRounding;
    } else if (id == "scale-constant-rounded") {
      replay.scale_place = ScalePlace::kRoundedConstant;
    } else if (id == "scale-on-query") {
      replay.scale_place = ScalePlace::kOnQuery;
    } else if (id == "kept-fp32") {
      replay.kept_fp32 = true;
    } else if (id == "fused-attention") {
      replay.fused = FusedAttention::kRoundedWeights;
    } else if (id == "fused-attention-fp32") {
      replay.fused = FusedAttention::kFloat32;
    } else if (id == "sums-truncated") {
      replay.truncating_sums = true;
    } else if (id == "products-tf32") {
      replay.products = tf32;
    } else if (id == "products-bf16x3") {
      replay.products = exact::Products::kBf16x3;
    } else if (id == "exp-approximate") {
      replay.exp_error = exp_error;
    } else {
      CheckFailed(__FILE__, __LINE__, "id", "not a chain");
    }
  }
}

ChainText DescribeChain(const std::string& id) {
  static const std::map<std::string, ChainText> kTexts = {
      {"bias-after-rounding",
       {"rounds the product before it adds the bias",
        "add the bias in fp32, inside the product: preferred_element_type=float32, then one cast"}},
      {"norm-weight-fp32",
       {"multiplies by the norm's weight in fp32 and casts once",
        "cast the normalised values first, then multiply by the weight"}},
      {"rope-fp32",
       {"rotates in fp32 and casts once", "cast cos, sin and each product to the model's dtype"}},
      {"scale-before-rounding",
       {"scales the scores in fp32 before the only cast",
        "cast q k^T to the model's dtype, then multiply by the scale"}},
      {"scale-constant-rounded",
       {"rounds the scale constant to the model's dtype",
        "multiply by a float32 scale and cast the product"}},
      {"scale-on-query",
       {"multiplies the query by the scale before q k^T", "multiply the product by the scale"}},
      {"kept-fp32", {"keeps the result in fp32", "cast the result to the model's dtype"}},
      {"fused-attention",
       {"computes attention in one kernel: scores and sums in fp32, weights cast for the product "
        "with v",
        "compare with attn_implementation=\"sdpa\""}},
      {"fused-attention-fp32",
       {"computes attention in one kernel, in fp32 up to the only cast",
        "compare with attn_implementation=\"sdpa\""}},
      {"sums-truncated",
       {"adds with an accumulator that cuts bits off, as tensor cores do",
        "accumulate in IEEE fp32 (no tensor cores)"}},
      {"products-tf32",
       {"multiplies TF32 operands: 10 bits of mantissa",
        "torch.backends.cuda.matmul.allow_tf32 = False; jax_default_matmul_precision = highest"}},
      {"products-bf16x3",
       {"multiplies float32 as three products of bfloat16 parts",
        "jax_default_matmul_precision = highest"}},
      {"exp-approximate",
       {"has an approximate exponential",
        "use an exponential that is good to "
        "the last bits"}},
  };
  const auto found = kTexts.find(id);
  SAMEBITS_CHECK(found != kTexts.end(), id);
  return found->second;
}

std::string GroupName(const Replay& replay) {
  switch (replay.node.kind) {
    case OpKind::kLinear:
      return replay.node.weights.size() > 1 ? "linear with bias" : "linear";
    case OpKind::kAttention:
      return replay.output == 0 ? "scores" : replay.output == 1 ? "probs" : "context";
    case OpKind::kRotary:
      return replay.output == 0 ? "cos" : "sin";
    case OpKind::kRmsNorm:  // those of heads are often code of their own
      return replay.node.attributes.heads > 0 ? "qk_norm" : "rms_norm";
    default:
      return std::string(OpKindName(replay.node.kind));
  }
}

std::vector<Form> FormsOf(const Replay& replay, DType model, bool wider, bool weights_rounded) {
  std::vector<std::vector<std::string>> chains = {{}};
  if (model != DType::kF32) {
    const OpKind kind = replay.node.kind;
    if (kind == OpKind::kLinear && replay.node.weights.size() > 1) {
      chains.push_back({"bias-after-rounding"});
    } else if (kind == OpKind::kRmsNorm) {
      chains.push_back({"norm-weight-fp32"});
    } else if (kind == OpKind::kRope) {
      chains.push_back({"rope-fp32"});
    } else if (kind == OpKind::kAttention && replay.output == 0) {
      chains.push_back({"scale-before-rounding"});
      chains.push_back({"scale-constant-rounded"});
      chains.push_back({"scale-on-query"});
    }
  }
  if (wider) {  // stored in fp32: rounded to the model's dtype before, or kept
    std::vector<std::vector<std::string>> both;
    for (std::vector<std::string> chain : chains) {
      both.push_back(chain);
      chain.push_back("kept-fp32");
      both.push_back(chain);
    }
    chains = both;
  }
  std::vector<Form> forms;
  forms.reserve(3 * chains.size());
  for (const auto& chain : chains) forms.push_back({chain, false, false});
  if (model == DType::kF32) return forms;
  for (const auto& chain : chains) forms.push_back({chain, true, false});
  if (weights_rounded) {
    for (const auto& chain : chains) forms.push_back({chain, true, true});
  }
  return forms;
}

std::vector<Form> AccumulatorForms(const Replay& replay, DType model,
                                   const std::vector<std::string>& chains) {
  using exact::Products;
  std::vector<Form> forms;
  const auto add = [&](const char* chain, Products tf32 = Products::kTf32Even) {
    Form form;
    form.chains = chains;
    form.chains.emplace_back(chain);
    form.tf32 = tf32;
    forms.push_back(std::move(form));
  };
  const OpKind kind = replay.node.kind;
  const bool probs = kind == OpKind::kAttention && replay.output == 1;
  if (probs || kind == OpKind::kActivation) add("exp-approximate");
  if (probs || (kind != OpKind::kLinear && kind != OpKind::kAttention)) return forms;
  constexpr std::pair<const char*, Products> kLossy[] = {{"products-tf32", Products::kTf32Even},
                                                         {"products-tf32", Products::kTf32Away},
                                                         {"products-tf32", Products::kTf32Cut},
                                                         {"products-bf16x3", Products::kTf32Even}};
  // Products that lose bits are a stronger statement than sums that do: those widen the bounds.
  for (const bool truncated : {false, true}) {
    if (model != DType::kF32) break;  // operands of 8 or 11 bits lose none
    for (const auto& [chain, tf32] : kLossy) {
      add(chain, tf32);
      if (truncated) forms.back().chains.emplace_back("sums-truncated");
    }
  }
  add("sums-truncated");
  return forms;
}

}  // namespace samebits
