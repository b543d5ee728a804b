// samebits diff of two traces.
#include <fmt/format.h>

#include <algorithm>

#include "apps/samebits/diff.h"
#include "samebits/base/error.h"
#include "samebits/compare/traces.h"

namespace samebits {
namespace {

Json NameOrNull(const std::string& name) { return name.empty() ? Json() : Json(name); }

Json ToJson(const TraceDifference& d, const DiffOptions& options) {
  Json nodes = Json::array();
  int64_t same = 0, elements = 0, differing = 0;
  for (const NodeDifference& node : d.nodes) {
    Json one = PairJson(node.difference, node.dtype_a, node.dtype_b, node.shape_a, node.shape_b,
                        node.metrics);
    one["name"] = node.name;
    if (node.logits) {
      one["logits"] = {{"tokens", node.logits->tokens},
                       {"kl_mean", NumberJson(node.logits->kl_mean)},
                       {"kl_max", NumberJson(node.logits->kl_max)},
                       {"kl_max_token", node.logits->kl_max_token},
                       {"same_top1", node.logits->same_top1},
                       {"same_top5", node.logits->same_top5}};
    }
    same += node.difference == Difference::kNone ? 1 : 0;
    elements += node.metrics.elements;
    differing += node.metrics.differing;
    nodes.push_back(std::move(one));
  }
  return {{"kind", "traces"},
          {"a", options.a},
          {"b", options.b},
          {"same", d.same()},
          {"first_difference", NameOrNull(d.first)},
          {"first_difference_of_values", NameOrNull(d.first_values)},
          {"inputs_differ", d.inputs_differ},
          {"only_a", d.only_a},
          {"only_b", d.only_b},
          {"nodes_same", same},
          {"elements", elements},
          {"differing", differing},
          {"nodes", std::move(nodes)}};
}

void PrintNodes(const TraceDifference& d, const DiffOptions& options) {
  std::vector<const NodeDifference*> listed;
  size_t width = 4;
  for (const NodeDifference& node : d.nodes) {
    if (!options.all && node.difference == Difference::kNone) continue;
    if (node.name.find(options.only) == std::string::npos) continue;
    listed.push_back(&node);
    width = std::max(width, ShownName(node.name).size());
  }
  if (listed.empty()) return;
  fmt::print("{:<{}}  {:>21}  {:>9}  {:>9}  {:>9}  {:>9}  {:>9}\n", "node", width, "differing",
             "max abs", "max rel", "max ulp", "rms", "1-cosine");
  for (const NodeDifference* node : listed) {
    const Metrics& m = node->metrics;
    const std::string name = ShownName(node->name);
    if (!m.not_comparable.empty()) {
      fmt::print("{:<{}}  {}\n", name, width, m.not_comparable);
      continue;
    }
    fmt::print("{:<{}}  {:>9} of {:>8}  {:>9.3g}  {:>9.3g}  {:>9.4g}  {:>9.3g}  {:>9.2g}{}\n", name,
               width, m.differing, m.elements, m.max_abs, m.max_rel, m.max_ulp, m.rms, 1 - m.cosine,
               node->difference == Difference::kDType
                   ? fmt::format("  dtype {} against {}", DTypeName(node->dtype_a),
                                 DTypeName(node->dtype_b))
                   : "");
  }
}

void Print(const TraceDifference& d, const DiffOptions& options) {
  PrintNodes(d, options);
  int64_t same = 0, values = 0, differing = 0, shapes = 0, dtypes = 0;
  for (const NodeDifference& node : d.nodes) {
    values += node.metrics.elements;
    differing += node.metrics.differing;
    same += node.difference == Difference::kNone ? 1 : 0;
    shapes += node.difference == Difference::kShape ? 1 : 0;
    dtypes += node.difference == Difference::kDType ? 1 : 0;
  }
  for (const std::string& name : d.only_a) fmt::print("only in the first:  {}\n", ShownName(name));
  for (const std::string& name : d.only_b) fmt::print("only in the second: {}\n", ShownName(name));
  if (d.inputs_differ) fmt::print("input_ids, positions or attention_mask differ\n");
  for (const NodeDifference& node : d.nodes) {
    if (!node.logits || node.difference == Difference::kNone || node.logits->tokens == 0) continue;
    const LogitMetrics& m = *node.logits;
    fmt::print(
        "logits: KL {:.3g} on average, {:.3g} at most{}; the same likeliest token for {} of "
        "{}, the same five for {}\n",
        m.kl_mean, m.kl_max, m.kl_max_token < 0 ? "" : fmt::format(" (token {})", m.kl_max_token),
        m.same_top1, m.tokens, m.same_top5);
  }
  fmt::print("{} of {} nodes have the same bits; {} of {} values differ\n", same, d.nodes.size(),
             differing, values);
  if (shapes > 0) fmt::print("{} nodes have other shapes and were not compared\n", shapes);
  if (dtypes > 0) fmt::print("{} nodes have other dtypes\n", dtypes);
  if (!d.first.empty()) fmt::print("first difference: {}\n", ShownName(d.first));
  if (!d.first_values.empty() && d.first_values != d.first) {
    fmt::print("first difference of numbers: {}\n", ShownName(d.first_values));
  }
}

}  // namespace

int DiffTraces(const DiffOptions& options) {
  const Trace a = Trace::Open(options.a), b = Trace::Open(options.b);
  const TraceDifference difference = CompareTraces(a, b);
  if (difference.nodes.empty()) {
    Fail(ErrorCode::kBadInput, "{} and {} have no tensor name in common", options.a, options.b);
  }
  if (options.json) {
    fmt::print("{}\n",
               ToJson(difference, options).dump(2, ' ', false, Json::error_handler_t::replace));
  } else {
    Print(difference, options);
  }
  return difference.same() ? 0 : 1;
}

}  // namespace samebits
