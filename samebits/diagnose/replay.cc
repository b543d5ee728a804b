#include "samebits/diagnose/replay.h"

#include <algorithm>
#include <cmath>

#include "samebits/base/error.h"
#include "samebits/diagnose/low_precision.h"
#include "samebits/numerics/bounds.h"
#include "samebits/numerics/exact.h"
#include "samebits/tensor/convert.h"

namespace samebits {
namespace {

// What every evaluation below is given, with the small decisions taken once.
struct Context {
  const Replay& replay;
  const ReplaySource& source;
  DType model;   // intermediate roundings
  DType stored;  // the last rounding
  RowRange rows;

  const Node& node() const { return replay.node; }
  const Attributes& attributes() const { return replay.node.attributes; }
  bool fp32() const { return model == DType::kF32; }
  TailStep Last() const { return RoundStep(stored, replay.truncate); }
  TailStep Middle() const { return RoundStep(model, replay.truncate); }
  double RoundMiddle(double v) const {
    return replay.truncate ? TruncateToDType(v, model) : RoundToDType(v, model);
  }
  const TensorView& Input(size_t index) const {
    const TensorView* view = source.tensor(node().inputs.at(index));
    SAMEBITS_CHECK(view != nullptr, "a required tensor is missing");
    return *view;
  }
  std::vector<double> InputRows(size_t index) const {
    return GatherRows(Input(index), rows, false);
  }
};

// A one-dimensional weight in the model's dtype.
std::vector<double> WeightVector(const Context& c, size_t index) {
  const TensorView& view = c.source.checkpoint->Get(c.node().weights.at(index));
  std::vector<double> values = ToDoubles(view);
  if (view.dtype == c.model) return values;
  for (double& v : values) {
    v = c.replay.truncate_weights ? TruncateToDType(v, c.model) : RoundToDType(v, c.model);
  }
  return values;
}

Expectation EvaluateEmbedding(const Context& c) {
  const TensorView& weight = c.source.checkpoint->Get(c.node().weights.at(0));
  const int64_t size = weight.shape[1];
  Expectation e;
  e.columns = size;
  for (int64_t t = c.rows.begin; t < c.rows.end; ++t) {
    TensorView row{
        weight.dtype, {size}, weight.data + c.source.input_ids[t] * size * DTypeSize(weight.dtype)};
    for (double v : ToDoubles(row)) {
      e.y.push_back(c.replay.truncate_weights ? TruncateToDType(v, c.model)
                                              : RoundToDType(v, c.model));
    }
  }
  return e;
}

Expectation EvaluateRotary(const Context& c) {
  const int64_t d = c.attributes().head_dim;
  const RopeParameters& rope = c.attributes().rope;
  const std::vector<exact::Frequency> frequencies =
      exact::InverseFrequencies(rope, d, c.source.length());
  const double scaling = exact::RotaryScaling(rope);
  Expectation e;
  e.columns = d;
  e.y.reserve(static_cast<size_t>(c.rows.size() * d));
  e.bound.reserve(static_cast<size_t>(c.rows.size() * d));
  for (int64_t t = c.rows.begin; t < c.rows.end; ++t) {
    for (int64_t column = 0; column < d; ++column) {
      const int64_t pair = c.replay.rotary_interleaved ? column / 2 : column % (d / 2);
      double cosine = 0, sine = 0, bound = 0;
      exact::Rotary(c.source.positions[t] + c.replay.position_offset,
                    frequencies[static_cast<size_t>(pair)], scaling, &cosine, &sine, &bound);
      e.y.push_back(c.replay.output == 0 ? cosine : c.replay.sin_sign * sine);
      e.bound.push_back(bound);
    }
  }
  e.tail = {c.Last()};
  return e;
}

Expectation EvaluateRmsNorm(const Context& c) {
  const std::vector<double> x = c.InputRows(0);
  if (c.replay.norm_skipped) {
    Expectation skipped;
    skipped.columns = c.attributes().in_features;
    skipped.y = x;
    skipped.bound.resize(x.size());
    skipped.tail = {c.Last()};
    return skipped;
  }
  std::vector<double> w = WeightVector(c, 0);
  const auto size = static_cast<int64_t>(w.size());
  if (c.replay.weight_offset != 0) {
    for (double& v : w) {
      v += c.replay.weight_offset;
      v = c.replay.offset_rounded ? RoundToDType(v, c.model) : RoundToDType(v, DType::kF32);
    }
  }
  const int64_t rows = static_cast<int64_t>(x.size()) / size;  // of tokens, or of their heads
  Expectation e;
  e.columns = size;
  e.y.resize(x.size());
  if (c.replay.norm_precision.low) {
    e.low.resize(x.size());
    e.high.resize(x.size());
    std::vector<Outcomes> row(static_cast<size_t>(size));
    const Tail tail = {MultiplyStep(w), c.Last()};
    for (int64_t r = 0; r < rows; ++r) {
      RmsNormLowPrecision(c.replay.norm_precision, &x[r * size], size, c.attributes().eps, c.model,
                          row.data());
      for (int64_t k = 0; k < size; ++k) {
        const double a = ApplyTail(tail, row[k].low, k);
        const double b = ApplyTail(tail, row[k].high, k);
        e.y[r * size + k] = ApplyTail(tail, row[k].middle, k);
        e.low[r * size + k] = std::min(a, b);
        e.high[r * size + k] = std::max(a, b);
      }
    }
    return e;
  }
  e.bound.resize(x.size());
  const bool weight_inside = c.fp32() || c.replay.norm_weight_fp32;
  for (int64_t r = 0; r < rows; ++r) {
    double relative = 0;
    exact::RmsNormRow(&x[r * size], size, c.attributes().eps, &e.y[r * size], &relative);
    for (int64_t k = 0; k < size; ++k) {
      double& y = e.y[r * size + k];
      double& bound = e.bound[r * size + k];
      bound = relative * std::fabs(y);
      if (!weight_inside) continue;
      y *= w[k];
      bound = std::fabs(w[k]) * bound + 2 * kUnitRoundoff * std::fabs(y);
    }
  }
  if (weight_inside) {
    e.tail = {c.Last()};
  } else {
    e.tail = {c.Middle(), MultiplyStep(std::move(w)), c.Last()};
  }
  return e;
}

Expectation EvaluateLinear(const Context& c) {
  const std::vector<double> x = c.InputRows(0);
  const TensorView& weight = c.source.checkpoint->Get(c.node().weights.at(0));
  exact::DotArgs args;
  args.x = x.data();
  args.w = weight;
  args.dtype = c.model;
  args.transposed = c.replay.weight_transposed;
  args.truncate = c.replay.truncate_weights;
  args.rows = c.rows.size();
  args.size = c.attributes().in_features;
  args.outs = c.attributes().out_features;
  Expectation e;
  e.columns = args.outs;
  e.y.resize(static_cast<size_t>(args.rows * args.outs));
  e.bound.resize(e.y.size());
  args.y = e.y.data();
  args.magnitude = e.bound.data();
  constexpr int64_t kPiece = 64;
  c.source.pool->ParallelFor((args.outs + kPiece - 1) / kPiece, [&](int64_t piece) {
    exact::Dots(args, piece * kPiece, std::min(args.outs, (piece + 1) * kPiece));
  });
  std::vector<double> bias;
  if (c.node().weights.size() > 1) bias = WeightVector(c, 1);
  const int times = bias.empty() ? 0 : c.replay.bias_times;
  int inside = times, after = 0;
  if (times > 0 && c.replay.bias_place == BiasPlace::kAfterRounding) {
    inside = 0;
    after = times;
  } else if (times > 0 && c.replay.bias_place == BiasPlace::kBeforeAndAfter) {
    inside = 1;
    after = times - 1;
  }
  for (size_t i = 0; i < e.y.size(); ++i) {
    if (inside > 0) {
      const double b = bias[i % static_cast<size_t>(args.outs)] * inside;
      e.y[i] += b;
      e.bound[i] += std::fabs(b);
    }
    e.bound[i] = exact::SumBound(args.size + 1 + inside, e.bound[i]);
  }
  for (int i = 0; i < after; ++i) {
    e.tail.push_back(c.Middle());
    e.tail.push_back(AddStep(bias));
  }
  e.tail.push_back(c.Last());
  return e;
}

Expectation EvaluateRope(const Context& c) {
  const std::vector<double> x = c.InputRows(0);
  const std::vector<double> cosine = c.InputRows(1), sine = c.InputRows(2);
  const int64_t heads = c.attributes().heads, d = c.attributes().head_dim;
  const bool deterministic = !c.fp32() && !c.replay.rope_fp32;
  Expectation e;
  e.columns = d;
  e.y.resize(x.size());
  if (!deterministic) e.bound.resize(x.size());
  for (int64_t row = 0; row < c.rows.size() * heads; ++row) {
    const int64_t t = row / heads;
    for (int64_t i = 0; i < d; ++i) {
      const int64_t partner = c.replay.rope_interleaved ? i ^ 1 : (i + d / 2) % d;
      const bool first = c.replay.rope_interleaved ? i % 2 == 0 : i < d / 2;
      const double rotated = x[row * d + partner] * (first ? -1 : 1) * c.replay.sin_sign;
      const int64_t angle = t * d + (c.replay.rope_angle_by_pair ? i / 2 : i);
      int64_t to = row * d + i;
      if (c.replay.rope_output_halves) to = row * d + i / 2 + (i % 2) * (d / 2);
      if (c.replay.rope_skipped) {
        e.y[to] = x[row * d + i];
        continue;
      }
      const double a = x[row * d + i] * cosine[angle], b = rotated * sine[angle];
      if (deterministic) {  // round: each product; B = 0, the sum of the two is exact in fp64
        e.y[to] = c.RoundMiddle(a) + c.RoundMiddle(b);
      } else {
        e.y[to] = a + b;
        e.bound[to] = 1.01 * kUnitRoundoff * (std::fabs(a) + std::fabs(b));
      }
    }
  }
  e.tail = {c.Last()};
  return e;
}

int64_t KvHead(const Context& c, int64_t head) {
  const Attributes& a = c.attributes();
  return c.replay.kv_heads_tiled ? head % a.kv_heads : head / (a.heads / a.kv_heads);
}

bool Seen(const Attributes& a, MaskKind mask, int64_t token, int64_t key) {
  if (mask == MaskKind::kNone) return true;
  if (a.window > 0 && key <= token - a.window) return false;
  switch (mask) {
    case MaskKind::kLater:
      return true;
    case MaskKind::kNotSelf:
      return key < token;
    case MaskKind::kNext:
      return key <= token + 1;
    default:
      return key <= token;
  }
}

Expectation EvaluateScores(const Context& c) {
  const Attributes& a = c.attributes();
  const int64_t d = a.head_dim, keys = c.source.tokens(), rows = c.rows.size();
  std::vector<double> q = c.InputRows(0);
  const std::vector<double> k = GatherRows(c.Input(1), {0, keys}, false);
  const double scale = a.scale;
  const ScalePlace place = c.fp32() ? ScalePlace::kBeforeRounding : c.replay.scale_place;
  if (place == ScalePlace::kOnQuery) {
    for (double& v : q) v = c.RoundMiddle(RoundToDType(v * scale, DType::kF32));
  }
  Expectation e;
  e.columns = keys;
  e.y.resize(static_cast<size_t>(a.heads * rows * keys));
  e.bound.resize(e.y.size());
  e.ignore.resize(e.y.size());
  c.source.pool->ParallelFor(a.heads, [&](int64_t head) {
    const int64_t kv = KvHead(c, head);
    for (int64_t r = 0; r < rows; ++r) {
      const double* query = &q[(r * a.heads + head) * d];
      for (int64_t j = 0; j < keys; ++j) {
        const int64_t at = (head * rows + r) * keys + j;
        if (!Seen(a, MaskKind::kCausal, c.rows.begin + r, j)) {  // masked: may hold anything
          e.ignore[at] = 1;
          continue;
        }
        const double* key = &k[(j * a.kv_heads + kv) * d];
        double y = 0, magnitude = 0;
        for (int64_t i = 0; i < d; ++i) {
          y += query[i] * key[i];
          magnitude += std::fabs(query[i] * key[i]);
        }
        double bound = exact::SumBound(d + 1, magnitude);
        if (place == ScalePlace::kBeforeRounding) {
          y *= scale;
          bound = std::fabs(scale) * bound + 2 * kUnitRoundoff * std::fabs(y);
        }
        e.y[at] = y;
        e.bound[at] = bound;
      }
    }
  });
  if (place == ScalePlace::kAfterRounding) {
    e.tail = {c.Middle(), MultiplyStep({scale}), c.Last()};
  } else if (place == ScalePlace::kRoundedConstant) {
    e.tail = {c.Middle(), MultiplyStep({RoundToDType(scale, c.model)}), c.Last()};
  } else {
    e.tail = {c.Last()};
  }
  return e;
}

Expectation EvaluateProbs(const Context& c) {
  const int64_t heads = c.attributes().heads, keys = c.source.tokens(), rows = c.rows.size();
  const TensorView* recorded = c.source.tensor(c.node().outputs.at(0));
  const std::vector<double> s = GatherRows(*recorded, c.rows, true);
  Expectation e;
  e.columns = keys;
  e.y.resize(s.size());
  e.bound.resize(s.size());
  e.ignore.resize(s.size());
  const bool low_precision = c.replay.softmax_form != 0;
  if (low_precision) {
    e.low.resize(s.size());
    e.high.resize(s.size());
  } else {
    e.tail = {c.Last()};
  }
  c.source.pool->ParallelFor(heads * rows, [&](int64_t row) {
    const int64_t at = row * keys, token = c.rows.begin + row % rows;
    std::vector<uint8_t> visible(static_cast<size_t>(keys));
    bool any = false;
    for (int64_t j = 0; j < keys; ++j) {
      visible[j] = Seen(c.attributes(), c.replay.mask, token, j) ? 1 : 0;
      any = any || visible[j] != 0;
    }
    if (!any) {  // nothing to see: what a port does then is its own affair
      std::fill_n(e.ignore.begin() + at, keys, uint8_t{1});
    } else if (low_precision) {
      std::vector<Outcomes> outcomes(static_cast<size_t>(keys));
      SoftmaxLowPrecision(c.replay.softmax_form, &s[at], visible.data(), keys, c.model,
                          outcomes.data());
      for (int64_t j = 0; j < keys; ++j) {
        e.low[at + j] = outcomes[j].low;
        e.y[at + j] = outcomes[j].middle;
        e.high[at + j] = outcomes[j].high;
      }
    } else {
      exact::SoftmaxRow(&s[at], visible.data(), keys, &e.y[at], &e.bound[at]);
    }
  });
  return e;
}

Expectation EvaluateContext(const Context& c) {
  const Attributes& a = c.attributes();
  const int64_t d = a.head_dim, keys = c.source.tokens(), rows = c.rows.size();
  const TensorView* recorded = c.source.tensor(c.node().outputs.at(1));
  const std::vector<double> p = GatherRows(*recorded, c.rows, true);
  const std::vector<double> v = GatherRows(c.Input(2), {0, keys}, false);
  Expectation e;
  e.columns = a.heads * d;
  e.y.resize(static_cast<size_t>(rows * e.columns));
  e.bound.resize(e.y.size());
  c.source.pool->ParallelFor(a.heads, [&](int64_t head) {
    const int64_t kv = KvHead(c, head);
    for (int64_t r = 0; r < rows; ++r) {
      const double* weights = &p[(head * rows + r) * keys];
      int64_t terms = 0;  // a key with probability 0 adds nothing and rounds nothing
      double* y = &e.y[r * e.columns + head * d];
      double* magnitude = &e.bound[r * e.columns + head * d];
      for (int64_t j = 0; j < keys; ++j) {
        if (weights[j] == 0) continue;
        ++terms;
        const double* values = &v[(j * a.kv_heads + kv) * d];
        for (int64_t i = 0; i < d; ++i) {
          y[i] += weights[j] * values[i];
          magnitude[i] += std::fabs(weights[j] * values[i]);
        }
      }
      for (int64_t i = 0; i < d; ++i) magnitude[i] = exact::SumBound(terms + 1, magnitude[i]);
    }
  });
  e.tail = {c.Last()};
  return e;
}

Expectation EvaluateActivation(const Context& c) {
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
  }
  e.tail = {c.Last()};
  return e;
}

Expectation EvaluateElementwise(const Context& c) {
  const std::vector<double> a = c.InputRows(0), b = c.InputRows(1);
  Expectation e;
  e.columns = c.Input(0).shape.back();
  e.y.resize(a.size());
  for (size_t i = 0; i < a.size(); ++i) {
    e.y[i] = c.node().kind == OpKind::kAdd ? a[i] + b[i] : a[i] * b[i];
  }
  // round: one fp32 operation, then the cast; fp64 holds the product, and more than twice the bits
  // of the sum, so rounding again gives the same (Figueroa 1995: p' >= 2 p + 2).
  e.tail = {c.Last()};
  return e;
}

}  // namespace

bool IsPerHead(const Replay& replay) {
  return replay.node.kind == OpKind::kAttention && replay.output < 2;
}

std::vector<std::string> RequiredTensors(const Replay& replay) {
  const Node& node = replay.node;
  if (node.kind == OpKind::kAttention) {
    if (replay.output == 0) return {node.inputs[0], node.inputs[1]};
    if (replay.output == 1) return {node.outputs[0]};
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
  const DType last =
      replay.kept_fp32 || DTypeSize(stored) < DTypeSize(source.dtype) ? stored : source.dtype;
  const Context context{replay, source, source.dtype, last, rows};
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
