// samebits diff: two traces, node by node.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "apps/samebits/commands.h"
#include "samebits/base/error.h"
#include "samebits/base/json.h"
#include "samebits/compare/traces.h"

namespace samebits {
namespace {

struct DiffOptions {
  std::string a, b;
  std::string only;  // part of a node's name; what is listed, not what is compared
  bool json = false, all = false;
};

// JSON has no infinities: they become the string "inf".
Json Number(double value) {
  if (std::isfinite(value)) return value;
  return std::isnan(value) ? "nan" : "inf";
}

Json ToJson(const TraceDifference& d) {
  Json nodes = Json::array();
  for (const NodeDifference& node : d.nodes) {
    const Metrics& m = node.metrics;
    Json one = {{"name", node.name},
                {"elements", m.elements},
                {"differing", m.differing},
                {"max_abs", Number(m.max_abs)},
                {"max_rel", Number(m.max_rel)},
                {"max_ulp", Number(m.max_ulp)},
                {"cosine", Number(m.cosine)},
                {"first", m.first}};
    if (!m.not_comparable.empty()) one["not_comparable"] = m.not_comparable;
    nodes.push_back(one);
  }
  return {{"same", d.same()},   {"first_difference", d.first},      {"only_a", d.only_a},
          {"only_b", d.only_b}, {"inputs_differ", d.inputs_differ}, {"nodes", nodes}};
}

// A name can be anything: no control characters on a terminal, no column of megabytes.
std::string Shown(const std::string& name) {
  const std::string quoted = Excerpt(Json(name));
  return quoted.size() == name.size() + 2 ? name : quoted;
}

void Print(const TraceDifference& d, const DiffOptions& options) {
  const auto listed = [&options](const NodeDifference& node) {
    return (options.all || !node.metrics.same()) &&
           node.name.find(options.only) != std::string::npos;
  };
  size_t width = 4;
  int64_t same = 0, values = 0, differing = 0;
  for (const NodeDifference& node : d.nodes) {
    values += node.metrics.elements;
    differing += node.metrics.differing;
    same += node.metrics.same() ? 1 : 0;
    if (listed(node)) width = std::max(width, Shown(node.name).size());
  }
  if (std::any_of(d.nodes.begin(), d.nodes.end(), listed)) {
    fmt::print("{:<{}}  {:>21}  {:>9}  {:>9}  {:>9}  {:>9}\n", "node", width, "differing",
               "max abs", "max rel", "max ulp", "1-cosine");
  }
  for (const NodeDifference& node : d.nodes) {
    const Metrics& m = node.metrics;
    if (!listed(node)) continue;
    if (!m.not_comparable.empty()) {
      fmt::print("{:<{}}  {}\n", Shown(node.name), width, m.not_comparable);
      continue;
    }
    fmt::print("{:<{}}  {:>9} of {:>8}  {:>9.3g}  {:>9.3g}  {:>9.4g}  {:>9.2g}\n", Shown(node.name),
               width, m.differing, m.elements, m.max_abs, m.max_rel, m.max_ulp, 1 - m.cosine);
  }
  for (const std::string& name : d.only_a) fmt::print("only in the first:  {}\n", Shown(name));
  for (const std::string& name : d.only_b) fmt::print("only in the second: {}\n", Shown(name));
  if (d.inputs_differ) fmt::print("input_ids or positions differ\n");
  fmt::print("{} of {} nodes have the same bits; {} of {} values differ\n", same, d.nodes.size(),
             differing, values);
  if (!d.first.empty()) fmt::print("first difference: {}\n", Shown(d.first));
}

int RunDiff(const DiffOptions& options) {
  const Trace a = Trace::Open(options.a), b = Trace::Open(options.b);
  const TraceDifference difference = CompareTraces(a, b);
  if (difference.nodes.empty()) {
    Fail(ErrorCode::kBadInput, "{} and {} have no tensor name in common", options.a, options.b);
  }
  if (options.json) {
    fmt::print("{}\n", ToJson(difference).dump(2));
  } else {
    Print(difference, options);
  }
  return difference.same() ? 0 : 1;
}

}  // namespace

void RegisterDiff(CLI::App& app, int& exit_code) {
  auto options = std::make_shared<DiffOptions>();
  CLI::App* command = app.add_subcommand("diff", "compare two traces, node by node");
  command->footer(
      "Example: samebits diff torch.safetensors mine.safetensors\n"
      "Exit code: 0 same bits, 1 different, 2 error.");
  command->add_option("A", options->a, "a trace")->required();
  command->add_option("B", options->b, "another trace")->required();
  command->add_option("--only", options->only, "list only nodes whose name contains this text");
  command->add_flag("--json", options->json, "print JSON");
  command->add_flag("--all", options->all, "list equal nodes, too");
  command->callback([options, &exit_code] { exit_code = RunDiff(*options); });
}

}  // namespace samebits
