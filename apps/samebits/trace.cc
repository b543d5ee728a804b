// samebits trace: runs a prompt and records its nodes.
#include <fmt/format.h>
#include <fnmatch.h>

#include <algorithm>

#include "apps/samebits/commands.h"
#include "apps/samebits/model_options.h"
#include "apps/samebits/progress.h"
#include "apps/samebits/prompt_options.h"
#include "samebits/base/error.h"
#include "samebits/checkpoint/hub_cache.h"
#include "samebits/engine/trace_recorder.h"

namespace samebits {
namespace {

struct TraceOptions {
  ModelOptions model;
  PromptOptions prompt;
  std::string output;
  std::vector<std::string> nodes;
};

// Names of tensors that match one of the patterns; without patterns all do. Throws when a pattern
// matches nothing: a trace that lacks what was asked for is found too late.
std::vector<std::string> Chosen(const Graph& graph, const std::vector<std::string>& patterns) {
  std::vector<std::string> chosen;
  std::vector<bool> used(patterns.size());
  for (const Node& node : graph.nodes) {
    for (const std::string& name : node.outputs) {
      bool wanted = patterns.empty();
      for (size_t i = 0; i < patterns.size(); ++i) {
        if (fnmatch(patterns[i].c_str(), name.c_str(), 0) != 0) continue;
        wanted = used[i] = true;
      }
      if (wanted) chosen.push_back(name);
    }
  }
  for (size_t i = 0; i < patterns.size(); ++i) {
    if (used[i]) continue;
    Fail(ErrorCode::kUsage,
         "--nodes '{}': no tensor has such a name; there are model.embed_tokens, "
         "model.layers.0.self_attn.q_proj, ..., lm_head (docs/trace-format.md)",
         patterns[i]);
  }
  return chosen;
}

void RunTrace(const TraceOptions& options) {
  const std::string folder = ResolveModel(options.model.model);
  const Checkpoint checkpoint = Checkpoint::Open(folder);
  const Graph graph = BuildGraph(checkpoint.config());
  const std::vector<std::string> chosen = Chosen(graph, options.nodes);
  const RuntimeOptions how = ChosenRuntime(options.model, checkpoint.config());
  std::optional<Tokenizer> tokenizer;
  const Prompt prompt = ReadPrompt(options.prompt, folder, checkpoint.config(), tokenizer);
  Runtime runtime(graph, checkpoint, how);
  std::map<std::string, std::string> metadata = {{"framework_version", SAMEBITS_VERSION},
                                                 {"cpu", std::string(IsaName(how.isa))},
                                                 {"threads", fmt::format("{}", how.threads)}};
  if (!prompt.text.empty()) metadata["prompt"] = prompt.text;
  TraceRecorder recorder(options.output, graph, how.dtype, prompt.ids, metadata, chosen);
  ProgressLine progress;
  PageIn(checkpoint, progress);
  Sequence sequence = runtime.NewSequence();
  const auto total = static_cast<int64_t>(prompt.ids.size());
  sequence.Plan(total);
  for (int64_t at = 0; at < total; at += options.model.chunk) {
    if (total > options.model.chunk) progress.Show(at, total, "tokens of the prompt");
    const int64_t count = std::min(options.model.chunk, total - at);
    runtime.Forward(sequence, std::span(prompt.ids).subspan(at, count), &recorder);
  }
  progress.Clear();
  recorder.Finish();
  fmt::print(stderr, "{}: {} tokens, {} tensors, {}\n", options.output, total, chosen.size(),
             ModelDTypeName(how.dtype));
}

}  // namespace

void RegisterTrace(CLI::App& app, int&) {
  auto options = std::make_shared<TraceOptions>();
  CLI::App* command = app.add_subcommand("trace", "run a prompt and record its nodes");
  command->footer("Example: samebits trace models/nano \"What is 17 + 25?\" -o nano.safetensors");
  AddModelOptions(*command, options->model);
  AddPromptOptions(*command, options->prompt);
  command->add_option("-o,--output", options->output, "the trace file")->required();
  command
      ->add_option("--nodes", options->nodes,
                   "only tensors with such names: 'model.layers.0.*', '*.q_proj', lm_head; can "
                   "be given more than once")
      ->allow_extra_args(false);
  command->callback([options] { RunTrace(*options); });
}

}  // namespace samebits
