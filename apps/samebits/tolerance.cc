// samebits tolerance: what a port's own tests may allow, and why.
#include "samebits/diagnose/tolerance.h"

#include <fmt/format.h>

#include "apps/samebits/commands.h"
#include "apps/samebits/model_options.h"
#include "apps/samebits/prompt_options.h"
#include "samebits/base/json.h"
#include "samebits/checkpoint/hub_cache.h"
#include "samebits/kernels/thread_pool.h"

namespace samebits {
namespace {

struct ToleranceOptions {
  ModelOptions model;
  PromptOptions prompt;
  bool json = false, python = false;
};

Json ToJson(const Tolerances& t) {
  Json nodes = Json::array();
  for (const NodeTolerance& node : t.nodes) {
    nodes.push_back({{"node", node.node},
                     {"ulps", node.ulps},
                     {"atol", node.atol},
                     {"rtol", node.rtol},
                     {"exact_share", node.exact_share},
                     {"derivation", node.derivation}});
  }
  return {{"dtype", ModelDTypeName(t.dtype)},
          {"tokens", t.tokens},
          {"nodes", nodes},
          {"logits_spread", t.logits_spread}};
}

void PrintTable(const Tolerances& t) {
  fmt::print(
      "{}, {} tokens. For each operation on the same inputs; proven for any order of fp32 "
      "summation, with Hugging Face's rounding.\n\n",
      ModelDTypeName(t.dtype), t.tokens);
  fmt::print("{:<44} {:>6} {:>10} {:>10} {:>8}  {}\n", "operation", "ulps", "atol", "rtol", "exact",
             "from");
  for (const NodeTolerance& node : t.nodes) {
    fmt::print("{:<44} {:>6} {:>10.3g} {:>10.3g} {:>6.1f} %  {}\n", node.node, node.ulps, node.atol,
               node.rtol, 100 * node.exact_share, node.derivation);
  }
  fmt::print(
      "\nFrom ids to logits nothing can be proven. Measured: legitimate runs of our own are "
      "up to {:.3g} apart in the logits.\nulps: steps of the dtype, for every element. "
      "exact: elements that have one legitimate value.\n",
      t.logits_spread);
}

void PrintPython(const Tolerances& t, const std::string& model) {
  fmt::print(
      "# Made by `samebits tolerance {} --dtype {} --python`: what each operation may differ "
      "by on the\n# same inputs, proven for any order of fp32 summation.\n",
      model, ModelDTypeName(t.dtype));
  fmt::print("TOLERANCES = {{  # name: (ulps, atol, rtol)\n");
  for (const NodeTolerance& node : t.nodes) {
    fmt::print("    \"{}\": ({}, {:.9g}, {:.9g}),  # {}\n", node.node, node.ulps, node.atol,
               node.rtol, node.derivation);
  }
  fmt::print(
      "}}\n\n\ndef test_port():\n    \"\"\"The whole of it, without a tolerance of one's "
      "own: every operation on its own inputs.\"\"\"\n    from samebits.testing import "
      "assert_port\n\n    assert_port(\"port.safetensors\", \"{}\")\n",
      model);
}

void RunTolerance(const ToleranceOptions& options) {
  const std::string folder = ResolveModel(options.model.model);
  const Checkpoint checkpoint = Checkpoint::Open(folder);
  const Graph graph = BuildGraph(checkpoint.config());
  std::optional<Tokenizer> tokenizer;
  const Prompt prompt = ReadPrompt(options.prompt, folder, graph.config, tokenizer);
  const int threads = options.model.threads > 0 ? options.model.threads : DefaultThreads();
  const Tolerances t =
      ToleranceOf(graph, checkpoint, prompt.ids, ChosenDType(options.model, graph.config), threads);
  if (options.json) {
    fmt::print("{}\n", ToJson(t).dump(2));
  } else if (options.python) {
    PrintPython(t, options.model.model);
  } else {
    PrintTable(t);
  }
}

}  // namespace

void RegisterTolerance(CLI::App& app, int&) {
  auto options = std::make_shared<ToleranceOptions>();
  CLI::App* command = app.add_subcommand(
      "tolerance", "the tightest tolerance that a port's own tests can defend, for each operation");
  command->footer(
      "Example: samebits tolerance models/nano \"What is 17 + 25?\" --dtype bfloat16\n"
      "docs/tolerance.md says how they are meant.");
  AddModelOptions(*command, options->model);
  AddPromptOptions(*command, options->prompt);
  CLI::Option* json = command->add_flag("--json", options->json, "print JSON");
  command->add_flag("--python", options->python, "print a dict and a test for pytest")
      ->excludes(json);
  command->callback([options] { RunTolerance(*options); });
}

}  // namespace samebits
