#include "samebits/trace/trace.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "samebits/base/error.h"
#include "samebits/base/json.h"

namespace samebits {
namespace {

constexpr int64_t kMaxTokens = 1 << 24;
constexpr int64_t kMaxInteger = (int64_t{1} << 31) - 1;

std::string KeyName(const std::string& place, const char* key) {
  return fmt::format("{}: __metadata__ '{}'", place, key);
}

const std::string& Required(const std::map<std::string, std::string>& metadata, const char* key,
                            const std::string& place) {
  const auto found = metadata.find(key);
  if (found == metadata.end()) {
    Fail(ErrorCode::kBadInput, "{}: __metadata__ has no '{}'; is this a trace?", place, key);
  }
  return found->second;
}

// A list of integers, or one for each sequence of a batch.
struct Integers {
  std::vector<int64_t> values;  // row-major
  int64_t batch = 0;            // lists within the list; 0: none
};

// Appends a list of integers from 0 to `largest`.
void AppendRow(const Json& row, int64_t largest, const std::string& what,
               std::vector<int64_t>& values) {
  if (!row.is_array() || row.empty() || row.size() > kMaxTokens - values.size()) {
    Fail(ErrorCode::kBadInput, "{}: expected a list of 1 to {} integers, found {}", what,
         kMaxTokens, Excerpt(row));
  }
  for (const Json& value : row) {
    if (!value.is_number_unsigned() || value.get<uint64_t>() > static_cast<uint64_t>(largest)) {
      Fail(ErrorCode::kBadInput, "{}: expected integers from 0 to {}, found {}", what,
           largest == kMaxInteger ? "2^31 - 1" : fmt::to_string(largest), Excerpt(value));
    }
    values.push_back(value.get<int64_t>());
  }
}

Integers ParseIntegers(const std::string& text, int64_t largest, const std::string& what) {
  const Json json = ParseJson(text, what);
  Integers result;
  if (!json.is_array() || json.empty() || !json[0].is_array()) {
    AppendRow(json, largest, what, result.values);
    return result;
  }
  for (const Json& row : json) {
    AppendRow(row, largest, what, result.values);
    ++result.batch;
    if (row.size() != json[0].size()) {
      Fail(ErrorCode::kBadInput,
           "{}: sequence {} has {} integers, the first has {}; a batch is padded to one length",
           what, result.batch - 1, row.size(), json[0].size());
    }
  }
  return result;
}

// A key that goes with the ids, one integer for each.
std::vector<int64_t> ParseLikeIds(const std::string& text, const char* key, int64_t largest,
                                  const TraceInfo& info, const std::string& place) {
  Integers integers = ParseIntegers(text, largest, KeyName(place, key));
  const int64_t rows = std::max<int64_t>(1, integers.batch);
  const int64_t batch = std::max<int64_t>(1, info.batch);
  if (integers.values.size() != info.input_ids.size() || rows != batch) {
    const auto shown = [](size_t count, int64_t sequences) {
      return sequences == 1 ? fmt::to_string(count)
                            : fmt::format("{} x {}", sequences, count / sequences);
    };
    Fail(ErrorCode::kBadInput, "{}: {} {} for {} input_ids", place,
         shown(integers.values.size(), rows), key, shown(info.input_ids.size(), batch));
  }
  return std::move(integers.values);
}

std::vector<int64_t> ParseChunks(const std::string& text, int64_t tokens,
                                 const std::string& place) {
  const std::string what = KeyName(place, "chunks");
  Integers chunks = ParseIntegers(text, kMaxTokens, what);
  if (chunks.batch != 0) {
    Fail(ErrorCode::kBadInput, "{}: expected one list, found a list of lists", what);
  }
  int64_t sum = 0;
  for (const int64_t chunk : chunks.values) {
    if (chunk == 0) Fail(ErrorCode::kBadInput, "{}: a forward pass of 0 tokens", what);
    sum += chunk;  // no overflow: 2^24 of at most 2^24
  }
  if (sum != tokens) {
    Fail(ErrorCode::kBadInput, "{}: {} tokens in all, expected {}, as many as input_ids", what, sum,
         tokens);
  }
  return std::move(chunks.values);
}

int64_t TokensOf(const TraceInfo& info) {
  return static_cast<int64_t>(info.input_ids.size()) / std::max<int64_t>(1, info.batch);
}

TraceInfo ReadInfo(const TensorFile& file) {
  const auto& metadata = file.metadata;
  const std::string& place = file.path;
  TraceInfo info;
  info.metadata = metadata;
  if (const std::string& format = Required(metadata, "format", place);
      format != "samebits-trace-1") {
    Fail(ErrorCode::kUnsupported, "{}: __metadata__ format {}: expected samebits-trace-1", place,
         Excerpt(Json(format)));
  }
  Integers ids = ParseIntegers(Required(metadata, "input_ids", place), kMaxInteger,
                               KeyName(place, "input_ids"));
  info.input_ids = std::move(ids.values);
  info.batch = ids.batch;
  const int64_t tokens = TokensOf(info);
  const std::string& name = Required(metadata, "dtype", place);
  const std::optional<DType> dtype = ModelDTypeFromName(name);
  if (!dtype) {
    Fail(ErrorCode::kBadInput, "{}: __metadata__ dtype {}: expected float32, bfloat16 or float16",
         place, Excerpt(Json(name)));
  }
  info.dtype = *dtype;
  if (const auto found = metadata.find("positions"); found != metadata.end()) {
    info.positions = ParseLikeIds(found->second, "positions", kMaxInteger, info, place);
  } else {
    for (size_t i = 0; i < info.input_ids.size(); ++i) {
      info.positions.push_back(static_cast<int64_t>(i) % tokens);
    }
  }
  info.attention_mask.assign(info.input_ids.size(), 1);
  if (const auto found = metadata.find("attention_mask"); found != metadata.end()) {
    info.attention_mask = ParseLikeIds(found->second, "attention_mask", 1, info, place);
  }
  info.chunks = {tokens};
  if (const auto found = metadata.find("chunks"); found != metadata.end()) {
    info.chunks = ParseChunks(found->second, tokens, place);
  }
  return info;
}

}  // namespace

Trace Trace::Open(const std::string& path, const TraceMap* map) {
  TensorFile file = OpenTensorFile(path);
  return From(map == nullptr ? std::move(file) : ApplyMap(file, *map));
}

Trace Trace::Parse(std::span<const std::byte> bytes, const std::string& place) {
  return From(FromSafetensors(
      std::make_shared<const SafetensorsFile>(SafetensorsFile::Parse(bytes, place))));
}

Trace Trace::From(TensorFile file) {
  Trace trace;
  trace.file_ = std::move(file);
  trace.info_ = ReadInfo(trace.file_);
  return trace;
}

int64_t Trace::tokens() const { return TokensOf(info_); }

const TensorView* Trace::Find(std::string_view name) const { return file_.Find(name); }

struct TraceWriter::Impl {
  std::string path, temporary;
  int fd = -1;
  bool named =
      true;  // the temporary file; one without a name goes with the process, however it ends
  int64_t data_begin = 0;
  std::map<std::string, std::pair<int64_t, int64_t>, std::less<>> places;  // begin, bytes

  Impl() = default;
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;
  ~Impl() {  // also when the constructor of TraceWriter throws
    if (fd < 0) return;
    close(fd);
    if (named) unlink(temporary.c_str());
  }

  void Open() {
    const size_t slash = path.rfind('/');
    const std::string folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
    constexpr int kFlags = O_WRONLY | O_CLOEXEC;
    if (access("/proc/self/fd", X_OK) == 0) fd = open(folder.c_str(), O_TMPFILE | kFlags, 0666);
    named = fd < 0;
    if (named) fd = open(temporary.c_str(), O_CREAT | O_TRUNC | kFlags, 0666);
    if (fd < 0) {
      Fail(ErrorCode::kIo, "{}: can not be created: {}", temporary, std::strerror(errno));
    }
  }

  // False, with errno: the file could not get its name.
  bool Publish() {
    if (!named) {
      const std::string own = fmt::format("/proc/self/fd/{}", fd);
      named = linkat(AT_FDCWD, own.c_str(), AT_FDCWD, temporary.c_str(), AT_SYMLINK_FOLLOW) == 0;
      if (!named) return false;
    }
    const int closing = std::exchange(fd, -1);
    if (close(closing) == 0 && rename(temporary.c_str(), path.c_str()) == 0) return true;
    const int error = errno;
    unlink(temporary.c_str());
    errno = error;
    return false;
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
  impl_->Open();
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
  if (!impl_->Publish()) {
    Fail(ErrorCode::kIo, "{}: can not be written: {}", impl_->path, std::strerror(errno));
  }
}

}  // namespace samebits
