// Hypotheses of the rotary tables and of the rotation.
#include <fmt/format.h>

#include <cmath>

#include "samebits/diagnose/hypotheses.h"
#include "samebits/diagnose/scan.h"

namespace samebits {
namespace {

void ScalingHypotheses(const Replay& base, Hypotheses& list) {
  const RopeParameters& rope = base.node.attributes.rope;
  const auto with = [&](auto&& edit, std::string detail) {
    Replay r = base;
    edit(r.node.attributes.rope);
    if (r.node.attributes.rope == rope) return;
    AddHypothesis(list, "rope-scaling", std::move(detail), r);
  };
  if (rope.kind == RopeKind::kDefault) {
    for (const double factor : {2.0, 4.0, 8.0, 16.0, 32.0}) {
      with(
          [&](RopeParameters& p) {
            p.kind = RopeKind::kLinear;
            p.factor = factor;
          },
          fmt::format("scales positions by 1/{:g}; the checkpoint has no scaling", factor));
    }
    return;
  }
  with(
      [&](RopeParameters& p) {
        p = RopeParameters{};
        p.theta = rope.theta;
      },
      fmt::format("has the frequencies of theta alone, without {} scaling",
                  RopeKindName(rope.kind)));
  if (rope.kind == RopeKind::kYarn) {
    with([](RopeParameters& p) { p.attention_factor = 1.0; },
         "leaves out yarn's factor on cos and sin");
  }
  for (const double factor : {rope.factor * rope.factor, 2 * rope.factor, rope.factor / 2,
                              std::sqrt(rope.factor), 2.0, 4.0, 8.0, 16.0, 32.0}) {
    if (factor < 1) continue;
    with([&](RopeParameters& p) { p.factor = factor; },
         fmt::format("scales with factor {:g} instead of {:g}", factor, rope.factor));
    if (rope.kind != RopeKind::kYarn) continue;
    // Its factor on cos and sin follows from the factor, or not.
    with(
        [&](RopeParameters& p) {
          p.attention_factor = exact::RotaryScaling(rope);
          p.factor = factor;
        },
        fmt::format("scales with factor {:g} instead of {:g}", factor, rope.factor));
  }
  if (rope.kind != RopeKind::kLinear) {
    for (const double factor : {2.0, 4.0, 8.0, rope.factor}) {
      with(
          [&](RopeParameters& p) {
            p.original_length =
                static_cast<int64_t>(static_cast<double>(p.original_length) * factor);
          },
          fmt::format("takes {:g} times the original length", factor));
    }
    with(
        [&](RopeParameters& p) {
          p = RopeParameters{};
          p.kind = RopeKind::kLinear;
          p.theta = rope.theta;
          p.factor = rope.factor;
        },
        fmt::format("scales linearly instead of by {}", RopeKindName(rope.kind)));
  }
}

void PrecisionHypotheses(const Replay& base, Hypotheses& list) {
  const std::pair<RotaryRounding, const char*> places[] = {
      {RotaryRounding::kFrequency, "inverse frequencies"},
      {RotaryRounding::kPosition, "positions"},
      {RotaryRounding::kAngle, "angles"}};
  for (const auto& [place, what] : places) {
    for (const DType dtype : {DType::kBF16, DType::kF16}) {
      Replay r = base;
      r.rotary_rounding = place;
      r.rotary_dtype = dtype;
      AddHypothesis(list, "rope-low-precision",
                    fmt::format("rounds the {} to {}", what, ModelDTypeName(dtype)), r);
    }
  }
}

void PartialHypotheses(const Replay& base, const ReplaySource& source, Hypotheses& list) {
  const int64_t d = base.node.attributes.head_dim;
  const TensorView* view = source.tensor(base.node.outputs[static_cast<size_t>(base.output)]);
  const int64_t width = view == nullptr ? d : view->shape.back();
  // Tables with fewer columns. (Another denominator alone is another theta.)
  if (width < d) {
    for (const int64_t denominator : {int64_t{0}, width, d}) {  // 0: as the configuration says
      Replay r = base;
      r.rotary_dim = width;
      r.frequency_dim = static_cast<double>(denominator);
      AddHypothesis(list, "rope-partial",
                    fmt::format("rotates {} of {} dimensions of a head", width, d), r);
    }
  }
}

}  // namespace

void RotaryHypotheses(const Replay& base, const ReplaySource& source, Hypotheses& list) {
  ScalingHypotheses(base, list);
  for (double theta : ThetaCandidates(base, source)) {
    list.push_back(WithValue({"rope-theta", "", base, {}, base.node.attributes.rope.theta}, theta));
  }
  Replay layout = base;
  layout.rotary_interleaved = true;
  AddHypothesis(list, "rope-interleaved", "lays the angles out for pairs (2i, 2i+1)", layout);
  if (base.output == 1) {
    Replay sign = base;
    sign.sin_sign = -1;
    AddHypothesis(list, "rope-rotation-direction", "has the sine with the other sign", sign);
  }
  const int64_t first_pass = source.chunks.empty() ? source.tokens() : source.chunks.front();
  for (int64_t offset : {1, -1, 2, -2, 3, -3, 4, -4}) {
    Replay r = base;
    r.position_offset = offset;
    list.push_back({"rope-position-offset", fmt::format("positions are off by {}", offset), r,
                    static_cast<double>(offset), 0.0});
    if (first_pass == source.tokens()) continue;
    r.offset_from = first_pass;
    list.push_back({"cache-offset",
                    fmt::format("positions are off by {} from the first cached step on", offset), r,
                    static_cast<double>(offset), 0.0});
  }
  PartialHypotheses(base, source, list);
  PrecisionHypotheses(base, list);
}

void RopeHypotheses(const Replay& base, const ReplaySource& source, Hypotheses& list) {
  for (bool halves : {false, true}) {
    for (bool by_pair : {false, true}) {
      Replay r = base;
      r.rope_interleaved = true;
      r.rope_angle_by_pair = by_pair;
      r.rope_output_halves = halves;
      AddHypothesis(list, "rope-interleaved",
                    "rotates the pairs (2i, 2i+1) instead of (i, i + head_dim/2)", r);
    }
  }
  Replay sign = base;
  sign.sin_sign = -1;
  AddHypothesis(list, "rope-rotation-direction", "rotates the other way", sign);
  Replay skipped = base;
  skipped.rope_skipped = true;
  AddHypothesis(list, "rope-missing", "does not rotate", skipped);
  Replay minor = base;
  minor.heads_minor = true;
  AddHypothesis(list, "head-layout", "reads [head_dim, heads] where [heads, head_dim] stands",
                minor);
  const int64_t d = base.node.attributes.head_dim;
  for (const int64_t part : {d / 2, d / 4, 3 * d / 4}) {
    if (part % 2 != 0 || part == 0) continue;
    Replay r = base;
    r.rotary_dim = part;
    AddHypothesis(list, "rope-partial",
                  fmt::format("rotates {} of {} dimensions of a head", part, d), r);
  }
  const std::string& input = base.node.inputs[0];
  if (!input.ends_with("_norm")) return;
  const std::string projection = input.substr(0, input.size() - 4) + "proj";
  Replay unnormed = base;
  unnormed.node.inputs[0] = projection;
  AddHypothesis(list, "qk-norm", "rotates what was not normalised", unnormed);
  Replay late = unnormed;
  late.norm_after_rope = true;
  for (const Node& node : source.graph->nodes) {
    if (node.outputs[0] != input) continue;
    late.node.weights = node.weights;
    late.node.attributes.eps = node.attributes.eps;
  }
  AddHypothesis(list, "qk-norm", "rotates first and normalises then", late);
}

}  // namespace samebits
