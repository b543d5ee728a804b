#include <algorithm>
#include <cmath>

#include "samebits/diagnose/low_precision.h"
#include "samebits/diagnose/replay_context.h"
#include "samebits/numerics/bounds.h"

namespace samebits {
namespace {

int64_t KvHead(const ReplayContext& c, int64_t head) {
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

// Operands of products that may lose bits first (exact.h).
struct Operands {
  std::vector<double> values, low;  // low: of kBf16x3

  Operands(exact::Products products, std::vector<double> from) : values(std::move(from)) {
    exact::RoundOperands(products, values, low);
  }
  bool split() const { return !low.empty(); }
};

// As they come back from a cache of a narrower dtype, if the port has one.
std::vector<double> FromCache(const ReplayContext& c, std::vector<double> values) {
  if (c.replay.cache_dtype) {
    for (double& v : values) v = RoundToDType(v, *c.replay.cache_dtype);
  }
  return values;
}

// k of all keys [S, K, D], as the port reads it.
std::vector<double> Keys(const ReplayContext& c) {
  return FromCache(c, GatherRows(c.Input(1), {0, c.source.tokens()}, false));
}

std::vector<double> ProjectedValues(const ReplayContext& c) {
  const Attributes& a = c.attributes();
  const int64_t keys = c.source.tokens(), width = a.kv_heads * a.head_dim;
  std::vector<double> v = GatherRows(c.Input(2), {0, keys}, false);
  if (c.replay.heads_minor) v = ReadHeadsMinor(v, a.kv_heads, a.head_dim);
  // Narrower tables belong to another bug.
  if (!c.replay.rotates_v || c.Recorded("model.rotary.cos").shape.back() != a.head_dim ||
      c.Recorded("model.rotary.sin").shape.back() != a.head_dim) {
    return v;
  }
  const std::vector<double> cosine = GatherRows(c.Recorded("model.rotary.cos"), {0, keys}, false);
  const std::vector<double> sine = GatherRows(c.Recorded("model.rotary.sin"), {0, keys}, false);
  const std::vector<double> from = v;
  for (int64_t j = 0; j < keys; ++j) {
    for (int64_t i = 0; i < width; ++i) {
      const int64_t column = i % a.head_dim, half = a.head_dim / 2;
      const double other = from[j * width + i + (column < half ? half : -half)];
      const double x = c.RoundMiddle(from[j * width + i] * cosine[j * a.head_dim + column]);
      const double y = c.RoundMiddle(other * sine[j * a.head_dim + column]);
      v[j * width + i] = c.RoundMiddle(x + (column < half ? -y : y));
    }
  }
  return v;
}

// v of all keys [S, K, D], as the port reads it.
std::vector<double> Values(const ReplayContext& c) { return FromCache(c, ProjectedValues(c)); }

}  // namespace

Expectation EvaluateScores(const ReplayContext& c) {
  const Attributes& a = c.attributes();
  const int64_t d = a.head_dim, keys = c.source.tokens(), rows = c.rows.size();
  std::vector<double> q = c.InputRows(0);
  std::vector<double> k = Keys(c);
  const double scale = a.scale;
  const ScalePlace place = c.fp32() ? ScalePlace::kBeforeRounding : c.replay.scale_place;
  if (place == ScalePlace::kOnQuery) {
    for (double& v : q) v = c.RoundMiddle(RoundToDType(v * scale, DType::kF32));
  }
  const Operands queries(c.replay.products, std::move(q)),
      all_keys(c.replay.products, std::move(k));
  Expectation e;
  e.columns = keys;
  e.y.resize(static_cast<size_t>(a.heads * rows * keys));
  e.bound.resize(e.y.size());
  e.ignore.resize(e.y.size());
  e.likely_share = LikelyShare(static_cast<double>(d + 1));
  c.source.pool->ParallelFor(a.heads, [&](int64_t head) {
    const int64_t kv = KvHead(c, head);
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t query = (r * a.heads + head) * d;
      for (int64_t j = 0; j < keys; ++j) {
        const int64_t at = (head * rows + r) * keys + j;
        // Masked: may hold anything.
        if (!c.replay.all_scores && !Seen(a, MaskKind::kCausal, c.rows.begin + r, j)) {
          e.ignore[at] = 1;
          continue;
        }
        const int64_t key = (j * a.kv_heads + kv) * d;
        double y = 0, magnitude = 0;
        for (int64_t i = 0; i < d; ++i) {
          const double product = queries.values[query + i] * all_keys.values[key + i];
          y += product;
          magnitude += std::fabs(product);
        }
        if (queries.split()) {
          for (int64_t i = 0; i < d; ++i) y -= queries.low[query + i] * all_keys.low[key + i];
        }
        double bound = c.SumBound(d + 1, magnitude);
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
  if (c.replay.softcap.cap > 0) ApplySoftcap(c, e);
  return e;
}

Expectation EvaluateProbs(const ReplayContext& c) {
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
    if (!any && c.replay.all_scores) {  // masked by the lowest finite number, all keys are alike
      std::fill_n(e.y.begin() + at, keys, 1.0 / static_cast<double>(keys));
    } else if (!any) {  // nothing to see: what a port does then is its own affair
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
      // Its own exponential's error, and the mean one of the sum.
      for (int64_t j = 0; j < keys; ++j) e.bound[at + j] += 2 * c.replay.exp_error * e.y[at + j];
    }
  });
  return e;
}

Expectation EvaluateContext(const ReplayContext& c) {
  const Attributes& a = c.attributes();
  const int64_t d = a.head_dim, keys = c.source.tokens(), rows = c.rows.size();
  const Operands p(c.replay.products, GatherRows(c.Recorded(c.node().outputs.at(1)), c.rows, true));
  const Operands v(c.replay.products, Values(c));
  Expectation e;
  e.columns = a.heads * d;
  e.y.resize(static_cast<size_t>(rows * e.columns));
  e.bound.resize(e.y.size());
  c.source.pool->ParallelFor(a.heads, [&](int64_t head) {
    const int64_t kv = KvHead(c, head);
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t weights = (head * rows + r) * keys;
      int64_t terms = 0;  // a key with probability 0 adds nothing and rounds nothing
      const auto place = [&](int64_t i) {
        const int64_t column = c.replay.heads_minor_output ? i * a.heads + head : head * d + i;
        return r * e.columns + column;
      };
      for (int64_t j = 0; j < keys; ++j) {
        const double weight = p.values[weights + j];
        if (weight == 0) continue;
        ++terms;
        const int64_t values = (j * a.kv_heads + kv) * d;
        for (int64_t i = 0; i < d; ++i) {
          const double product = weight * v.values[values + i];
          const double lost = p.split() ? p.low[weights + j] * v.low[values + i] : 0;
          e.y[place(i)] += product - lost;
          e.bound[place(i)] += std::fabs(product);
        }
      }
      for (int64_t i = 0; i < d; ++i) {
        double& bound = e.bound[place(i)];
        bound = c.SumBound(terms + 1, bound);
      }
    }
  });
  e.tail = {c.Last()};
  return e;
}

Expectation EvaluateFusedAttention(const ReplayContext& c) {
  const Attributes& a = c.attributes();
  const int64_t d = a.head_dim, keys = c.source.tokens(), rows = c.rows.size();
  const std::vector<double> q = c.InputRows(0);
  const std::vector<double> k = Keys(c), v = Values(c);
  const bool rounded = c.replay.fused == FusedAttention::kRoundedWeights;
  Expectation e;
  e.columns = a.heads * d;
  e.y.resize(static_cast<size_t>(rows * e.columns));
  e.bound.resize(e.y.size());
  c.source.pool->ParallelFor(a.heads * rows, [&](int64_t item) {
    const int64_t head = item / rows, r = item % rows, kv = KvHead(c, head);
    std::vector<double> s(static_cast<size_t>(keys), -HUGE_VAL), error(s.size());
    double top = -HUGE_VAL;
    for (int64_t j = 0; j < keys; ++j) {
      if (!Seen(a, c.replay.mask, c.rows.begin + r, j)) continue;
      double sum = 0, magnitude = 0;
      for (int64_t i = 0; i < d; ++i) {
        const double product = q[(r * a.heads + head) * d + i] * k[(j * a.kv_heads + kv) * d + i];
        sum += product;
        magnitude += std::fabs(product);
      }
      s[j] = sum * a.scale;
      error[j] =
          std::fabs(a.scale) * c.SumBound(d + 1, magnitude) + 2 * kUnitRoundoff * std::fabs(s[j]);
      top = std::max(top, s[j]);
    }
    double* y = &e.y[r * e.columns + head * d];
    double* bound = &e.bound[r * e.columns + head * d];
    double total = 0;
    int64_t terms = 0;
    for (int64_t j = 0; j < keys; ++j) {
      if (s[j] == -HUGE_VAL) continue;
      const double weight = std::exp(s[j] - top);
      const double used = rounded ? RoundToDType(weight, c.model) : weight;
      total += weight;
      ++terms;
      const double relative = error[j] + (top - s[j] + 5) * kUnitRoundoff;
      for (int64_t i = 0; i < d; ++i) {
        const double product = used * v[(j * a.kv_heads + kv) * d + i];
        y[i] += product;
        bound[i] += 2 * std::fabs(product) * relative;
      }
    }
    for (int64_t i = 0; i < d && total > 0; ++i) {
      y[i] /= total;
      bound[i] = bound[i] / total + std::fabs(y[i]) * Gamma(static_cast<double>(terms) + 2);
    }
  });
  e.tail = {c.Last()};
  return e;
}

void ApplySoftcap(const ReplayContext& c, Expectation& e) {
  const Softcap& softcap = c.replay.softcap;
  const auto rn = [&](double v) { return RoundToDType(v, c.model); };
  const bool steps = softcap.rounding == Softcap::Rounding::kSteps;
  if (softcap.rounding == Softcap::Rounding::kEnd && !e.tail.empty()) {
    e.tail.back() = RoundStep(DType::kF32);
  }
  const auto capped = [&](double v, double slack) {
    const double t = std::tanh(steps ? rn(v / softcap.cap) : v / softcap.cap);
    const double tanh = t * (1 + slack);
    return ApplyTail({c.Last()}, (steps ? rn(tanh) : tanh) * softcap.cap, 0);
  };
  constexpr double kSlack = 8 * kUnitRoundoff;  // tanh in fp32, and a division and a product
  e.low.resize(e.y.size());
  e.high.resize(e.y.size());
  for (size_t i = 0; i < e.y.size(); ++i) {
    const int64_t column = static_cast<int64_t>(i) % e.columns;
    const double a = ApplyTail(e.tail, e.y[i] - e.bound[i], column);
    const double b = ApplyTail(e.tail, e.y[i] + e.bound[i], column);
    const double low = std::min(a, b), high = std::max(a, b);
    e.low[i] = capped(low, low > 0 ? -kSlack : kSlack);
    e.high[i] = capped(high, high > 0 ? kSlack : -kSlack);
    e.y[i] = capped(ApplyTail(e.tail, e.y[i], column), 0);
  }
  e.bound.clear();
  e.tail.clear();
}

}  // namespace samebits
