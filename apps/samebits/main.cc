// The program `samebits`: reads the command line, runs one subcommand, turns errors into a message
// and exit code 2.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdio>
#include <exception>
#include <string_view>

#include "apps/samebits/commands.h"
#include "apps/samebits/ranks.h"
#include "samebits/base/error.h"
#include "samebits/checkpoint/mapped_file.h"

namespace {

// Commands that share their work among ranks; of the others rank 0 alone runs.
bool RunsOnAllRanks(int argc, char** argv) {
  constexpr std::array<std::string_view, 6> kNames = {"run",  "chat",  "trace",
                                                      "eval", "check", "bench"};
  return argc > 1 && std::find(kNames.begin(), kNames.end(), argv[1]) != kNames.end();
}

int Failed(const char* message) {
  samebits::FailRank(message);
  return 2;
}

int Main(int argc, char** argv) {
  CLI::App app{"samebits: same bits, or the reason why not"};
  app.set_version_flag("--version", SAMEBITS_VERSION);
  app.require_subcommand(1);
  int exit_code = 0;
  samebits::RegisterInspect(app, exit_code);
  samebits::RegisterRun(app, exit_code);
  samebits::RegisterChat(app, exit_code);
  samebits::RegisterTokenize(app, exit_code);
  samebits::RegisterTrace(app, exit_code);
  samebits::RegisterEval(app, exit_code);
  samebits::RegisterCheck(app, exit_code);
  samebits::RegisterTolerance(app, exit_code);
  samebits::RegisterDiff(app, exit_code);
  samebits::RegisterBench(app, exit_code);
  samebits::RegisterCompletion(app, exit_code);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  return exit_code;
}

}  // namespace

int main(int argc, char** argv) {
  samebits::InstallTruncationHandler();
  // A file that grows beyond `ulimit -f` is an error of write() then, like a full disk.
  std::signal(SIGXFSZ, SIG_IGN);
  try {
    samebits::StartRanks();
    const bool here = samebits::IsRootRank() || RunsOnAllRanks(argc, argv);
    const int exit_code = here ? Main(argc, argv) : 0;
    samebits::EndRanks();
    return exit_code;
  } catch (const samebits::Error& error) {
    return Failed(error.what());
  } catch (const std::exception& error) {
    return Failed(fmt::format("unexpected error: {}", error.what()).c_str());
  }
}
