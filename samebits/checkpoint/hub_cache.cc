#include "samebits/checkpoint/hub_cache.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <string_view>
#include <vector>

#include "samebits/base/error.h"
#include "samebits/base/json.h"

namespace samebits {
namespace {

namespace fs = std::filesystem;

std::string Variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

// As huggingface_hub/constants.py has it.
std::string CacheFolder() {
  for (const char* name : {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"}) {
    if (std::string value = Variable(name); !value.empty()) return value;
  }
  if (const std::string home = Variable("HF_HOME"); !home.empty()) return home + "/hub";
  if (const std::string cache = Variable("XDG_CACHE_HOME"); !cache.empty()) {
    return cache + "/huggingface/hub";
  }
  return Variable("HOME") + "/.cache/huggingface/hub";
}

// NAME or ORG/NAME of letters, digits, '.', '_' and '-', as the hub allows; never "." or "..".
bool IsHubId(std::string_view id) {
  const auto part = [](std::string_view name) {
    const auto allowed = [](char c) {
      return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
             c == '.' || c == '_' || c == '-';
    };
    return !name.empty() && name.size() <= 96 && name[0] != '.' && name[0] != '-' &&
           std::all_of(name.begin(), name.end(), allowed);
  };
  const size_t slash = id.find('/');
  if (slash == std::string_view::npos) return part(id);
  return part(id.substr(0, slash)) && part(id.substr(slash + 1));
}

// The only snapshot, or the one of refs/main; empty when there is none or no telling.
std::string Snapshot(const fs::path& repository) {
  std::error_code ignored;
  const fs::path reference = repository / "refs" / "main";
  if (fs::is_regular_file(reference, ignored)) {
    std::string commit = ReadTextFile(reference.string(), 4096);
    while (!commit.empty() && (commit.back() == '\n' || commit.back() == ' ')) commit.pop_back();
    const bool plain = !commit.empty() && commit.find('/') == std::string::npos && commit[0] != '.';
    const fs::path snapshot = repository / "snapshots" / commit;
    if (plain && fs::is_directory(snapshot, ignored)) return snapshot.string();
    return "";
  }
  std::vector<std::string> found;
  for (const fs::directory_entry& entry :
       fs::directory_iterator(repository / "snapshots", ignored)) {
    if (entry.is_directory(ignored)) found.push_back(entry.path().string());
  }
  return found.size() == 1 ? found[0] : "";
}

}  // namespace

std::string ResolveModel(const std::string& model) {
  std::error_code ignored;
  if (fs::is_directory(model, ignored)) return model;
  if (fs::exists(model, ignored)) {
    Fail(ErrorCode::kIo, "{}: not a folder; expected a Hugging Face checkpoint folder or hub id",
         model);
  }
  if (!IsHubId(model)) Fail(ErrorCode::kIo, "{}: not a folder, and not a hub id ORG/NAME", model);
  std::string name = model;
  if (const size_t slash = name.find('/'); slash != std::string::npos) name.replace(slash, 1, "--");
  const fs::path repository = fs::path(CacheFolder()) / ("models--" + name);
  if (!fs::is_directory(repository, ignored)) {
    Fail(ErrorCode::kIo,
         "{}: not a folder, and not in the Hugging Face cache: no {}; try: hf download {}", model,
         repository.string(), model);
  }
  std::string snapshot = Snapshot(repository);
  if (snapshot.empty()) {
    Fail(ErrorCode::kIo,
         "{}: {} has no snapshot for refs/main; the download may be incomplete: hf download {}",
         model, repository.string(), model);
  }
  return snapshot;
}

}  // namespace samebits
