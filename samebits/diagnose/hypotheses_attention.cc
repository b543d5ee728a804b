// Hypotheses of scores, probs and context.
#include <fmt/format.h>

#include <cstdlib>

#include "samebits/diagnose/hypotheses.h"
#include "samebits/diagnose/scan.h"

namespace samebits {
namespace {

void WindowHypotheses(const Replay& base, const ReplaySource& source, Hypotheses& list) {
  const int64_t window = base.node.attributes.window;
  const auto add = [&](int64_t other, std::string detail) {
    Replay r = base;
    r.node.attributes.window = other;
    AddHypothesis(list, "sliding-window", std::move(detail), r);
  };
  if (window > 0 && window < source.tokens()) {
    add(0, "sees all tokens before: there is no sliding window");
  }
  for (const int64_t other : {window - 1, window + 1}) {
    if (window == 0 || other == 0) continue;
    add(other, fmt::format("sees {} tokens, itself included, instead of {}", other, window));
  }
  const int64_t shown = WindowInTrace(base, source);
  if (shown != 0 && std::abs(shown - window) > (window == 0 ? 0 : 1)) {
    add(shown, window == 0
                   ? fmt::format("has a sliding window of {}; the checkpoint has none here", shown)
                   : fmt::format("has a sliding window of {} instead of {}", shown, window));
  }
}

void TiledHypothesis(const Replay& base, Hypotheses& list) {
  const Attributes& a = base.node.attributes;
  if (a.kv_heads <= 1 || a.kv_heads == a.heads) return;
  Replay tiled = base;
  tiled.kv_heads_tiled = true;
  AddHypothesis(list, "gqa-head-order",
                "head h reads key-value head h mod n instead of h div group", tiled);
}

// In bfloat16 a float16 cache loses nothing that shows: its eleven bits hold bfloat16's eight.
void CacheHypotheses(const Replay& base, const ReplaySource& source, Hypotheses& list) {
  if (source.dtype == DType::kBF16) return;
  for (const DType dtype : {DType::kF16, DType::kBF16}) {
    if (source.dtype == dtype) continue;
    Replay r = base;
    r.cache_dtype = dtype;
    AddHypothesis(list, "cache-low-precision",
                  fmt::format("reads k and v from a cache in {}", ModelDTypeName(dtype)), r);
  }
}

}  // namespace

void ScoresHypotheses(const Replay& base, const ReplaySource& source, Hypotheses& list) {
  TiledHypothesis(base, list);
  CacheHypotheses(base, source, list);
  for (double scale : ScaleCandidates(base, source)) {
    list.push_back(WithValue(
        {"attention-scale", "", base, {}, static_cast<double>(base.node.attributes.scale)}, scale));
  }
  for (const double cap : {50.0, 30.0, 20.0, 15.0}) {
    for (const Softcap::Rounding rounding : kSoftcapRoundings) {
      Replay r = base;
      r.softcap = {cap, rounding};
      list.push_back(
          {"softcap", fmt::format("caps the scores at {:g} with tanh", cap), r, cap, {}});
    }
  }
  const std::string prefix = LayerPrefix(base.node) + "self_attn.";
  Replay normed = base;
  normed.node.inputs[0] = prefix + "q_norm";
  normed.node.inputs[1] = prefix + "k_norm";
  if (source.graph->Producer(normed.node.inputs[0]) != nullptr) {
    AddHypothesis(list, "qk-norm", "multiplies q_norm and k_norm: rotated first, then normalised",
                  normed);
  }
  if (source.dtype == DType::kF16) return;
  Replay half = base;
  half.rounded_to = DType::kF16;
  AddHypothesis(list, "overflow-f16", "computes q k^T in float16, which ends at 65504", half);
}

void ProbsHypotheses(const Replay& base, const ReplaySource& source, Hypotheses& list) {
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
    AddHypothesis(list, missing ? "mask-missing" : "mask-offset", detail, r);
  }
  WindowHypotheses(base, source, list);
  if (source.dtype == DType::kF32) return;
  for (LowPrecisionForm form = 1; form <= kSoftmaxForms; ++form) {
    Replay r = base;
    r.softmax_form = form;
    AddHypothesis(list, "softmax-low-precision", "takes exp and sum in the model's dtype", r);
  }
}

void ContextHypotheses(const Replay& base, const ReplaySource& source, Hypotheses& list) {
  TiledHypothesis(base, list);
  CacheHypotheses(base, source, list);
  for (const bool output : {false, true}) {
    for (const bool input : {false, true}) {
      if (!output && !input) continue;
      Replay minor = base;
      minor.heads_minor = input;
      minor.heads_minor_output = output;
      AddHypothesis(list, "head-layout",
                    input ? "reads v as [head_dim, heads] where [heads, head_dim] stands"
                          : "joins the heads as [head_dim, heads]",
                    minor);
    }
  }
  Replay rotated = base;
  rotated.rotates_v = true;
  AddHypothesis(list, "rope-missing", "rotates v, too", rotated);
}

}  // namespace samebits
