// How an answer is chosen and where it ends, as options of `run` and `chat`. What is not given
// comes from generation_config.json.
#pragma once

#include <CLI/CLI.hpp>
#include <optional>
#include <string>
#include <vector>

#include "samebits/base/json.h"
#include "samebits/engine/generate.h"

namespace samebits {

struct SamplingArguments {
  std::optional<double> temperature, top_p, min_p, repetition_penalty;
  std::optional<int64_t> top_k, max_tokens;
  uint64_t seed = 0;
  std::vector<std::string> stop;
};

void AddSamplingOptions(CLI::App& command, SamplingArguments& arguments);

// The options with the checkpoint's defaults under them. A stop text that is one special token
// stops at its id. Settings of generation_config.json that are left out are named on stderr.
// as_generate: a temperature on the command line means do_sample=True of transformers' generate,
// with its defaults of all the other settings (top_k is 50 where nobody says one).
GenerationOptions ChosenGeneration(const SamplingArguments& arguments, const std::string& folder,
                                   const ModelConfig& config, const Tokenizer* tokenizer,
                                   bool as_generate = false);

// The settings as `run --json` prints them.
Json SamplingJson(const GenerationOptions& options);

}  // namespace samebits
