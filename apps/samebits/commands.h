// The subcommands. Each Register function adds one to the program; its callback stores the exit
// code: 0 same or done, 1 different, 2 could not tell. Errors are thrown and caught in main.
#pragma once

#include <CLI/CLI.hpp>

namespace samebits {

void RegisterInspect(CLI::App& app, int& exit_code);
void RegisterRun(CLI::App& app, int& exit_code);
void RegisterChat(CLI::App& app, int& exit_code);
void RegisterTokenize(CLI::App& app, int& exit_code);
void RegisterTrace(CLI::App& app, int& exit_code);
void RegisterBench(CLI::App& app, int& exit_code);
void RegisterEval(CLI::App& app, int& exit_code);
void RegisterCheck(CLI::App& app, int& exit_code);
void RegisterTolerance(CLI::App& app, int& exit_code);
void RegisterDiff(CLI::App& app, int& exit_code);
void RegisterCompletion(CLI::App& app, int& exit_code);

}  // namespace samebits
