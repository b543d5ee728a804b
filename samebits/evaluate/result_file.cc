#include "samebits/evaluate/result_file.h"

#include <fcntl.h>
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

}  // namespace

ResultFile ReadResults(const std::string& path, const Json& run) {
  ResultFile result;
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) return result;
  const std::string text = ReadTextFile(path, kMaxBytes);
  int64_t number = 0;
  size_t at = 0;
  for (size_t end = text.find('\n'); end != std::string::npos; end = text.find('\n', at)) {
    const std::string_view line = std::string_view(text).substr(at, end - at);
    const std::string place = fmt::format("{}:{}", path, ++number);
    if (number == 1) {
      CheckRun(FirstLine(line, path), run, path);
    } else {
      Json json = ParseJson(line, place);
      if (!json.is_object()) {
        Fail(ErrorCode::kBadInput, "{}: expected an object, found {}", place, Excerpt(json));
      }
      result.lines.push_back(std::move(json));
    }
    at = end + 1;
  }
  // A first line that was cut must be the beginning of ours: no other file is to be overwritten.
  if (number == 0 && !Line(run).starts_with(text)) FailForeign(path);
  result.bytes = static_cast<int64_t>(at);
  return result;
}

ResultWriter::ResultWriter(const std::string& path, const Json& run, const ResultFile& found)
    : path_(path), file_(open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0666)) {
  if (file_ < 0) Fail(ErrorCode::kIo, "{}: {}", path, std::strerror(errno));
  try {
    if (ftruncate(file_, found.bytes) != 0) {
      Fail(ErrorCode::kIo, "{}: {}", path, std::strerror(errno));
    }
    lseek(file_, 0, SEEK_END);
    if (found.bytes == 0) Append(run);
  } catch (...) {
    close(file_);
    throw;
  }
}

ResultWriter::~ResultWriter() { close(file_); }

void ResultWriter::Append(const Json& line) {
  const std::string text = Line(line);
  for (size_t done = 0; done < text.size();) {
    const ssize_t count = write(file_, text.data() + done, text.size() - done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) Fail(ErrorCode::kIo, "{}: {}", path_, std::strerror(errno));
    done += static_cast<size_t>(count);
  }
}

}  // namespace samebits
