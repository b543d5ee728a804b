// samebits run: answers a prompt.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <chrono>
#include <cstdio>
#include <filesystem>

#include "apps/samebits/commands.h"
#include "apps/samebits/model_options.h"
#include "apps/samebits/profile_options.h"
#include "apps/samebits/progress.h"
#include "apps/samebits/prompt_options.h"
#include "apps/samebits/ranks.h"
#include "apps/samebits/sampling_options.h"
#include "samebits/base/error.h"
#include "samebits/base/json.h"
#include "samebits/checkpoint/hub_cache.h"
#include "samebits/engine/generate.h"

namespace samebits {
namespace {

struct RunOptions {
  ModelOptions model;
  PromptOptions prompt;
  SamplingArguments sampling;
  ProfileOptions profile;
  int64_t top_logprobs = 5;
  bool json = false;
};

using Clock = std::chrono::steady_clock;

// For the text beside the ids; ids alone are fine without one.
void OpenOptional(const std::string& folder, std::optional<Tokenizer>& tokenizer) {
  std::error_code ignored;
  if (tokenizer || !std::filesystem::exists(folder + "/tokenizer.json", ignored)) return;
  try {
    tokenizer = Tokenizer::Open(folder);
  } catch (const Error& error) {
    fmt::print(stderr, "samebits: no text, only ids: {}\n", error.what());
  }
}

Json TokenJson(int64_t id, double log_prob, const Tokenizer* tokenizer) {
  Json json = {{"id", id}, {"logprob", log_prob}};
  if (tokenizer != nullptr) json["token"] = tokenizer->IdToToken(id);
  return json;
}

Json LogProbsJson(const Generation& answer, const Tokenizer* tokenizer) {
  Json list = Json::array();
  for (size_t i = 0; i < answer.log_probs.size(); ++i) {
    const LogProbs& probs = answer.log_probs[i];
    Json entry = TokenJson(answer.ids[i], probs.chosen, tokenizer);
    entry["top"] = Json::array();
    for (const LogProb& other : probs.top) {
      entry["top"].push_back(TokenJson(other.id, other.value, tokenizer));
    }
    list.push_back(std::move(entry));
  }
  return list;
}

// Of rank 0: what it and the others exchanged.
Json RanksJson(const RuntimeOptions& how) {
  if (how.ranks == nullptr) return nullptr;
  const Traffic traffic = how.ranks->traffic();
  return {{"tp", how.parallel.tp},
          {"pp", how.parallel.pp},
          {"exchanges", traffic.exchanges},
          {"received_bytes", traffic.received}};
}

struct Opened {
  double load_s;
  RuntimeOptions how;
};

void PrintJson(const Prompt& prompt, const Generation& answer, const Tokenizer* tokenizer,
               const GenerationOptions& options, const Opened& opened) {
  const auto prompt_tokens = static_cast<int64_t>(prompt.ids.size());
  const Json json = {
      {"prompt_ids", prompt.ids},
      {"prompt", prompt.text.empty() ? Json(nullptr) : Json(prompt.text)},
      {"ids", answer.ids},
      {"text", tokenizer != nullptr ? Json(answer.text) : Json(nullptr)},
      {"logprobs", LogProbsJson(answer, tokenizer)},
      {"stop_reason", StopReasonName(answer.stop_reason)},
      {"dtype", ModelDTypeName(opened.how.dtype)},
      {"profile",
       opened.how.replay == nullptr ? Json(nullptr) : Json(opened.how.replay->profile().digest())},
      {"sampling", SamplingJson(options)},
      {"timings",
       {{"cpu", IsaName(opened.how.isa)},
        {"threads", opened.how.threads},
        {"ranks", RanksJson(opened.how)},
        {"load_s", opened.load_s},
        {"prefill_s", answer.prefill_s},
        {"prefill_tokens_per_s", PerSecond(prompt_tokens, answer.prefill_s)},
        {"decode_s", answer.decode_s},
        {"decode_tokens_per_s", PerSecond(answer.decode_steps, answer.decode_s)}}}};
  fmt::print("{}\n", json.dump(2, ' ', false, Json::error_handler_t::replace));
}

void Run(const RunOptions& options) {
  const auto start = Clock::now();
  const std::string folder = ResolveModel(options.model.model);
  const Checkpoint checkpoint = Checkpoint::Open(folder);
  const ModelConfig& config = checkpoint.config();
  const Graph graph = BuildGraph(config);
  RuntimeOptions how = ChosenRuntime(options.model, config);
  how.replay = OpenReplay(options.profile);
  std::optional<Tokenizer> opened;
  const Prompt prompt = ReadPrompt(options.prompt, folder, config, opened);
  OpenOptional(folder, opened);
  const Tokenizer* tokenizer = opened ? &*opened : nullptr;
  GenerationOptions how_to_answer =
      ChosenGeneration(options.sampling, folder, config, tokenizer, how.replay != nullptr);
  how_to_answer.chunk = options.model.chunk;
  if (how.replay != nullptr) {  // one forward pass of the whole prompt, as generate does
    how_to_answer.chunk = static_cast<int64_t>(prompt.ids.size());
    how_to_answer.torch_softmax = how.replay->Softmax();
  }
  if (options.json) how_to_answer.top_log_probs = options.top_logprobs;
  JoinRanks(options.model, checkpoint,
            fmt::format("{} {}", SamplingJson(how_to_answer).dump(), fmt::join(prompt.ids, ",")),
            how);
  Runtime runtime(graph, checkpoint, how);
  Sequence sequence = runtime.NewSequence();
  ProgressLine progress;
  PageIn(checkpoint, progress);
  const double load_s = std::chrono::duration<double>(Clock::now() - start).count();

  GenerationEvents events;
  events.prefill = [&](int64_t done, int64_t total) {
    if (done < total && total > how_to_answer.chunk) {
      progress.Show(done, total, "tokens of the prompt");
    } else {
      progress.Clear();
    }
  };
  if (!options.json) {
    events.text = [](std::string_view text) {
      std::fwrite(text.data(), 1, text.size(), stdout);
      std::fflush(stdout);
    };
  }
  const Generation answer =
      Generate(runtime, sequence, prompt.ids, tokenizer, how_to_answer, events);
  if (options.json) {
    PrintJson(prompt, answer, tokenizer, how_to_answer, {load_s, how});
  } else if (tokenizer != nullptr) {
    fmt::print("\n");
  } else {
    fmt::print("{}\n", fmt::join(answer.ids, ","));
  }
  FlushOutput();
}

}  // namespace

void RegisterRun(CLI::App& app, int&) {
  auto options = std::make_shared<RunOptions>();
  CLI::App* command = app.add_subcommand("run", "answer a prompt");
  command->footer("Example: samebits run models/nano \"What is 17 + 25?\"");
  AddModelOptions(*command, options->model);
  AddPromptOptions(*command, options->prompt);
  AddSamplingOptions(*command, options->sampling);
  AddProfileOptions(*command, options->profile);
  command->add_flag("--json", options->json,
                    "one object with ids, text and log-probs; only `timings` differs between runs");
  command
      ->add_option("--top-logprobs", options->top_logprobs,
                   "with --json: log-probs of so many likeliest tokens beside the chosen one's")
      ->capture_default_str()
      ->check(CLI::Range(0, 1000));
  command->callback([options] { Run(*options); });
}

}  // namespace samebits
