#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "samebits/diagnose/replay_context.h"
#include "samebits/diagnose/shared_sums.h"
#include "samebits/numerics/bounds.h"

namespace samebits {
namespace {

// Sums of the rows in question with one weight, taken from the cache when there is one.
std::shared_ptr<const DotSums> SumsOf(const ReplayContext& c, const std::string& name,
                                      int64_t outs) {
  const Replay& replay = c.replay;
  const auto compute = [&](DotSums& sums) {
    const std::vector<double> x = c.InputRows(0);
    exact::DotArgs args;
    args.x = x.data();
    args.w = c.source.checkpoint->Get(name);
    args.dtype = c.model;
    args.transposed = replay.weight_transposed;
    args.truncate = replay.truncate_weights;
    args.through = replay.weight_through;
    args.products = replay.products;
    args.rows = c.rows.size();
    args.size = c.attributes().in_features;
    args.outs = outs;
    sums.y.resize(static_cast<size_t>(args.rows * outs));
    sums.magnitude.resize(sums.y.size());
    args.y = sums.y.data();
    args.magnitude = sums.magnitude.data();
    if (c.source.shared_sums != nullptr) {
      c.source.shared_sums->Compute(name, args, *c.source.pool);
    } else {
      ComputeSums(args, {0, outs}, *c.source.pool);
    }
  };
  if (c.source.dots == nullptr) {
    auto sums = std::make_shared<DotSums>();
    compute(*sums);
    return sums;
  }
  const std::string key =
      fmt::format("{} {} {}-{} {}{} {} {}", c.node().inputs[0], name, c.rows.begin, c.rows.end,
                  replay.weight_transposed, replay.truncate_weights,
                  replay.weight_through ? DTypeName(*replay.weight_through) : "-",
                  static_cast<int>(replay.products));
  return c.source.dots->Get(key, compute);
}

// Columns of several weights' sums, put together as a row map says.
DotSums MappedSums(const ReplayContext& c, const RowMap& map, std::vector<double>* bias) {
  std::vector<std::shared_ptr<const DotSums>> sums;
  std::vector<std::vector<double>> biases;
  std::vector<int64_t> outs;
  for (size_t i = 0; i < map.weights.size(); ++i) {
    outs.push_back(c.source.checkpoint->Get(map.weights[i]).shape[0]);
    sums.push_back(SumsOf(c, map.weights[i], outs.back()));
    if (!map.biases.empty()) biases.push_back(c.WeightVector(map.biases[i]));
  }
  const auto columns = static_cast<int64_t>(map.row.size());
  DotSums mapped;
  mapped.y.resize(static_cast<size_t>(c.rows.size() * columns));
  mapped.magnitude.resize(mapped.y.size());
  for (int64_t n = 0; n < columns; ++n) {
    const auto [weight, row] = map.row[static_cast<size_t>(n)];
    for (int64_t r = 0; r < c.rows.size(); ++r) {
      mapped.y[r * columns + n] = sums[weight]->y[r * outs[weight] + row];
      mapped.magnitude[r * columns + n] = sums[weight]->magnitude[r * outs[weight] + row];
    }
    if (!biases.empty()) bias->push_back(biases[weight][row]);
  }
  return mapped;
}

}  // namespace

Expectation EvaluateLinear(const ReplayContext& c) {
  const Replay& replay = c.replay;
  const int64_t size = c.attributes().in_features, outs = c.attributes().out_features;
  Expectation e;
  e.columns = outs;
  std::vector<double> bias;
  if (replay.row_map != nullptr) {
    DotSums sums = MappedSums(c, *replay.row_map, &bias);
    e.y = std::move(sums.y);
    e.bound = std::move(sums.magnitude);
  } else {
    const auto sums = SumsOf(c, c.node().weights.at(0), outs);
    e.y = sums->y;
    e.bound = sums->magnitude;
    if (c.node().weights.size() > 1) bias = c.WeightVector(c.node().weights[1]);
  }
  const int times = bias.empty() ? 0 : replay.bias_times;
  int inside = times, after = 0;
  if (times > 0 && replay.bias_place == BiasPlace::kAfterRounding) {
    inside = 0;
    after = times;
  } else if (times > 0 && replay.bias_place == BiasPlace::kBeforeAndAfter) {
    inside = 1;
    after = times - 1;
  }
  for (size_t i = 0; i < e.y.size(); ++i) {
    if (inside > 0) {
      const double b = bias[i % static_cast<size_t>(outs)] * inside;
      e.y[i] += b;
      e.bound[i] += std::fabs(b);
    }
    e.bound[i] = c.SumBound(size + 1 + inside, e.bound[i]);
  }
  e.likely_share = LikelyShare(static_cast<double>(size + 1 + inside));
  for (int i = 0; i < after; ++i) {
    e.tail.push_back(c.Middle());
    e.tail.push_back(AddStep(bias));
  }
  e.tail.push_back(c.Last());
  if (replay.softcap.cap > 0) ApplySoftcap(c, e);
  return e;
}

}  // namespace samebits
