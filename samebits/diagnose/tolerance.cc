#include "samebits/diagnose/tolerance.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "samebits/diagnose/whole_run.h"
#include "samebits/numerics/bounds.h"

namespace samebits {
namespace {

std::string Derivation(const Replay& replay, DType dtype, int64_t tokens) {
  const Attributes& a = replay.node.attributes;
  const bool narrow = dtype != DType::kF32;
  const std::string cast =
      narrow ? fmt::format(", then one cast to {}", ModelDTypeName(dtype)) : "";
  switch (replay.node.kind) {
    case OpKind::kEmbedding:
      return "a row of the weight: exact";
    case OpKind::kRotary:
      return "fp32 frequency, angle and function: r |angle| + 4u" + cast;
    case OpKind::kRmsNorm:
      return fmt::format("|y| (gamma({}) / 2 + 6u){}", a.in_features + 2,
                         narrow ? ", cast, times the weight, cast" : ", times the weight: 2u more");
    case OpKind::kLinear:
      return fmt::format("gamma({}) (sum |x w| + |b|)", a.in_features + 2) + cast;
    case OpKind::kRope:
      return narrow ? "products and sum are each one operation and one cast: exact"
                    : "1.01u (|x cos| + |rot(x) sin|)";
    case OpKind::kAttention:
      if (replay.output == 0) {
        return fmt::format("gamma({}) sum |q k|{}", a.head_dim + 1,
                           narrow ? ", cast, times the scale, cast" : ", times the scale: 2u more");
      }
      if (replay.output == 1) {
        return fmt::format("y (e + mean e + gamma({}) + 2u), e = (max - s + 5) u", tokens) + cast;
      }
      return fmt::format("gamma({}) sum |p v|", tokens + 1) + cast;
    case OpKind::kActivation:
      return "8u |y|" + cast;
    case OpKind::kAdd:
    case OpKind::kMultiply:
      return "one fp32 operation" + cast + ": exact";
    case OpKind::kGather:
    case OpKind::kSend:
    case OpKind::kReceive:
      break;  // not in a whole graph
  }
  return "";
}

NodeTolerance ToleranceOfNode(const Replay& replay, const TensorView& tensor, const Expectation& e,
                              DType dtype, int64_t tokens) {
  NodeTolerance t;
  t.node = replay.node.outputs[static_cast<size_t>(replay.output)];
  t.derivation = Derivation(replay, dtype, tokens);
  double squares = 0;
  int64_t elements = 0, single = 0;
  std::vector<double> middles(e.y.size()), rooms(e.y.size());
  for (size_t i = 0; i < e.y.size(); ++i) {
    if (!e.ignore.empty() && e.ignore[i] != 0) continue;
    const Interval interval = IntervalOf(e, i);
    const double middle = interval.middle;
    const double room = std::max(middle - interval.low, interval.high - middle);
    middles[i] = middle;
    rooms[i] = room;
    squares += middle * middle;
    ++elements;
    single += room == 0 ? 1 : 0;
    t.atol = std::max(t.atol, room);
    const double steps = std::ceil(room / (2 * HalfUlp(middle, tensor.dtype)) - 1e-9);
    t.ulps = std::max(t.ulps, static_cast<int64_t>(steps));
  }
  if (elements == 0) return t;
  const double size = std::sqrt(squares / static_cast<double>(elements));
  for (size_t i = 0; i < middles.size(); ++i) {
    if (std::fabs(middles[i]) >= size && size > 0) {
      t.rtol = std::max(t.rtol, rooms[i] / std::fabs(middles[i]));
    }
  }
  t.exact_share = static_cast<double>(single) / static_cast<double>(elements);
  return t;
}

}  // namespace

Tolerances ToleranceOf(const Graph& graph, const Checkpoint& checkpoint,
                       const std::vector<int64_t>& ids, DType dtype, int threads) {
  ThreadPool pool(threads);
  const ReplaySource source = SourceOfIds(graph, checkpoint, pool, dtype, ids, "tolerance");
  const auto tokens = static_cast<int64_t>(ids.size());
  Tolerances result;
  result.dtype = dtype;
  result.tokens = tokens;
  std::vector<double> logits;
  RunWholeJudged(source, {},
                 [&](const Replay& replay, const TensorView& tensor, const Expectation& e) {
                   result.nodes.push_back(ToleranceOfNode(replay, tensor, e, dtype, tokens));
                   if (result.nodes.back().node == "lm_head") logits = ToDoubles(tensor);
                 });
  for (const uint64_t seed : {1, 2, 3}) {
    RunWhole(
        source, {},
        [&](const std::string& name, const TensorView& tensor) {
          if (name != "lm_head") return;
          const std::vector<double> other = ToDoubles(tensor);
          for (size_t i = 0; i < other.size(); ++i) {
            result.logits_spread = std::max(result.logits_spread, std::fabs(other[i] - logits[i]));
          }
        },
        seed);
  }
  return result;
}

}  // namespace samebits
