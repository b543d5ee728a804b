// What the two halves of samebits eval share: the options.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "apps/samebits/model_options.h"
#include "apps/samebits/profile_options.h"
#include "apps/samebits/sampling_options.h"

namespace samebits {

struct EvalOptions {
  ModelOptions model;
  std::string file;
  bool json = false;
  ProfileOptions profile;
  // Questions.
  SamplingArguments sampling;
  std::string output;    // empty: nothing is kept
  std::string examples;  // empty: the first items of `file`
  int64_t shots = 0;
  int64_t samples = 1;
  std::optional<int64_t> batch;
  int64_t limit = 0;  // 0: all
  bool chat = false;
  // Perplexity.
  bool perplexity = false;
  std::string against;
  std::optional<int64_t> window, stride;
};

// Gives the exit code. Throws Error.
int EvaluatePerplexity(const EvalOptions& options);

}  // namespace samebits
