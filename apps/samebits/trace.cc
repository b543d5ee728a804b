// samebits trace: runs a prompt and records every node.
#include <fmt/format.h>

#include "apps/samebits/commands.h"
#include "apps/samebits/model_options.h"
#include "samebits/engine/trace_recorder.h"

namespace samebits {
namespace {

struct TraceOptions {
  ModelOptions model;
  std::string output;
};

void RunTrace(const TraceOptions& options) {
  const Checkpoint checkpoint = Checkpoint::Open(options.model.model);
  const Graph graph = BuildGraph(checkpoint.config());
  const RuntimeOptions how = ChosenRuntime(options.model, checkpoint.config());
  std::optional<Tokenizer> tokenizer;
  const std::vector<int64_t> ids = PromptIds(options.model, checkpoint.config(), tokenizer);
  Runtime runtime(graph, checkpoint, how);
  Sequence sequence = runtime.NewSequence();
  TraceRecorder recorder(options.output, graph, how.dtype, ids,
                         {{"framework_version", SAMEBITS_VERSION},
                          {"cpu", std::string(IsaName(how.isa))},
                          {"threads", fmt::format("{}", how.threads)},
                          {"prompt", options.model.prompt}});
  Prefill(runtime, sequence, ids, options.model.chunk, &recorder);
  recorder.Finish();
  fmt::print(stderr, "{}: {} tokens, {}\n", options.output, ids.size(), ModelDTypeName(how.dtype));
}

}  // namespace

void RegisterTrace(CLI::App& app, int&) {
  auto options = std::make_shared<TraceOptions>();
  CLI::App* command = app.add_subcommand("trace", "run a prompt and record every node");
  command->footer("Example: samebits trace models/nano --ids 1,2,3 -o nano.safetensors");
  AddModelOptions(*command, options->model);
  command->add_option("-o,--output", options->output, "the trace file")->required();
  command->callback([options] { RunTrace(*options); });
}

}  // namespace samebits
