#include "apps/samebits/profile_options.h"

#include <fmt/format.h>

namespace samebits {

void AddProfileOptions(CLI::App& command, ProfileOptions& options) {
  CLI::Option* profile =
      command.add_option("--profile", options.path,
                         "replay another framework's bits by this profile, which python -m "
                         "samebits probe makes");
  command
      .add_option("--attention", options.attention,
                  "with --profile: the attention that transformers was told to run")
      ->capture_default_str()
      ->check(CLI::IsMember({"eager", "sdpa"}))
      ->needs(profile);
}

std::shared_ptr<const ReplayPlan> OpenReplay(const ProfileOptions& options,
                                             const std::map<std::string, std::string>* metadata,
                                             const std::string& place) {
  if (options.path.empty()) return nullptr;
  auto replay = std::make_shared<ReplayPlan>(
      std::make_shared<const Profile>(Profile::Open(options.path)), options.attention);
  if (metadata != nullptr) replay->TakeFrom(*metadata, place);
  for (const std::string& line : replay->profile().Unproven()) {
    fmt::print(stderr, "samebits: not proven: {}\n", line);
  }
  return replay;
}

}  // namespace samebits
