#include "apps/samebits/commands.h"

namespace samebits {

void RegisterDiff(CLI::App& app, int& exit_code) {
  app.add_subcommand("diff", "")->callback([&exit_code] { exit_code = 2; });
}

}  // namespace samebits
