// Options of every subcommand that runs a model, and what they open.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "samebits/checkpoint/checkpoint.h"
#include "samebits/engine/runtime.h"
#include "samebits/graph/graph.h"

namespace samebits {

struct ModelOptions {
  std::string model;  // a folder or a hub id
  std::string dtype;  // empty: the checkpoint's
  std::string cpu = "native";
  int threads = 0;  // 0: one a physical core
  int64_t chunk = 512;
  std::string parallel;  // empty: tp = the number of ranks
};

// MODEL alone, with its text of help.
CLI::Option* AddModelArgument(CLI::App& command, std::string& model);
void AddModelOptions(CLI::App& command, ModelOptions& options);

// The dtype asked for, or the configuration's. Throws Error(kUsage).
DType ChosenDType(const ModelOptions& options, const ModelConfig& config);
RuntimeOptions ChosenRuntime(const ModelOptions& options, const ModelConfig& config);

// `asked`, or this rank's part of the machine's cores when it is 0.
int ChosenThreads(int asked);
void CheckThreads(int asked);  // throws Error(kUsage); 0 is the default

// Of the running program, for AgreeOn.
std::string ProgramDigest();

// Under mpirun: makes this process one of the ranks that run the model together. They must have the
// same checkpoint, program, profile, arguments and prompt (`what`). Throws Error(kUsage) when they
// have not, or when --parallel asks for another number of ranks.
void JoinRanks(const ModelOptions& options, const Checkpoint& checkpoint, const std::string& what,
               RuntimeOptions& runtime);

// "1,2,3"; throws Error(kUsage).
std::vector<int64_t> ParseIds(const std::string& text);

// What was printed must have arrived: throws Error(kIo) for a full disk.
void FlushOutput();

}  // namespace samebits
