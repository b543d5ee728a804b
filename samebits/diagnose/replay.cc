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

std::vector<double> ReadHeadsMinor(const std::vector<double>& x, int64_t heads, int64_t head_dim) {
  std::vector<double> y(x.size());
  const int64_t width = heads * head_dim;
  for (size_t i = 0; i < x.size(); ++i) {
    const auto at = static_cast<int64_t>(i) % width, row = static_cast<int64_t>(i) - at;
    y[i] = x[row + at % head_dim * heads + at / head_dim];
  }
  return y;
}

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

Interval IntervalOf(const Expectation& e, size_t i, double share) {
  if (!e.low.empty()) return {e.low[i], e.y[i], e.high[i]};
  const int64_t column = static_cast<int64_t>(i) % e.columns;
  const double middle = ApplyTail(e.tail, e.y[i], column);
  const double bound = e.bound.empty() ? 0 : e.bound[i] * share;
  if (bound == 0) return {middle, middle, middle};
  const double a = ApplyTail(e.tail, e.y[i] - bound, column);
  const double b = ApplyTail(e.tail, e.y[i] + bound, column);
  return {std::min(a, b), middle, std::max(a, b)};
}

// A sum of K terms errs by a few roundings, not by K of them.
double TypicalShare(const Replay& replay, int64_t keys) {
  const Attributes& a = replay.node.attributes;
  switch (replay.node.kind) {
    case OpKind::kLinear:
      return 4.0 / static_cast<double>(std::max<int64_t>(4, a.in_features));
    case OpKind::kRmsNorm:  // of K/2 + 7 roundings
      return 8.0 / (static_cast<double>(a.in_features) / 2 + 7);
    case OpKind::kAttention:
      if (replay.output == 1) return 1;
      return 4.0 /
             static_cast<double>(std::max<int64_t>(4, replay.output == 0 ? a.head_dim : keys));
    default:
      return 1;
  }
}

void StoreOutcomes(const Replay& replay, const Expectation& e, int64_t keys, RoundingNoise* noise,
                   Tensor& tensor) {
  const double share = noise != nullptr ? TypicalShare(replay, keys) : 0;
  for (size_t i = 0; i < e.y.size(); ++i) {
    if (!e.ignore.empty() && e.ignore[i] != 0) continue;
    const bool moves = noise != nullptr && !e.bound.empty();
    const double moved = moves ? noise->Of(share * e.bound[i]) : 0;
    const auto at = static_cast<int64_t>(i);
    StoreValue(tensor, at, ApplyTail(e.tail, e.y[i] + moved, at % e.columns));
  }
}

double ReplayCost(const Replay& replay, int64_t tokens) {
  const Attributes& a = replay.node.attributes;
  const auto t = static_cast<double>(tokens);
  if (replay.node.kind == OpKind::kLinear) {
    return t * static_cast<double>(a.in_features) * static_cast<double>(a.out_features);
  }
  if (replay.node.kind != OpKind::kAttention || replay.output == 1) return 0;
  return t * t * static_cast<double>(a.heads) * static_cast<double>(a.head_dim);
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
    case OpKind::kGather:
    case OpKind::kSend:
    case OpKind::kReceive:
      break;  // not in a whole graph
  }
  CheckFailed(__FILE__, __LINE__, "kind", "not an OpKind");
}

}  // namespace samebits
