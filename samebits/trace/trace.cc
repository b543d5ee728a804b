#include "samebits/trace/trace.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <numeric>
#include <utility>

#include "samebits/base/error.h"
#include "samebits/base/json.h"

namespace samebits {
namespace {

constexpr int64_t kMaxTokens = 1 << 24;

const std::string& Required(const std::map<std::string, std::string>& metadata, const char* key,
                            const std::string& place) {
  const auto found = metadata.find(key);
  if (found == metadata.end()) {
    Fail(ErrorCode::kBadInput, "{}: __metadata__ has no '{}'; is this a trace?", place, key);
  }
  return found->second;
}

std::vector<int64_t> ParseIntegers(const std::string& text, const char* key,
                                   const std::string& place) {
  const std::string what = fmt::format("{}: __metadata__ '{}'", place, key);
  Json json = ParseJson(text, what);
  if (json.is_array() && !json.empty() && json[0].is_array()) {
    if (json.size() != 1) {
      Fail(ErrorCode::kUnsupported, "{}: a batch of {} sequences; supported is one", what,
           json.size());
    }
    json = Json(json[0]);
  }
  if (!json.is_array() || json.empty() || json.size() > kMaxTokens) {
    Fail(ErrorCode::kBadInput, "{}: expected a list of 1 to {} integers, found {}", what,
         kMaxTokens, Excerpt(json));
  }
  std::vector<int64_t> values;
  for (const Json& value : json) {
    if (!value.is_number_unsigned() || value.get<uint64_t>() >= (uint64_t{1} << 31)) {
      Fail(ErrorCode::kBadInput, "{}: expected integers from 0 to 2^31 - 1, found {}", what,
           Excerpt(value));
    }
    values.push_back(value.get<int64_t>());
  }
  return values;
}

TraceInfo ReadInfo(const SafetensorsFile& file) {
  const auto& metadata = file.metadata();
  const std::string& place = file.path();
  TraceInfo info;
  info.metadata = metadata;
  if (const std::string& format = Required(metadata, "format", place);
      format != "samebits-trace-1") {
    Fail(ErrorCode::kUnsupported, "{}: __metadata__ format {}: expected samebits-trace-1", place,
         Excerpt(Json(format)));
  }
  info.input_ids = ParseIntegers(Required(metadata, "input_ids", place), "input_ids", place);
  const std::string& name = Required(metadata, "dtype", place);
  const std::optional<DType> dtype = ModelDTypeFromName(name);
  if (!dtype) {
    Fail(ErrorCode::kBadInput, "{}: __metadata__ dtype {}: expected float32, bfloat16 or float16",
         place, Excerpt(Json(name)));
  }
  info.dtype = *dtype;
  if (metadata.contains("positions")) {
    info.positions = ParseIntegers(metadata.at("positions"), "positions", place);
    if (info.positions.size() != info.input_ids.size()) {
      Fail(ErrorCode::kBadInput, "{}: {} positions for {} input_ids", place, info.positions.size(),
           info.input_ids.size());
    }
  } else {
    info.positions.resize(info.input_ids.size());
    std::iota(info.positions.begin(), info.positions.end(), 0);
  }
  return info;
}

}  // namespace

Trace Trace::Open(const std::string& path) {
  Trace trace;
  trace.file_ = SafetensorsFile::Open(path);
  trace.info_ = ReadInfo(trace.file_);
  return trace;
}

Trace Trace::Parse(std::span<const std::byte> bytes, const std::string& place) {
  Trace trace;
  trace.file_ = SafetensorsFile::Parse(bytes, place);
  trace.info_ = ReadInfo(trace.file_);
  return trace;
}

const TensorView* Trace::Find(std::string_view name) const {
  const TensorEntry* entry = file_.Find(name);
  return entry == nullptr ? nullptr : &entry->view;
}

struct TraceWriter::Impl {
  std::string path, temporary;
  int fd = -1;
  int64_t data_begin = 0;
  std::map<std::string, std::pair<int64_t, int64_t>, std::less<>> places;  // begin, bytes

  Impl() = default;
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;
  ~Impl() {  // also when the constructor of TraceWriter throws
    if (fd < 0) return;
    close(fd);
    unlink(temporary.c_str());
  }

  void WriteAt(int64_t offset, const void* data, int64_t bytes) {
    const char* from = static_cast<const char*>(data);
    while (bytes > 0) {
      const ssize_t written = pwrite(fd, from, static_cast<size_t>(bytes), offset);
      if (written < 0 && errno == EINTR) continue;
      if (written <= 0) {
        Fail(ErrorCode::kIo, "{}: can not be written: {}", temporary, std::strerror(errno));
      }
      from += written;
      offset += written;
      bytes -= written;
    }
  }
};

TraceWriter::TraceWriter(const std::string& path,
                         const std::map<std::string, std::string>& metadata,
                         std::vector<Plan> tensors)
    : impl_(std::make_unique<Impl>()) {
  impl_->path = path;
  impl_->temporary = fmt::format("{}.{}.part", path, getpid());
  // Wide elements first, so that every tensor is aligned to its elements.
  std::stable_sort(tensors.begin(), tensors.end(), [](const Plan& a, const Plan& b) {
    return DTypeSize(a.dtype) > DTypeSize(b.dtype);
  });
  Json header = Json::object();
  header["__metadata__"] = metadata;
  int64_t at = 0;
  for (const Plan& plan : tensors) {
    const int64_t bytes = NumElements(plan.shape) * DTypeSize(plan.dtype);
    SAMEBITS_CHECK(!impl_->places.contains(plan.name), plan.name);
    impl_->places[plan.name] = {at, bytes};
    header[plan.name] = {{"dtype", DTypeName(plan.dtype)},
                         {"shape", plan.shape},
                         {"data_offsets", {at, at + bytes}}};
    at += bytes;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  impl_->data_begin = 8 + static_cast<int64_t>(text.size());
  impl_->fd = open(impl_->temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (impl_->fd < 0) {
    Fail(ErrorCode::kIo, "{}: can not be created: {}", impl_->temporary, std::strerror(errno));
  }
  if (ftruncate(impl_->fd, impl_->data_begin + at) != 0) {
    Fail(ErrorCode::kIo, "{}: no room for {} bytes: {}", impl_->temporary, impl_->data_begin + at,
         std::strerror(errno));
  }
  const auto length = static_cast<uint64_t>(text.size());
  impl_->WriteAt(0, &length, 8);
  impl_->WriteAt(8, text.data(), static_cast<int64_t>(text.size()));
}

TraceWriter::~TraceWriter() = default;

bool TraceWriter::Has(std::string_view name) const { return impl_->places.contains(name); }

void TraceWriter::Write(std::string_view name, int64_t offset, const void* data, int64_t bytes) {
  const auto found = impl_->places.find(name);
  SAMEBITS_CHECK(found != impl_->places.end(), std::string(name));
  const auto [begin, size] = found->second;
  SAMEBITS_CHECK(offset >= 0 && bytes >= 0 && offset <= size - bytes, std::string(name));
  impl_->WriteAt(impl_->data_begin + begin + offset, data, bytes);
}

void TraceWriter::Finish() {
  const int fd = impl_->fd;
  impl_->fd = -1;
  const bool closed = close(fd) == 0;
  if (!closed || rename(impl_->temporary.c_str(), impl_->path.c_str()) != 0) {
    const int error = errno;
    unlink(impl_->temporary.c_str());
    Fail(ErrorCode::kIo, "{}: can not be written: {}", impl_->path, std::strerror(error));
  }
}

}  // namespace samebits
