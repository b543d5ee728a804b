#include "apps/samebits/sampling_options.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <vector>

#include "samebits/base/error.h"

namespace samebits {
namespace {

template <typename T>
void AddOnce(const T& value, std::vector<T>& values) {
  if (std::find(values.begin(), values.end(), value) == values.end()) values.push_back(value);
}

void CheckNumber(const std::optional<double>& value, const char* option) {  // Range lets NaN pass
  if (value && std::isnan(*value)) Fail(ErrorCode::kUsage, "{}: not a number", option);
}

}  // namespace

void AddSamplingOptions(CLI::App& command, SamplingArguments& arguments) {
  const auto add = [&](const char* name, auto& value, const char* text) {
    return command.add_option(name, value, text)->group("Sampling");
  };
  add("--temperature", arguments.temperature, "0: greedy")->check(CLI::Range(0.0, 1000.0));
  add("--top-k", arguments.top_k, "only the k likeliest tokens; 0: all")
      ->check(CLI::NonNegativeNumber);
  add("--top-p", arguments.top_p, "only the likeliest that together reach this probability")
      ->check(CLI::Range(0.0, 1.0));
  add("--min-p", arguments.min_p, "only tokens with this share of the likeliest one's probability")
      ->check(CLI::Range(0.0, 1.0));
  add("--repetition-penalty", arguments.repetition_penalty,
      "above 1: what stands in the text already becomes less likely; 1: off")
      ->check(CLI::Range(1e-6, 1e6));
  add("--seed", arguments.seed, "same seed, same text, on any machine")->capture_default_str();
  add("--max-tokens", arguments.max_tokens,
      "end after so many tokens (default: generation_config.json's max_new_tokens, else 512)")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 31));
  add("--stop", arguments.stop, "end before this text; can be given more than once")
      ->allow_extra_args(false);
}

GenerationOptions ChosenGeneration(const SamplingArguments& arguments, const std::string& folder,
                                   const ModelConfig& config, const Tokenizer* tokenizer,
                                   bool as_generate) {
  CheckNumber(arguments.temperature, "--temperature");
  CheckNumber(arguments.top_p, "--top-p");
  CheckNumber(arguments.min_p, "--min-p");
  CheckNumber(arguments.repetition_penalty, "--repetition-penalty");
  const GenerationDefaults defaults = ReadGenerationDefaults(folder, config);
  for (const std::string& setting : defaults.left_out) {
    fmt::print(stderr, "samebits: generation_config.json: {} is not done here and left out\n",
               setting);
  }
  GenerationOptions options;
  SamplingOptions& sampling = options.sampling;
  // generate(temperature=...) alone samples with its defaults of all the others.
  const bool sampled = as_generate && arguments.temperature.value_or(0) > 0;
  sampling = sampled ? defaults.sampled : defaults.sampling;
  sampling.temperature = arguments.temperature.value_or(sampling.temperature);
  sampling.top_k = arguments.top_k.value_or(sampling.top_k);
  sampling.top_p = arguments.top_p.value_or(sampling.top_p);
  sampling.min_p = arguments.min_p.value_or(sampling.min_p);
  sampling.repetition_penalty = arguments.repetition_penalty.value_or(sampling.repetition_penalty);
  sampling.seed = arguments.seed;
  options.max_tokens = arguments.max_tokens.value_or(defaults.max_tokens.value_or(512));
  options.max_length = config.context_length;
  for (const int64_t id : defaults.stop_ids) AddOnce(id, options.stop_ids);
  for (const std::string& text : arguments.stop) {
    const int64_t id = tokenizer == nullptr ? -1 : tokenizer->TokenToId(text);
    if (id >= 0 && tokenizer->IsSpecial(id)) {
      AddOnce(id, options.stop_ids);
    } else {
      AddOnce(text, options.stop_texts);
    }
  }
  if (tokenizer == nullptr && !arguments.stop.empty()) {
    Fail(ErrorCode::kUsage, "--stop: {} has no tokenizer.json, so there is no text to stop at",
         folder);
  }
  return options;
}

Json SamplingJson(const GenerationOptions& options) {
  const SamplingOptions& s = options.sampling;
  return {{"temperature", s.temperature},
          {"top_k", s.top_k},
          {"top_p", s.top_p},
          {"min_p", s.min_p},
          {"seed", s.seed},
          {"repetition_penalty", s.repetition_penalty},
          {"max_tokens", options.max_tokens}};
}

}  // namespace samebits
