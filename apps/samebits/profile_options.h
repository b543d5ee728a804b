// The option --profile of the commands that can replay another framework.
#pragma once

#include <CLI/CLI.hpp>
#include <map>
#include <memory>
#include <string>

#include "samebits/engine/replay_plan.h"

namespace samebits {

struct ProfileOptions {
  std::string path;                // empty: `canonical`
  std::string attention = "sdpa";  // what transformers takes unless it is told otherwise
};

void AddProfileOptions(CLI::App& command, ProfileOptions& options);

// Null without a profile. `metadata`: of a trace `place` that says how it was made, or null. Says
// on stderr which entries are not proven. Throws Error.
std::shared_ptr<const ReplayPlan> OpenReplay(
    const ProfileOptions& options, const std::map<std::string, std::string>* metadata = nullptr,
    const std::string& place = "");

}  // namespace samebits
