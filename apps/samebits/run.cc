// samebits run: continues a prompt.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <filesystem>

#include "apps/samebits/commands.h"
#include "apps/samebits/model_options.h"
#include "samebits/base/error.h"
#include "samebits/base/json.h"
#include "samebits/engine/sampler.h"

namespace samebits {
namespace {

struct RunOptions {
  ModelOptions model;
  SamplingOptions sampling;
  int64_t max_tokens = 128;
  bool json = false;
};

using Clock = std::chrono::steady_clock;

double Seconds(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

// Prints text as far as its characters are complete.
class Stream {
 public:
  explicit Stream(bool show) : show_(show) {}
  void Add(const std::string& bytes) {
    text_ += bytes;
    pending_ += bytes;
    if (!show_) return;
    const size_t complete = CompleteUtf8(pending_);
    std::fwrite(pending_.data(), 1, complete, stdout);
    std::fflush(stdout);
    pending_.erase(0, complete);
  }
  void End() {
    if (show_) fmt::print("{}\n", pending_);
  }
  const std::string& text() const { return text_; }

 private:
  bool show_;
  std::string text_, pending_;
};

// As transformers does: generation_config.json, where it names stop tokens, counts alone.
std::vector<int64_t> StopIds(const std::string& folder, const ModelConfig& config) {
  std::vector<int64_t> ids = config.eos_token_ids;
  const std::string path = folder + "/generation_config.json";
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) return ids;
  const Json json = ParseJson(ReadTextFile(path, 1 << 20), path);
  if (!json.is_object() || !HasField(json, "eos_token_id")) return ids;
  const Json& eos = json["eos_token_id"];
  ids.clear();
  for (const Json& id : eos.is_array() ? eos : Json::array({eos})) {
    if (!id.is_number_integer()) {
      Fail(ErrorCode::kBadInput, "{}: eos_token_id: expected token ids, found {}", path,
           Excerpt(eos));
    }
    ids.push_back(id.get<int64_t>());
  }
  return ids;
}

// What was printed must have arrived: a full disk is an error, too.
void FlushOutput() {
  if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) {
    Fail(ErrorCode::kIo, "standard output: can not be written");
  }
}

void CheckSampling(const SamplingOptions& options) {  // CLI::Range lets NaN pass
  if (std::isnan(options.temperature)) Fail(ErrorCode::kUsage, "--temperature: not a number");
  if (std::isnan(options.top_p)) Fail(ErrorCode::kUsage, "--top-p: not a number");
}

void Run(const RunOptions& options) {
  CheckSampling(options.sampling);
  const auto start = Clock::now();
  const Checkpoint checkpoint = Checkpoint::Open(options.model.model);
  const Graph graph = BuildGraph(checkpoint.config());
  const RuntimeOptions how = ChosenRuntime(options.model, checkpoint.config());
  std::optional<Tokenizer> tokenizer;
  std::error_code ignored;
  const std::vector<int64_t> prompt = PromptIds(options.model, checkpoint.config(), tokenizer);
  if (!tokenizer && std::filesystem::exists(options.model.model + "/tokenizer.json", ignored)) {
    try {  // for the text beside the ids; ids alone are fine
      tokenizer = Tokenizer::Open(options.model.model);
    } catch (const Error& error) {
      fmt::print(stderr, "samebits: no text, only ids: {}\n", error.what());
    }
  }
  const std::vector<int64_t> stop = StopIds(options.model.model, checkpoint.config());
  Runtime runtime(graph, checkpoint, how);
  Sequence sequence = runtime.NewSequence();
  const auto loaded = Clock::now();
  const TensorView* logits = &Prefill(runtime, sequence, prompt, options.model.chunk);
  const auto read = Clock::now();

  Stream stream(tokenizer.has_value() && !options.json);
  std::optional<TextStream> text;
  if (tokenizer) text.emplace(*tokenizer);
  std::optional<TextStream> text;
  if (tokenizer) text.emplace(*tokenizer);
  std::vector<int64_t> output;
  std::string reason = "max_tokens";
  while (static_cast<int64_t>(output.size()) < options.max_tokens) {
    const int64_t id = SampleToken(*logits, options.sampling, static_cast<int64_t>(output.size()));
    output.push_back(id);
    if (std::find(stop.begin(), stop.end(), id) != stop.end()) {
      reason = "eos_token";
      break;
    }
    if (text) stream.Add(text->Add(id));
    if (!tokenizer && !options.json) fmt::print("{}{}", output.size() > 1 ? "," : "", id);
    if (static_cast<int64_t>(output.size()) == options.max_tokens) break;
    if (sequence.length() >= checkpoint.config().context_length) {
      reason = "context";
      break;
    }
    logits = &runtime.Forward(sequence, std::span(&output.back(), 1));
  }
  if (text) stream.Add(text->Finish());
  if (text) stream.Add(text->Finish());
  const auto done = Clock::now();
  if (!options.json) {
    if (tokenizer) {
      stream.End();
    } else {
      fmt::print("\n");
    }
    FlushOutput();
    return;
  }
  const double decode = Seconds(read, done);
  Json json = {
      {"prompt_ids", prompt},
      {"ids", output},
      {"text", tokenizer ? Json(stream.text()) : Json(nullptr)},
      {"finish_reason", reason},
      {"dtype", ModelDTypeName(how.dtype)},
      {"timings",
       {{"cpu", IsaName(how.isa)},
        {"threads", how.threads},
        {"load_s", Seconds(start, loaded)},
        {"prefill_s", Seconds(loaded, read)},
        {"prefill_tokens_per_s", static_cast<double>(prompt.size()) / Seconds(loaded, read)},
        {"decode_s", decode},
        {"decode_tokens_per_s", static_cast<double>(output.size() - 1) / decode}}}};
  fmt::print("{}\n", json.dump(2, ' ', false, Json::error_handler_t::replace));
  FlushOutput();
}

}  // namespace

void RegisterRun(CLI::App& app, int&) {
  auto options = std::make_shared<RunOptions>();
  CLI::App* command = app.add_subcommand("run", "continue a prompt");
  command->footer("Example: samebits run models/nano \"What is 17 + 25?\"");
  AddModelOptions(*command, options->model);
  command->add_option("--max-tokens", options->max_tokens, "stop after so many tokens")
      ->capture_default_str()
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 31));
  command->add_option("--temperature", options->sampling.temperature, "0: greedy")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 1000.0));
  command->add_option("--top-k", options->sampling.top_k, "only the k likeliest; 0: all")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  command
      ->add_option("--top-p", options->sampling.top_p,
                   "only the likeliest that together reach this probability")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 1.0));
  command->add_option("--seed", options->sampling.seed, "same seed, same tokens, on any machine")
      ->capture_default_str();
  command->add_flag("--json", options->json, "one object; only `timings` differs between two runs");
  command->callback([options] { Run(*options); });
}

}  // namespace samebits
