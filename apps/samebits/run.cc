#include "apps/samebits/commands.h"

namespace samebits {

void RegisterRun(CLI::App& app, int& exit_code) {
  app.add_subcommand("run", "")->callback([&exit_code] { exit_code = 2; });
}

}  // namespace samebits
