// samebits check: judges the trace of another implementation.
#include "samebits/diagnose/check.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>

#include "apps/samebits/commands.h"
#include "apps/samebits/profile_options.h"
#include "samebits/checkpoint/checkpoint.h"
#include "samebits/graph/graph.h"
#include "samebits/kernels/thread_pool.h"
#include "samebits/report/check_report.h"
#include "samebits/trace/trace.h"

namespace samebits {
namespace {

struct CheckArguments {
  std::string model, trace;
  int threads = 0;
  bool json = false;
  ProfileOptions profile;
};

int RunCheck(CheckArguments arguments) {
  const Checkpoint checkpoint = Checkpoint::Open(arguments.model);
  const Graph graph = BuildGraph(checkpoint.config());
  const Trace trace = Trace::Open(arguments.trace);
  CheckOptions options;
  options.threads = arguments.threads > 0 ? arguments.threads : DefaultThreads();
  const auto& metadata = trace.info().metadata;
  if (const auto found = metadata.find("attention"); found != metadata.end()) {
    arguments.profile.attention = found->second;
  }
  options.replay = OpenReplay(arguments.profile, &metadata, arguments.trace);
  const bool show = isatty(STDERR_FILENO) != 0;
  if (show) {
    options.progress = [](int64_t done, int64_t total) {
      fmt::print(stderr, "\rchecking: {} of {} groups of nodes", done, total);
    };
  }
  const CheckResult result = Check(graph, checkpoint, trace, options);
  if (show) fmt::print(stderr, "\r\033[K");
  if (arguments.json) {
    fmt::print("{}\n", CheckToJson(result).dump(2, ' ', false, Json::error_handler_t::replace));
  } else {
    fmt::print("{}", CheckToText(result));
  }
  switch (result.verdict) {
    case Grade::kBug:
      return 1;
    case Grade::kUnknown:
      return 2;
    default:
      return 0;
  }
}

}  // namespace

void RegisterCheck(CLI::App& app, int& exit_code) {
  auto arguments = std::make_shared<CheckArguments>();
  CLI::App* command = app.add_subcommand(
      "check", "judge a trace that another implementation wrote: rounding or bug?");
  command->footer(
      "Example: samebits check models/nano port.safetensors\n"
      "Exit code: 0 no bug, 1 bug, 2 could not tell.");
  command->add_option("MODEL", arguments->model, "Hugging Face checkpoint folder")->required();
  command->add_option("TRACE", arguments->trace, "trace file (docs/trace-format.md)")->required();
  command->add_option("--threads", arguments->threads, "threads (default: one a physical core)")
      ->check(CLI::Range(0, 1024));
  command->add_flag("--json", arguments->json, "print JSON");
  AddProfileOptions(*command, arguments->profile);
  command->callback([arguments, &exit_code] { exit_code = RunCheck(*arguments); });
}

}  // namespace samebits
