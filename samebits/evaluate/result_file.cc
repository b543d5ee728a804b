#include "samebits/evaluate/result_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "samebits/base/error.h"

namespace samebits {
namespace {

constexpr int64_t kMaxBytes = int64_t{1} << 32;

std::string Line(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

[[noreturn]] void FailForeign(const std::string& path) {
  Fail(ErrorCode::kBadInput,
       "{}:1: expected the first line of an output of samebits eval, found something else; nothing "
       "was changed, give another -o",
       path);
}

Json FirstLine(std::string_view line, const std::string& path) {
  try {
    return ParseJson(line, path);
  } catch (const Error&) {
    FailForeign(path);
  }
}

void CheckRun(const Json& found, const Json& run, const std::string& path) {
  if (!found.is_object() || !found.contains("format") || found["format"] != run["format"]) {
    FailForeign(path);
  }
  const auto value = [](const Json& json, const std::string& key) {
    return json.contains(key) ? Excerpt(json[key]) : std::string("nothing");
  };
  Json keys = found;
  keys.update(run);
  for (const auto& [key, ignored] : keys.items()) {
    if (found.contains(key) && run.contains(key) && found[key] == run[key]) continue;
    Fail(ErrorCode::kUsage,
         "{}: made with \"{}\": {}, this run has {}; give another -o, or delete the file to begin "
         "anew",
         path, key, value(found, key), value(run, key));
  }
}

// The line of an item, without what is not needed to go on.
Json ParseResult(std::string_view line, const std::string& place) {
  Json json;
  try {
    json = ParseJson(line, place);
  } catch (const Error& error) {
    Fail(error.code(), "{}; without the line its item is done again", error.what());
  }
  if (!json.is_object()) {
    Fail(ErrorCode::kBadInput,
         "{}: expected an object, found {}; without the line its item is done again", place,
         Excerpt(json));
  }
  Json kept = Json::object();
  for (const char* key : {"item", "prompt_digest", "strict_right", "flexible_right"}) {
    if (json.contains(key)) kept[key] = std::move(json[key]);
  }
  return kept;
}

// Opening a pipe could wait for ever, and a device keeps nothing.
int Open(const std::string& path) {
  std::error_code ignored;
  const auto status = std::filesystem::status(path, ignored);
  if (std::filesystem::exists(status) && !std::filesystem::is_regular_file(status)) {
    Fail(ErrorCode::kIo, "{}: expected a regular file or a new name, found {}; give another -o",
         path, std::filesystem::is_directory(status) ? "a folder" : "a device, a pipe or a socket");
  }
  const int file = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (file < 0) {
    Fail(ErrorCode::kIo, "{}: can not be opened for writing: {}; give another -o", path,
         std::strerror(errno));
  }
  return file;
}

}  // namespace

FoundResults ParseResults(std::string_view text, const std::string& path, const Json& run) {
  FoundResults result;
  int64_t number = 0;
  size_t at = 0;
  for (size_t end = text.find('\n'); end != std::string::npos; end = text.find('\n', at)) {
    const std::string_view line = text.substr(at, end - at);
    if (++number == 1) {
      CheckRun(FirstLine(line, path), run, path);
    } else {
      result.lines.push_back(ParseResult(line, fmt::format("{}:{}", path, number)));
    }
    at = end + 1;
  }
  // A first line that was cut must be the beginning of ours: no other file is to be overwritten.
  if (number == 0 && !Line(run).starts_with(text)) FailForeign(path);
  result.bytes = static_cast<int64_t>(at);
  return result;
}

ResultFile::ResultFile(const std::string& path, const Json& run)
    : path_(path), run_(run), file_(Open(path)) {
  try {
    // Other failures: a file system without locks.
    if (flock(file_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
      Fail(ErrorCode::kUsage,
           "{}: expected a file that no other process writes, found it locked by another samebits "
           "eval; wait for its end, or give another -o",
           path_);
    }
    found_ = ParseResults(ReadTextFile(path_, kMaxBytes), path_, run_);
  } catch (...) {
    close(file_);
    throw;
  }
}

ResultFile::~ResultFile() { close(file_); }

void ResultFile::Begin() {
  if (ftruncate(file_, found_.bytes) != 0) FailToWrite(errno);
  if (found_.bytes == 0) Append(run_);
}

void ResultFile::Append(const Json& line) {
  const std::string text = Line(line);
  for (size_t done = 0; done < text.size();) {
    const ssize_t count = pwrite(file_, text.data() + done, text.size() - done,
                                 found_.bytes + static_cast<int64_t>(done));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) FailToWrite(errno);
    done += static_cast<size_t>(count);
  }
  found_.bytes += static_cast<int64_t>(text.size());
}

void ResultFile::Finish() {
  // EINVAL, EROFS: a file system that has nothing to wait for.
  if (fsync(file_) != 0 && errno != EINVAL && errno != EROFS) FailToWrite(errno);
}

void ResultFile::FailToWrite(int error) const {
  // A cut line that stays all the same is left out when the run goes on.
  const bool whole = ftruncate(file_, found_.bytes) == 0;
  Fail(ErrorCode::kIo, "{}: can not be written: {}; {}, the same command goes on behind them",
       path_, std::strerror(error),
       whole ? "its lines are whole" : "its lines are whole up to the last");
}

}  // namespace samebits
