// samebits eval: accuracy on questions whose answers can be checked, or the perplexity of a text.
// All output to files and to the terminal is in this file and in eval_perplexity.cc.
#include "apps/samebits/eval.h"

#include <fmt/format.h>

#include <chrono>
#include <cmath>
#include <cstdio>

#include "apps/samebits/commands.h"
#include "apps/samebits/interrupts.h"
#include "apps/samebits/progress.h"
#include "apps/samebits/ranks.h"
#include "samebits/base/error.h"
#include "samebits/checkpoint/digest.h"
#include "samebits/checkpoint/hub_cache.h"
#include "samebits/engine/batch_generate.h"
#include "samebits/evaluate/evaluation.h"
#include "samebits/evaluate/items.h"
#include "samebits/evaluate/result_file.h"
#include "samebits/text/chat_template.h"

namespace samebits {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kMaxTokens = 256;  // as the harness, where --max-tokens does not say otherwise
constexpr int64_t kBatch = 16;
constexpr int64_t kMaxBytes = int64_t{1} << 30;

struct Questions {
  std::vector<TaskItem> items, examples;
  std::string digest;  // of both
};

Questions ReadQuestions(const EvalOptions& options) {
  Questions questions;
  const std::string text = ReadTextFile(options.file, kMaxBytes);
  questions.items = ParseItems(text, options.file);
  questions.digest = Sha256(text);
  const auto shots = static_cast<size_t>(options.shots);
  const bool own = options.examples.empty();
  std::vector<TaskItem>& source = own ? questions.items : questions.examples;
  if (!own) {
    const std::string examples = ReadTextFile(options.examples, kMaxBytes);
    source = ParseItems(examples, options.examples);
    questions.digest = Sha256(questions.digest + Sha256(examples));
  }
  if (source.size() < shots + (own ? 1 : 0)) {
    Fail(ErrorCode::kUsage, "--shots {}: {} has {} items{}", shots,
         own ? options.file : options.examples, source.size(),
         own ? ", and what is an example is not asked" : "");
  }
  const auto end = source.begin() + options.shots;
  if (own) {
    questions.examples.assign(source.begin(), end);
    source.erase(source.begin(), end);
  } else {
    source.erase(end, source.end());
  }
  if (options.limit > 0 && static_cast<size_t>(options.limit) < questions.items.size()) {
    questions.items.resize(static_cast<size_t>(options.limit));
  }
  for (const TaskItem& item : questions.items) CheckTarget(item, options.file);
  for (const std::string& note : NotesOn(questions.items, questions.examples, options.file)) {
    fmt::print(stderr, "samebits: {}\n", note);
  }
  return questions;
}

std::vector<std::vector<int64_t>> MakePrompts(const Questions& questions,
                                              const EvalOptions& options, const std::string& folder,
                                              const ModelConfig& config,
                                              const Tokenizer& tokenizer) {
  std::optional<ChatTemplate> chat_template;
  if (options.chat) {
    chat_template = ChatTemplate::Open(folder);
    if (!chat_template) Fail(ErrorCode::kUsage, "--chat: {} has no chat template", folder);
  }
  std::vector<std::vector<int64_t>> prompts;
  for (const TaskItem& item : questions.items) {
    try {
      if (chat_template) {
        Chat chat;
        chat.messages = FewShotMessages(questions.examples, item.question);
        prompts.push_back(tokenizer.Encode(chat_template->Render(chat), false));
      } else {
        prompts.push_back(tokenizer.Encode(FewShotText(questions.examples, item.question)));
      }
      CheckIds(prompts.back(), config);
    } catch (const Error& error) {
      Fail(error.code(), "{}:{}: {}", options.file, item.line, error.what());
    }
  }
  return prompts;
}

GenerationOptions ChosenAnswers(const EvalOptions& options, const std::string& folder,
                                const ModelConfig& config, const Tokenizer& tokenizer,
                                const RuntimeOptions& how) {
  SamplingArguments arguments = options.sampling;
  arguments.temperature = arguments.temperature.value_or(0);
  arguments.max_tokens = arguments.max_tokens.value_or(kMaxTokens);
  for (const char* stop : {"Question:", "</s>", "<|im_end|>"}) arguments.stop.emplace_back(stop);
  GenerationOptions result =
      ChosenGeneration(arguments, folder, config, &tokenizer, how.replay != nullptr);
  if (options.samples > 1 && result.sampling.temperature == 0) {
    Fail(ErrorCode::kUsage,
         "--samples {}: greedy answers are all the same; give a --temperature above 0",
         options.samples);
  }
  result.chunk = options.model.chunk;
  if (how.replay != nullptr) {  // the whole prompt in one pass, as generate does
    result.chunk = config.context_length;
    result.torch_softmax = how.replay->Softmax();
  }
  return result;
}

// The first line of the file: whatever changes the answers.
Json DescribeRun(const EvalOptions& options, const Checkpoint& checkpoint,
                 const Questions& questions, const RuntimeOptions& how,
                 const GenerationOptions& answers) {
  const SamplingOptions& s = answers.sampling;
  const bool replay = how.replay != nullptr;
  return {{"format", "samebits-eval-1"},
          {"version", SAMEBITS_VERSION},
          {"checkpoint_digest", CheckpointDigest(checkpoint)},
          {"questions_digest", questions.digest},
          {"dtype", ModelDTypeName(how.dtype)},
          {"profile", replay ? Json(how.replay->profile().digest()) : Json(nullptr)},
          {"attention", replay ? Json(options.profile.attention) : Json(nullptr)},
          {"chat", options.chat},
          {"shots", options.shots},
          {"samples", options.samples},
          {"seed", s.seed},
          {"temperature", s.temperature},
          {"top_k", s.top_k},
          {"top_p", s.top_p},
          {"min_p", s.min_p},
          {"repetition_penalty", s.repetition_penalty},
          {"max_tokens", answers.max_tokens},
          {"stop_ids", answers.stop_ids},
          {"stop_texts", answers.stop_texts}};
}

Json AccuracyJson(int64_t right, int64_t count) {
  const ConfidenceInterval interval = WilsonInterval(right, count);
  return {{"right", right},
          {"accuracy", count > 0 ? Json(static_cast<double>(right) / static_cast<double>(count))
                                 : Json(nullptr)},
          {"interval95", {interval.low, interval.high}}};
}

void PrintAccuracy(const char* name, int64_t right, int64_t count) {
  const ConfidenceInterval interval = WilsonInterval(right, count);
  fmt::print("{:<17}{} of {} right, {:.1f}% (95% interval {:.1f} to {:.1f}%)\n", name, right, count,
             100 * static_cast<double>(right) / static_cast<double>(count), 100 * interval.low,
             100 * interval.high);
}

void PrintSummary(const Evaluation::Score& score, const EvalOptions& options, const Json& run,
                  int64_t batch, double seconds) {
  if (options.json) {
    const Json json = {{"items", score.done},
                       {"restored", score.restored},
                       {"strict_match", AccuracyJson(score.strict_right, score.done)},
                       {"flexible_extract", AccuracyJson(score.flexible_right, score.done)},
                       {"run", run},
                       {"timings",
                        {{"batch", batch},
                         {"tokens", score.tokens},
                         {"seconds", seconds},
                         {"tokens_per_s", PerSecond(score.tokens, seconds)}}}};
    fmt::print("{}\n", json.dump(2, ' ', false, Json::error_handler_t::replace));
  } else {
    PrintAccuracy("strict-match", score.strict_right, score.done);
    PrintAccuracy("flexible-extract", score.flexible_right, score.done);
    if (score.restored > 0) fmt::print("{} items were done before\n", score.restored);
    fmt::print("{} tokens in {:.1f} s, {:.1f} tokens/s, batch {}\n", score.tokens, seconds,
               PerSecond(score.tokens, seconds), batch);
  }
  FlushOutput();
}

void ShowProgress(const Evaluation::Score& score, double seconds, ProgressLine& progress) {
  if (score.done == 0) return progress.Show(0, score.items, "items");
  std::string text =
      fmt::format("items, {:.1f}% right", 100 * static_cast<double>(score.flexible_right) /
                                              static_cast<double>(score.done));
  if (const int64_t fresh = score.done - score.restored; fresh > 0) {
    const double left =
        seconds / static_cast<double>(fresh) * static_cast<double>(score.items - score.done);
    text += left < 60 ? fmt::format(", {:.0f} s left", left)
                      : fmt::format(", {:.0f} min left", std::ceil(left / 60));
  }
  progress.Show(score.done, score.items, text);
}

int EvaluateTask(const EvalOptions& options) {
  const std::string folder = ResolveModel(options.model.model);
  const Checkpoint checkpoint = Checkpoint::Open(folder);
  const ModelConfig& config = checkpoint.config();
  const Graph graph = BuildGraph(config);
  RuntimeOptions how = ChosenRuntime(options.model, config);
  how.replay = OpenReplay(options.profile);
  const bool replay = how.replay != nullptr;
  if (replay && options.batch.value_or(1) != 1) {
    Fail(ErrorCode::kUsage,
         "--batch {}: a replay computes one sequence at a time, as the profile's framework did",
         *options.batch);
  }
  const Tokenizer tokenizer = Tokenizer::Open(folder);
  const Questions questions = ReadQuestions(options);
  BatchOptions batch;
  batch.generation = ChosenAnswers(options, folder, config, tokenizer, how);
  batch.batch = options.batch.value_or(replay ? 1 : kBatch);
  batch.share_prefix = !replay;
  Evaluation evaluation({questions.items,
                         MakePrompts(questions, options, folder, config, tokenizer),
                         options.samples, options.sampling.seed});
  const Json run = DescribeRun(options, checkpoint, questions, how, batch.generation);
  std::optional<ResultFile> file;  // of rank 0
  JoinRanks(options.model, checkpoint, run.dump() + fmt::format(" {}", batch.batch), how);
  if (!options.output.empty()) {
    if (IsRootRank()) file.emplace(options.output, run);
    const std::string lines = FromRoot(Json(file ? file->lines() : std::vector<Json>()).dump());
    evaluation.Restore(Json::parse(lines).get<std::vector<Json>>(), options.output);
    if (file) file->Begin();
  }
  Runtime runtime(graph, checkpoint, how);
  ProgressLine progress;
  PageIn(checkpoint, progress);

  const auto start = Clock::now();
  const auto seconds = [start] {
    return std::chrono::duration<double>(Clock::now() - start).count();
  };
  BatchEvents events;
  events.done = [&](size_t n, const Generation& answer) {
    const std::optional<Json> line = evaluation.Add(n, answer);
    if (line && file) file->Append(*line);
    if (line) ShowProgress(evaluation.score(), seconds(), progress);
  };
  events.interrupted = &interrupted;
  ShowProgress(evaluation.score(), 0, progress);
  bool finished = false;
  {
    const CatchInterrupts caught;
    finished = GenerateBatch(runtime, evaluation.Waiting(), &tokenizer, batch, events);
  }
  progress.Clear();
  if (file) file->Finish();
  const Evaluation::Score& score = evaluation.score();
  if (!finished) {
    Fail(ErrorCode::kUsage, "interrupted: {} of {} items are done; {}", score.done, score.items,
         !options.output.empty()
             ? "the same command goes on from " + options.output
             : std::string("nothing was kept: with -o FILE the same command can go on"));
  }
  PrintSummary(score, options, run, batch.batch, seconds());
  return 0;
}

}  // namespace

void RegisterEval(CLI::App& app, int& exit_code) {
  auto options = std::make_shared<EvalOptions>();
  CLI::App* command = app.add_subcommand(
      "eval", "accuracy on questions with known answers, or perplexity of a text");
  command->footer(
      "Example: samebits eval models/nano models/nano/heldout.jsonl --chat -o out.jsonl");
  AddModelOptions(*command, options->model);
  command
      ->add_option("FILE", options->file,
                   "JSON lines with question and answer (... #### 42); with --perplexity: a text")
      ->required();
  CLI::Option* output = command->add_option(
      "-o,--output", options->output,
      "JSON lines, one an item; what stands there of the same run is not done again");
  output->check([](const std::string& path) {
    return path.empty() ? "expected the name of a file, found nothing" : std::string();
  });
  AddSamplingOptions(*command, options->sampling);
  command->get_option("--temperature")->description("0: greedy (default)");
  command->get_option("--max-tokens")
      ->description(fmt::format("end after so many tokens (default: {})", kMaxTokens));
  AddProfileOptions(*command, options->profile);
  CLI::Option* shots =
      command->add_option("--shots", options->shots, "items in front of each question, answered")
          ->capture_default_str()
          ->check(CLI::Range(0, 1000));
  CLI::Option* examples = command->add_option(
      "--examples", options->examples,
      "the file that these are the first items of (default: FILE; they are not asked then)");
  CLI::Option* chat = command->add_flag("--chat", options->chat,
                                        "the question as a message; examples are turns before it");
  CLI::Option* samples =
      command->add_option("--samples", options->samples, "answers an item; the majority counts")
          ->capture_default_str()
          ->check(CLI::Range(1, 10000));
  CLI::Option* batch =
      command
          ->add_option("--batch", options->batch,
                       fmt::format("answers that are computed at once; the results are the same "
                                   "(default: {}, of a replay 1)",
                                   kBatch))
          ->check(CLI::Range(1, 1024));
  CLI::Option* limit =
      command->add_option("--limit", options->limit, "only the first so many items")
          ->check(CLI::PositiveNumber);
  CLI::Option* perplexity =
      command->add_flag("--perplexity", options->perplexity, "the perplexity of FILE as a text");
  for (CLI::Option* task : {output, shots, examples, chat, samples, batch, limit}) {
    perplexity->excludes(task);
  }
  command
      ->add_option("--against", options->against,
                   "with --perplexity: a trace of the same text whose lm_head is compared with")
      ->needs(perplexity);
  command
      ->add_option("--window", options->window,
                   "with --perplexity: tokens that are seen at once (default: the context)")
      ->needs(perplexity);
  command
      ->add_option("--stride", options->stride,
                   "with --perplexity: tokens between the windows (default: half of one)")
      ->needs(perplexity);
  command->add_flag("--json", options->json, "one object; only `timings` differs between runs");
  command->callback([options, &exit_code] {
    exit_code = options->perplexity ? EvaluatePerplexity(*options) : EvaluateTask(*options);
  });
}

}  // namespace samebits
