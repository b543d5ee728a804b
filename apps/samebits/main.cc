// The program `samebits`: reads the command line, runs one subcommand, turns errors into a message
// and exit code 2.
#include <fmt/format.h>

#include <cstdio>
#include <exception>

#include "apps/samebits/commands.h"
#include "samebits/base/error.h"
#include "samebits/checkpoint/mapped_file.h"

int main(int argc, char** argv) {
  samebits::InstallTruncationHandler();
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
  } catch (const samebits::Error& error) {
    fmt::print(stderr, "samebits: {}\n", error.what());
    return 2;
  } catch (const std::exception& error) {
    fmt::print(stderr, "samebits: unexpected error: {}\n", error.what());
    return 2;
  }
  return exit_code;
}
