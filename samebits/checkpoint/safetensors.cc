#include "samebits/checkpoint/safetensors.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <utility>

#include "samebits/base/error.h"
#include "samebits/base/json.h"

static_assert(std::endian::native == std::endian::little, "safetensors is little endian");

namespace samebits {
namespace {

constexpr uint64_t kMaxHeader = 100'000'000;  // the limit of the reference implementation

std::string Name(const std::string& name) { return Excerpt(Json(name)); }

// Bytes of a shape, checked: every size at least 0, no product beyond int64.
int64_t CheckedBytes(const Json& sizes, DType dtype, Shape& shape, const std::string& what) {
  if (!sizes.is_array()) {
    Fail(ErrorCode::kBadInput, "{}: shape: expected a list, found {}", what, Excerpt(sizes));
  }
  int64_t bytes = DTypeSize(dtype);
  bool empty = false;
  for (const Json& size : sizes) {
    if (!size.is_number_unsigned() ||
        size.get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      Fail(ErrorCode::kBadInput, "{}: shape: expected integers of at least 0, found {}", what,
           Excerpt(size));
    }
    shape.push_back(size.get<int64_t>());
    empty = empty || shape.back() == 0;
  }
  for (int64_t size : shape) {
    // A size of 0 must not hide an overflow of the others from whoever multiplies them in order.
    if (__builtin_mul_overflow(bytes, std::max<int64_t>(size, 1), &bytes)) {
      Fail(ErrorCode::kBadInput, "{}: shape {}: more bytes than 2^63", what, Excerpt(sizes));
    }
  }
  return empty ? 0 : bytes;
}

TensorEntry ParseEntry(const std::string& name, const Json& object, uint64_t data_size,
                       const std::string& place) {
  const std::string what = fmt::format("{}: tensor {}", place, Name(name));
  if (!object.is_object() || object.size() != 3) {
    Fail(ErrorCode::kBadInput, "{}: expected exactly dtype, shape and data_offsets, found {}", what,
         Excerpt(object));
  }
  for (const char* key : {"dtype", "shape", "data_offsets"}) {
    if (!object.contains(key)) Fail(ErrorCode::kBadInput, "{}: '{}' is missing", what, key);
  }
  TensorEntry entry;
  entry.name = name;
  const std::string spelled = StringField(object, "dtype", what);
  const std::optional<DType> dtype = DTypeFromName(spelled);
  if (!dtype) Fail(ErrorCode::kBadInput, "{}: unknown dtype {}", what, Name(spelled));
  entry.view.dtype = *dtype;
  const int64_t bytes = CheckedBytes(object["shape"], *dtype, entry.view.shape, what);
  const Json& offsets = object["data_offsets"];
  if (!offsets.is_array() || offsets.size() != 2 || !offsets[0].is_number_unsigned() ||
      !offsets[1].is_number_unsigned()) {
    Fail(ErrorCode::kBadInput, "{}: data_offsets: expected [begin, end], found {}", what,
         Excerpt(offsets));
  }
  entry.begin = offsets[0].get<uint64_t>();
  entry.end = offsets[1].get<uint64_t>();
  if (entry.begin > entry.end || entry.end > data_size) {
    Fail(ErrorCode::kBadInput,
         "{}: data_offsets [{}, {}]: expected begin <= end <= {} (the bytes after the header); is "
         "the file truncated?",
         what, entry.begin, entry.end, data_size);
  }
  if (entry.end - entry.begin != static_cast<uint64_t>(bytes)) {
    Fail(ErrorCode::kBadInput, "{}: shape {} {} needs {} bytes, data_offsets give {}", what,
         ShapeToString(entry.view.shape), DTypeName(*dtype), bytes, entry.end - entry.begin);
  }
  return entry;
}

// The tensors, in the order of their offsets, cover the data without overlap or hole.
void CheckLayout(const std::vector<TensorEntry>& entries, uint64_t data_size,
                 const std::string& place) {
  std::vector<const TensorEntry*> order;
  order.reserve(entries.size());
  for (const TensorEntry& entry : entries) order.push_back(&entry);
  std::sort(order.begin(), order.end(), [](const TensorEntry* a, const TensorEntry* b) {
    return std::pair(a->begin, a->end) < std::pair(b->begin, b->end);
  });
  uint64_t at = 0;
  for (const TensorEntry* entry : order) {
    if (entry->begin != at) {
      Fail(ErrorCode::kBadInput, "{}: tensor {}: begins at byte {}, expected {} ({})", place,
           Name(entry->name), entry->begin, at,
           entry->begin < at ? "it overlaps the one before" : "there is a hole before it");
    }
    at = entry->end;
  }
  if (at != data_size) {
    Fail(ErrorCode::kBadInput, "{}: the tensors end at byte {}, the data at {}", place, at,
         data_size);
  }
}

struct Parsed {
  std::map<std::string, std::string> metadata;
  std::vector<TensorEntry> tensors;
};

Parsed ParseBytes(std::span<const std::byte> bytes, const std::string& place) {
  if (bytes.size() < 8) {
    Fail(ErrorCode::kBadInput, "{}: {} bytes: a safetensors file has at least 8", place,
         bytes.size());
  }
  uint64_t length = 0;
  std::memcpy(&length, bytes.data(), 8);
  if (length > kMaxHeader || length > bytes.size() - 8) {
    Fail(
        ErrorCode::kBadInput,
        "{}: header of {} bytes: the file has {} after its first 8, and {} are allowed; truncated, "
        "or no safetensors file?",
        place, length, bytes.size() - 8, kMaxHeader);
  }
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()) + 8, length);
  if (text.empty() || text[0] != '{') {
    Fail(ErrorCode::kBadInput, "{}: the header does not begin with '{{'", place);
  }
  const Json header = ParseJson(text, place + ": header");
  const uint64_t data_size = bytes.size() - 8 - length;
  Parsed parsed;
  for (const auto& [key, value] : header.items()) {
    if (key != "__metadata__") {
      parsed.tensors.push_back(ParseEntry(key, value, data_size, place));
      continue;
    }
    if (!value.is_object()) {
      Fail(ErrorCode::kBadInput, "{}: __metadata__: expected an object, found {}", place,
           Excerpt(value));
    }
    for (const auto& [name, text_value] : value.items()) {
      if (!text_value.is_string()) {
        Fail(ErrorCode::kBadInput, "{}: __metadata__ {}: expected a string, found {}", place,
             Name(name), Excerpt(text_value));
      }
      parsed.metadata[name] = text_value.get<std::string>();
    }
  }
  CheckLayout(parsed.tensors, data_size, place);
  for (TensorEntry& entry : parsed.tensors) {
    entry.view.data = bytes.data() + 8 + length + entry.begin;
    const auto address = reinterpret_cast<uintptr_t>(entry.view.data);
    if (address % static_cast<uintptr_t>(DTypeSize(entry.view.dtype)) != 0) {
      Fail(ErrorCode::kUnsupported,
           "{}: tensor {}: {} values begin at byte {} of the file, which is not a multiple of {}; "
           "writers of safetensors align the header to 8 bytes",
           place, Name(entry.name), DTypeName(entry.view.dtype), 8 + length + entry.begin,
           DTypeSize(entry.view.dtype));
    }
  }
  std::sort(parsed.tensors.begin(), parsed.tensors.end(),
            [](const TensorEntry& a, const TensorEntry& b) { return a.name < b.name; });
  return parsed;
}

}  // namespace

SafetensorsFile SafetensorsFile::Parse(std::span<const std::byte> bytes, const std::string& place) {
  SafetensorsFile result;
  Parsed parsed = ParseBytes(bytes, place);
  result.path_ = place;
  result.metadata_ = std::move(parsed.metadata);
  result.tensors_ = std::move(parsed.tensors);
  return result;
}

SafetensorsFile SafetensorsFile::Open(const std::string& path) {
  auto file = std::make_shared<const MappedFile>(path);
  SafetensorsFile result = Parse(file->bytes(), path);
  result.file_ = std::move(file);
  return result;
}

const TensorEntry* SafetensorsFile::Find(std::string_view name) const {
  const auto found =
      std::lower_bound(tensors_.begin(), tensors_.end(), name,
                       [](const TensorEntry& a, std::string_view b) { return a.name < b; });
  return found != tensors_.end() && found->name == name ? &*found : nullptr;
}

}  // namespace samebits
