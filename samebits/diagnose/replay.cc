#include "samebits/diagnose/replay.h"

#include <algorithm>
#include <cmath>

#include "samebits/diagnose/low_precision.h"
#include "samebits/diagnose/replay_context.h"
#include "samebits/numerics/bounds.h"

namespace samebits {
namespace {

Expectation EvaluateEmbedding(const ReplayContext& c) {
  const TensorView& weight = c.source.checkpoint->Get(c.node().weights.at(0));
  const int64_t size = weight.shape[1];
  Expectation e;
  e.columns = size;
  for (int64_t t = c.rows.begin; t < c.rows.end; ++t) {
    TensorView row{
        weight.dtype, {size}, weight.data + c.source.input_ids[t] * size * DTypeSize(weight.dtype)};
    for (double v : ToDoubles(row)) {
      if (c.replay.weight_through) v = RoundToDType(v, *c.replay.weight_through);
      e.y.push_back(c.replay.truncate_weights ? TruncateToDType(v, c.model)
                                              : RoundToDType(v, c.model));
    }
  }
  if (c.replay.embedding_factor != 1)
    e.tail = {MultiplyStep({c.replay.embedding_factor}), c.Last()};
  return e;
}

Expectation EvaluateActivation(const ReplayContext& c) {
  const std::vector<double> x = c.InputRows(0);
  Expectation e;
  e.columns = c.Input(0).shape.back();
  e.y.resize(x.size());
  if (c.replay.activation_form != 0) {
    e.low.resize(x.size());
    e.high.resize(x.size());
    for (size_t i = 0; i < x.size(); ++i) {
      const Outcomes o = SiluLowPrecision(c.replay.activation_form, x[i], c.model);
      e.low[i] = o.low;
      e.y[i] = o.middle;
      e.high[i] = o.high;
    }
    return e;
  }
  e.bound.resize(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    exact::Activation(c.attributes().activation, x[i], &e.y[i], &e.bound[i]);
    e.bound[i] += c.replay.exp_error * std::fabs(e.y[i]);
  }
  e.tail = {c.Last()};
  return e;
}

Expectation EvaluateElementwise(const ReplayContext& c) {
  const std::vector<double> a = c.InputRows(0), b = c.InputRows(1);
  Expectation e;
  e.columns = c.Input(0).shape.back();
  e.y.resize(a.size());
  for (size_t i = 0; i < a.size(); ++i) {
    const double first = c.replay.drops_first ? 0 : a[i];
    e.y[i] = c.node().kind == OpKind::kAdd ? first + b[i] : a[i] * b[i];
  }
  // round: one fp32 operation, then the cast; fp64 holds the product, and more than twice the bits
  // of the sum, so rounding again gives the same (Figueroa 1995: p' >= 2 p + 2).
  e.tail = {c.Last()};
  return e;
}

}  // namespace

std::vector<double> ReplayContext::WeightVector(const std::string& name) const {
  const TensorView& view = source.checkpoint->Get(name);
  std::vector<double> values = ToDoubles(view);
  for (double& v : values) {
    if (replay.weight_through) v = RoundToDType(v, *replay.weight_through);
    if (view.dtype == model) continue;
    v = replay.truncate_weights ? TruncateToDType(v, model) : RoundToDType(v, model);
  }
  return values;
}

bool IsPerHead(const Replay& replay) {
  return replay.node.kind == OpKind::kAttention && replay.output < 2;
}

std::vector<std::string> RequiredTensors(const Replay& replay) {
  const Node& node = replay.node;
  if (node.kind == OpKind::kAttention) {
    if (replay.output == 0) return {node.inputs[0], node.inputs[1]};
    if (replay.output == 1) return {node.outputs[0]};
    if (replay.fused != FusedAttention::kNone) return node.inputs;
    if (replay.rotates_v) {
      return {node.outputs[1], node.inputs[2], "model.rotary.cos", "model.rotary.sin"};
    }
    return {node.outputs[1], node.inputs[2]};
  }
  std::vector<std::string> names;
  for (const std::string& name : node.inputs) {
    if (name != kInputIds && name != kPositions) names.push_back(name);
  }
  return names;
}

std::vector<double> GatherRows(const TensorView& view, RowRange rows, bool per_head) {
  const int64_t outer = per_head ? view.shape[0] : 1;
  const int64_t tokens = view.shape[per_head ? 1 : 0];
  const int64_t width = tokens == 0 ? 0 : view.elements() / (outer * tokens);
  std::vector<double> values;
  values.reserve(static_cast<size_t>(outer * rows.size() * width));
  for (int64_t o = 0; o < outer; ++o) {
    TensorView part{view.dtype,
                    {rows.size() * width},
                    view.data + (o * tokens + rows.begin) * width * DTypeSize(view.dtype)};
    std::vector<double> some = ToDoubles(part);
    if (outer == 1) return some;
    values.insert(values.end(), some.begin(), some.end());
  }
  return values;
}

Expectation Evaluate(const Replay& replay, const ReplaySource& source, DType stored,
                     RowRange rows) {
  // A tensor stored wider than the model's dtype was rounded to the model's dtype first, unless the
  // port keeps it in fp32.
  DType last =
      replay.kept_fp32 || DTypeSize(stored) < DTypeSize(source.dtype) ? stored : source.dtype;
  if (replay.rounded_to) last = *replay.rounded_to;
  const ReplayContext context{replay, source, source.dtype, last, rows};
  switch (replay.node.kind) {
    case OpKind::kEmbedding:
      return EvaluateEmbedding(context);
    case OpKind::kRotary:
      return EvaluateRotary(context);
    case OpKind::kRmsNorm:
      return EvaluateRmsNorm(context);
    case OpKind::kLinear:
      return EvaluateLinear(context);
    case OpKind::kRope:
      return EvaluateRope(context);
    case OpKind::kAttention:
      if (replay.output == 0) return EvaluateScores(context);
      if (replay.output == 1) return EvaluateProbs(context);
      if (replay.fused != FusedAttention::kNone) return EvaluateFusedAttention(context);
      return EvaluateContext(context);
    case OpKind::kActivation:
      return EvaluateActivation(context);
    case OpKind::kAdd:
    case OpKind::kMultiply:
      return EvaluateElementwise(context);
  }
  CheckFailed(__FILE__, __LINE__, "kind", "not an OpKind");
}

}  // namespace samebits
