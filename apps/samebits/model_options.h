// Options that several subcommands share, and what they open.
#pragma once

#include <CLI/CLI.hpp>
#include <optional>
#include <string>
#include <vector>

#include "samebits/checkpoint/checkpoint.h"
#include "samebits/engine/runtime.h"
#include "samebits/graph/graph.h"
#include "samebits/text/tokenizer.h"

namespace samebits {

struct ModelOptions {
  std::string model;
  std::string ids;     // "1,2,3"
  std::string prompt;  // when there are no ids
  bool raw = false;    // the prompt without a chat template
  std::string dtype;   // empty: the checkpoint's
  std::string cpu = "native";
  int threads = 0;  // 0: one a physical core
  int64_t chunk = 512;
};

void AddModelOptions(CLI::App& command, ModelOptions& options);

// The dtype asked for, or the configuration's. Throws Error(kUsage).
DType ChosenDType(const ModelOptions& options, const ModelConfig& config);
RuntimeOptions ChosenRuntime(const ModelOptions& options, const ModelConfig& config);

// The token ids of --ids or of the prompt, checked against the vocabulary and the context before
// anything is sized by them. `tokenizer` is opened when needed.
std::vector<int64_t> PromptIds(const ModelOptions& options, const ModelConfig& config,
                               std::optional<Tokenizer>& tokenizer);

// "1,2,3"; throws Error(kUsage).
std::vector<int64_t> ParseIds(const std::string& text);

// Feeds ids in chunks; returns the last logits. Progress goes to stderr on a terminal.
const TensorView& Prefill(Runtime& runtime, Sequence& sequence, const std::vector<int64_t>& ids,
                          int64_t chunk, Recorder* recorder = nullptr);

}  // namespace samebits
