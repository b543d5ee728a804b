#include "samebits/report/html_report.h"

#include <fmt/format.h>
#include <report_page.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string_view>

#include "samebits/base/error.h"

namespace samebits {
namespace {

// JSON in ASCII, in which no HTML can begin: the three characters that could are written as
// escapes, which JSON allows inside strings, and they stand nowhere else.
std::string ScriptSafe(const Json& json) {
  const std::string text = json.dump(-1, ' ', true, Json::error_handler_t::replace);
  std::string safe;
  safe.reserve(text.size());
  for (const char c : text) {
    if (c == '<' || c == '>' || c == '&') {
      safe += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
    } else {
      safe += c;
    }
  }
  return safe;
}

}  // namespace

std::string CheckToHtml(const Json& report) {
  constexpr std::string_view kMark = "@SAMEBITS_JSON@";
  std::string page(kReportPage);
  const size_t at = page.find(kMark);
  SAMEBITS_CHECK(at != std::string::npos, "the page has no place for the JSON");
  return page.replace(at, kMark.size(), ScriptSafe(report));
}

void CheckWritable(const std::string& path) {
  const std::string temporary = fmt::format("{}.{}.part", path, getpid());
  std::FILE* file = std::fopen(temporary.c_str(), "wb");
  if (file == nullptr) {
    Fail(ErrorCode::kIo, "{}: can not be written: {}", path, std::strerror(errno));
  }
  std::fclose(file);
  unlink(temporary.c_str());
}

void WriteFile(const std::string& path, const std::string& text) {
  const std::string temporary = fmt::format("{}.{}.part", path, getpid());
  std::FILE* file = std::fopen(temporary.c_str(), "wb");
  if (file == nullptr) {
    Fail(ErrorCode::kIo, "{}: can not be written: {}", path, std::strerror(errno));
  }
  const bool written = std::fwrite(text.data(), 1, text.size(), file) == text.size();
  const bool closed = std::fclose(file) == 0;
  if (written && closed && std::rename(temporary.c_str(), path.c_str()) == 0) return;
  const int reason = errno;
  unlink(temporary.c_str());
  Fail(ErrorCode::kIo, "{}: can not be written: {}", path, std::strerror(reason));
}

}  // namespace samebits
