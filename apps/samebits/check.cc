// samebits check: judges the trace of another implementation.
#include "samebits/diagnose/check.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <optional>
#include <string>

#include "apps/samebits/check_log_probs.h"
#include "apps/samebits/commands.h"
#include "apps/samebits/map_options.h"
#include "apps/samebits/model_options.h"
#include "apps/samebits/profile_options.h"
#include "apps/samebits/progress.h"
#include "apps/samebits/ranks.h"
#include "samebits/base/error.h"
#include "samebits/checkpoint/checkpoint.h"
#include "samebits/checkpoint/digest.h"
#include "samebits/diagnose/shared_sums.h"
#include "samebits/graph/graph.h"
#include "samebits/kernels/thread_pool.h"
#include "samebits/report/attribution_report.h"
#include "samebits/report/check_report.h"
#include "samebits/report/html_report.h"
#include "samebits/text/tokenizer.h"
#include "samebits/trace/trace.h"

namespace samebits {
namespace {

struct CheckArguments {
  std::string model, trace, report, map;
  bool suggest_map = false, attribute = false;
  int threads = 0;
  bool json = false;
  ProfileOptions profile;
};

// The text of every token id in the table of logits, where the checkpoint has a tokenizer.
void AddTokenText(const std::string& folder, Json& json) {
  if (!json.contains("logits")) return;
  std::optional<Tokenizer> tokenizer;
  try {
    tokenizer = Tokenizer::Open(folder);
  } catch (const Error&) {
    return;  // a report needs none
  }
  Json text = Json::object();
  for (const Json& position : json["logits"]["positions"]) {
    for (const char* side : {"ours", "theirs"}) {
      for (const Json& token : position[side]) {
        const auto id = token["id"].get<int64_t>();
        try {
          text[std::to_string(id)] = tokenizer->Decode({&id, 1});
        } catch (const Error&) {
          continue;  // ids behind the tokenizer's
        }
      }
    }
  }
  json["token_text"] = text;
}

void PrintUnmatched(const std::vector<Suggestion>& unmatched) {
  if (unmatched.empty()) return;
  fmt::print("{} tensors of the trace have names that are not the model's:\n", unmatched.size());
  constexpr size_t kShown = 4;
  for (size_t i = 0; i < unmatched.size() && i < kShown; ++i) {
    const Suggestion& s = unmatched[i];
    fmt::print("  {}{}\n", Excerpt(Json(s.name)),
               s.suggestion.empty() ? "" : fmt::format(": perhaps {} ({})", s.suggestion, s.why));
  }
  if (unmatched.size() > kShown) fmt::print("  ...\n");
}

int RunCheck(CheckArguments arguments, SharedSums* shared_sums) {
  // An output that can not be written is said before the work, not behind it.
  if (!arguments.report.empty()) CheckWritable(arguments.report);
  if (LooksLikeJson(arguments.trace)) {
    return CheckLogProbs(arguments.model, arguments.trace, ChosenThreads(arguments.threads),
                         arguments.json);
  }
  const Checkpoint checkpoint = Checkpoint::Open(arguments.model);
  const Graph graph = BuildGraph(checkpoint.config());
  if (arguments.suggest_map) {
    PrintSuggestedMap(arguments.trace, graph);
    return 0;
  }
  const Trace trace = OpenMapped(arguments.trace, arguments.map);
  const std::vector<Suggestion> unmatched =
      FindUnmatched(arguments.trace, arguments.map, graph, trace);
  CheckOptions options;
  options.threads = ChosenThreads(arguments.threads);
  options.shared_sums = shared_sums;
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
  std::optional<Attribution> attribution;
  if (arguments.attribute) {
    ProgressLine progress;
    attribution = Attribute(
        graph, checkpoint, trace, options.threads,
        [&](int64_t done, int64_t total) { progress.Show(done, total, "operations attributed"); });
    progress.Clear();
  }
  Json json;
  if (arguments.json || !arguments.report.empty()) {
    json = CheckToJson(result);
    json["model"] = arguments.model;
    json["trace"] = arguments.trace;
    json["unmatched"] = Json::array();
    for (const Suggestion& s : unmatched) {
      json["unmatched"].push_back(
          {{"name", s.name},
           {"suggestion", s.suggestion.empty() ? Json(nullptr) : Json(s.suggestion)},
           {"why", s.why}});
    }
    if (attribution) json["attribution"] = AttributionToJson(*attribution);
    AddTokenText(arguments.model, json);
  }
  if (!arguments.report.empty()) WriteFile(arguments.report, CheckToHtml(json));
  if (arguments.json) {
    fmt::print("{}\n", json.dump(2, ' ', false, Json::error_handler_t::replace));
  } else {
    fmt::print("{}", CheckToText(result));
    if (attribution) fmt::print("{}", AttributionToText(*attribution));
    PrintUnmatched(unmatched);
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

// Under mpirun rank 0 checks, and the others compute their share of its sums. All end with its exit
// code, or with its message.
int RunOnRanks(const CheckArguments& arguments) {
  Communicator* ranks = ProcessRanks();
  if (ranks == nullptr) return RunCheck(arguments, nullptr);
  const Checkpoint checkpoint = Checkpoint::Open(arguments.model);
  AgreeOn({{"program", ProgramDigest()}, {"checkpoint", CheckpointDigest(checkpoint)}});
  SharedSums sums(*ranks, checkpoint);
  std::string exit_code, message;
  if (IsRootRank()) {
    try {
      exit_code = std::to_string(RunCheck(arguments, &sums));
    } catch (const Error& error) {
      message = error.what();
    }
    sums.End();
  } else {
    ThreadPool pool(ChosenThreads(arguments.threads));
    sums.Serve(pool);
  }
  message = FromRoot(message);
  if (!message.empty()) throw Error(ErrorCode::kBadInput, message);
  return std::stoi(FromRoot(exit_code));
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
  command
      ->add_option(
          "TRACE", arguments->trace,
          "trace file, safetensors or .npz (docs/trace-format.md); or JSON with log-probabilities "
          "(docs/logprobs.md)")
      ->required();
  command->add_option("--threads", arguments->threads, "threads (default: one a physical core)")
      ->check(CLI::Range(0, 1024));
  command->add_flag("--json", arguments->json, "print JSON");
  command->add_option("--report", arguments->report, "write an HTML report to this file");
  command->add_option("--map", arguments->map,
                      "map from the trace's names and layouts to ours (docs/trace-map.md)");
  command->add_flag("--suggest-map", arguments->suggest_map,
                    "print a map to begin with, and judge nothing");
  command->add_flag("--attribute", arguments->attribute,
                    "say how much of the logits' difference each operation is responsible for");
  AddProfileOptions(*command, arguments->profile);
  command->callback([arguments, &exit_code] { exit_code = RunOnRanks(*arguments); });
}

}  // namespace samebits
