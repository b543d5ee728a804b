#include "apps/samebits/check_log_probs.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "apps/samebits/progress.h"
#include "samebits/base/json.h"
#include "samebits/diagnose/log_probs.h"
#include "samebits/trace/tensor_file.h"

namespace samebits {
namespace {

Json ToJson(const LogProbResult& result, DType dtype) {
  const auto number = [](double v) { return std::isfinite(v) ? Json(v) : Json("inf"); };
  Json values = Json::array();
  for (const LogProbResult::Value& value : result.values) {
    values.push_back({{"position", value.given.position},
                      {"id", value.given.id},
                      {"theirs", number(value.given.value)},
                      {"ours", number(value.ours)},
                      {"spread", number(value.spread)}});
  }
  return {{"verdict", result.inside ? "rounding" : "bug"},
          {"inside", result.inside},
          {"dtype", ModelDTypeName(dtype)},
          {"rms", number(result.rms)},
          {"max", number(result.max)},
          {"spread_rms", number(result.spread_rms)},
          {"spread_max", number(result.spread_max)},
          {"legitimate_runs", result.runs},
          {"values", values}};
}

void Print(const LogProbResult& result, DType dtype) {
  fmt::print("{}: the engine's log-probabilities are {} what legitimate {} arithmetic gives.\n\n",
             result.inside ? "INSIDE" : "OUTSIDE", result.inside ? "inside" : "outside",
             ModelDTypeName(dtype));
  fmt::print("{} values: {:.3g} from ours on average (rms), {:.3g} at most\n", result.values.size(),
             result.rms, result.max);
  fmt::print(
      "{} legitimate runs of ours: up to {:.3g} on average, {:.3g} at most (measured, not "
      "proven)\n",
      result.runs, result.spread_rms, result.spread_max);
  std::vector<const LogProbResult::Value*> order;
  for (const LogProbResult::Value& value : result.values) order.push_back(&value);
  const auto distance = [](const LogProbResult::Value* v) {
    return std::fabs(v->given.value - v->ours);
  };
  std::stable_sort(order.begin(), order.end(),
                   [&](const auto* a, const auto* b) { return distance(a) > distance(b); });
  fmt::print("furthest:\n");
  for (size_t i = 0; i < std::min<size_t>(5, order.size()); ++i) {
    const LogProbResult::Value& v = *order[i];
    fmt::print("  position {}, id {}: {:.6g}, ours {:.6g} (legitimate runs within {:.2g})\n",
               v.given.position, v.given.id, v.given.value, v.ours, v.spread);
  }
  if (!result.inside) {
    fmt::print(
        "Record a trace of the layers (docs/trace-format.md): `check` then names the "
        "operation.\n");
  }
}

}  // namespace

bool LooksLikeJson(const std::string& path) {
  const std::string first = FirstBytes(path, 64);
  const size_t at = first.find_first_not_of(" \n\r\t");
  return at != std::string::npos && first[at] == '{';
}

int CheckLogProbs(const std::string& model, const std::string& path, int threads, bool json) {
  const Checkpoint checkpoint = Checkpoint::Open(model);
  const Graph graph = BuildGraph(checkpoint.config());
  const LogProbFile file = OpenLogProbs(path, graph.config);
  ProgressLine progress;
  const LogProbResult result = CompareLogProbs(
      graph, checkpoint, file, threads,
      [&](int64_t done, int64_t total) { progress.Show(done, total, "legitimate runs"); });
  progress.Clear();
  if (json) {
    fmt::print("{}\n", ToJson(result, file.dtype).dump(2));
  } else {
    Print(result, file.dtype);
  }
  return result.inside ? 0 : 1;
}

}  // namespace samebits
