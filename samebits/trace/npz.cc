#include "samebits/trace/npz.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <zip.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>
#include <set>

#include "samebits/base/error.h"
#include "samebits/base/json.h"
#include "samebits/tensor/convert.h"

namespace samebits {
namespace {

constexpr uint64_t kMaxHeader = 1 << 16;
constexpr uint64_t kMaxArray = uint64_t{1} << 38;
constexpr size_t kMaxEntries = 1 << 20;
// Deflate makes at most 1032 bytes of one.
constexpr uint64_t kMaxRatio = 1032;

struct Header {
  std::string dtype;  // "<f4"
  bool fortran = false;
  Shape shape;
  size_t item = 0;  // bytes
  size_t data = 0;  // where the data begins
};

// The dictionary of a header is a Python literal of three keys. Read by hand: nothing else may
// stand there.
class HeaderParser {
 public:
  HeaderParser(std::string_view text, const std::string& place) : text_(text), place_(place) {}

  Header Parse() {
    Header header;
    std::set<std::string> seen;
    Expect('{');
    while (!Try('}')) {
      const std::string key = String();
      Expect(':');
      if (!seen.insert(key).second) Bad(fmt::format("key '{}' twice", key));
      if (key == "descr") {
        header.dtype = String();
      } else if (key == "fortran_order") {
        header.fortran = Bool();
      } else if (key == "shape") {
        header.shape = Tuple();
      } else {
        Bad(fmt::format("unknown key {}", Excerpt(Json(key))));
      }
      if (!Try(',')) {
        Expect('}');
        break;
      }
    }
    if (seen.size() != 3) Bad("expected the keys descr, fortran_order and shape");
    return header;
  }

 private:
  [[noreturn]] void Bad(const std::string& what) const {
    Fail(ErrorCode::kBadInput, "{}: npy header: {}", place_, what);
  }
  void Space() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n')) ++at_;
  }
  bool Try(char c) {
    Space();
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  void Expect(char c) {
    if (!Try(c)) Bad(fmt::format("expected '{}' at character {}", c, at_));
  }
  std::string String() {
    Space();
    const char quote = at_ < text_.size() ? text_[at_] : ' ';
    if (quote != '\'' && quote != '"') Bad(fmt::format("expected a string at character {}", at_));
    const size_t end = text_.find(quote, at_ + 1);
    if (end == std::string_view::npos || end - at_ > 64) Bad("a string without end");
    std::string value(text_.substr(at_ + 1, end - at_ - 1));
    at_ = end + 1;
    return value;
  }
  bool Bool() {
    Space();
    for (const bool value : {true, false}) {
      const std::string_view word = value ? "True" : "False";
      if (text_.substr(at_, word.size()) != word) continue;
      at_ += word.size();
      return value;
    }
    Bad("fortran_order: expected True or False");
  }
  Shape Tuple() {
    Shape shape;
    Expect('(');
    while (!Try(')')) {
      Space();
      int64_t value = 0;
      const size_t begin = at_;
      while (at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9' && at_ - begin < 16) {
        value = value * 10 + (text_[at_++] - '0');
      }
      if (at_ == begin || shape.size() >= 8) Bad("shape: expected up to 8 sizes");
      shape.push_back(value);
      if (!Try(',')) {
        Expect(')');
        break;
      }
    }
    return shape;
  }

  std::string_view text_;
  const std::string& place_;
  size_t at_ = 0;
};

size_t ItemSize(const std::string& dtype, const std::string& place) {
  if (dtype == "bfloat16") return 2;
  const char order = dtype.empty() ? ' ' : dtype[0];
  const char kind = dtype.size() > 1 ? dtype[1] : ' ';
  if (order == '>') {
    Fail(ErrorCode::kUnsupported, "{}: dtype {}: big-endian; write it little-endian", place,
         Excerpt(Json(dtype)));
  }
  int64_t size = 0;
  bool digits = dtype.size() > 2 && dtype.size() < 8;
  for (size_t i = 2; i < dtype.size() && digits; ++i) {
    digits = dtype[i] >= '0' && dtype[i] <= '9';
    size = size * 10 + (dtype[i] - '0');
  }
  const bool known =
      digits && size > 0 &&
      (((kind == 'f' || kind == 'i' || kind == 'u') && size <= 8) || (kind == 'V' && size == 2) ||
       (kind == 'b' && size == 1) || kind == 'U' || kind == 'S');
  if (!known || (order != '<' && order != '|' && order != '=')) {
    Fail(ErrorCode::kUnsupported,
         "{}: dtype {}: expected f2, f4, bfloat16 (V2), or integers and strings of the metadata",
         place, Excerpt(Json(dtype)));
  }
  return static_cast<size_t>(kind == 'U' ? 4 * size : size);
}

Header ReadHeader(std::span<const std::byte> bytes, uint64_t entry_size, const std::string& place) {
  const auto* data = reinterpret_cast<const unsigned char*>(bytes.data());
  if (bytes.size() < 12 || std::memcmp(data, "\x93NUMPY", 6) != 0) {
    Fail(ErrorCode::kBadInput, "{}: no .npy array: its first bytes are not \\x93NUMPY", place);
  }
  const int version = data[6];
  if (version < 1 || version > 3) {
    Fail(ErrorCode::kUnsupported, "{}: npy version {}: expected 1, 2 or 3", place, version);
  }
  const size_t begin = version == 1 ? 10 : 12;
  uint64_t length = data[8] | data[9] << 8;
  if (version > 1) length |= static_cast<uint64_t>(data[10]) << 16 | uint64_t{data[11]} << 24;
  if (length > kMaxHeader || begin + length > bytes.size()) {
    Fail(ErrorCode::kBadInput, "{}: npy header of {} bytes: the array has {}, and {} are allowed",
         place, length, entry_size, kMaxHeader);
  }
  Header header =
      HeaderParser({reinterpret_cast<const char*>(data) + begin, length}, place).Parse();
  header.item = ItemSize(header.dtype, place);
  header.data = begin + length;
  uint64_t size = header.item;
  for (const int64_t n : header.shape) {
    if (n != 0 && size > kMaxArray / static_cast<uint64_t>(n)) {
      Fail(ErrorCode::kBadInput, "{}: shape {}: too large", place, ShapeToString(header.shape));
    }
    size *= static_cast<uint64_t>(n);
  }
  if (header.data + size != entry_size) {
    Fail(ErrorCode::kBadInput,
         "{}: shape {} of {} needs {} bytes, the archive holds {}; file truncated?", place,
         ShapeToString(header.shape), header.dtype, size, entry_size - header.data);
  }
  return header;
}

// [i, j, ...] of a Fortran array is at i + j n0 + ...: as rows.
std::vector<std::byte> FromFortran(const std::vector<std::byte>& data, const Header& header) {
  std::vector<std::byte> rows(data.size());
  const size_t dims = header.shape.size();
  const int64_t elements = NumElements(header.shape);
  std::vector<int64_t> index(dims, 0);
  for (int64_t at = 0; at < elements; ++at) {
    int64_t from = 0, stride = 1;
    for (size_t d = 0; d < dims; ++d) {
      from += index[d] * stride;
      stride *= header.shape[d];
    }
    std::memcpy(&rows[static_cast<size_t>(at) * header.item],
                &data[static_cast<size_t>(from) * header.item], header.item);
    for (size_t d = dims; d-- > 0;) {
      if (++index[d] < header.shape[d]) break;
      index[d] = 0;
    }
  }
  return rows;
}

std::string Utf8(const std::vector<std::byte>& data, const Header& header) {
  std::string text;
  if (header.dtype[1] == 'S') {
    text.assign(reinterpret_cast<const char*>(data.data()), data.size());
    return text.substr(0, text.find('\0'));
  }
  for (size_t i = 0; i + 4 <= data.size(); i += 4) {
    uint32_t c = 0;
    std::memcpy(&c, &data[i], 4);
    if (c == 0) break;
    if (c > 0x10ffff || (c >= 0xd800 && c < 0xe000)) c = 0xfffd;
    if (c < 0x80) {
      text += static_cast<char>(c);
    } else if (c < 0x800) {
      text += static_cast<char>(0xc0 | c >> 6);
      text += static_cast<char>(0x80 | (c & 63));
    } else if (c < 0x10000) {
      text += static_cast<char>(0xe0 | c >> 12);
      text += static_cast<char>(0x80 | (c >> 6 & 63));
      text += static_cast<char>(0x80 | (c & 63));
    } else {
      text += static_cast<char>(0xf0 | c >> 18);
      text += static_cast<char>(0x80 | (c >> 12 & 63));
      text += static_cast<char>(0x80 | (c >> 6 & 63));
      text += static_cast<char>(0x80 | (c & 63));
    }
  }
  return text;
}

// Integers of one or two dimensions as a JSON list.
std::string IntegersAsJson(const std::vector<std::byte>& data, const Header& header,
                           const std::string& place) {
  if (header.shape.size() > 2) {
    Fail(ErrorCode::kBadInput, "{}: integers of shape {}: expected one or two dimensions", place,
         ShapeToString(header.shape));
  }
  const bool is_signed = header.dtype[1] == 'i';
  Json values = Json::array(), rows = Json::array();
  const size_t width =
      header.shape.size() == 2 ? static_cast<size_t>(std::max<int64_t>(1, header.shape[1])) : 0;
  for (size_t at = 0; at < data.size(); at += header.item) {
    uint64_t bits = 0;
    std::memcpy(&bits, &data[at], header.item);
    const int unused = static_cast<int>(64 - 8 * header.item);
    const auto value = static_cast<int64_t>(bits << unused) >> unused;
    if (is_signed && value < 0) {
      values.push_back(value);
    } else {
      values.push_back(bits);
    }
    if (width != 0 && values.size() == width) {
      rows.push_back(values);
      values = Json::array();
    }
  }
  if (header.shape.empty()) return values.empty() ? "null" : values[0].dump();
  return (width != 0 ? rows : values).dump();
}

class Reader {
 public:
  Reader(zip_t* archive, std::string place, uint64_t bytes)
      : archive_(archive), most_(std::min(bytes, kMaxArray) * kMaxRatio) {
    file_.path = std::move(place);
  }

  TensorFile Read() {
    const zip_int64_t entries = zip_get_num_entries(archive_, 0);
    if (entries < 0 || static_cast<size_t>(entries) > kMaxEntries) {
      Fail(ErrorCode::kBadInput, "{}: {} entries; expected up to {}", file_.path, entries,
           kMaxEntries);
    }
    std::set<std::string> names;
    for (zip_int64_t i = 0; i < entries; ++i) ReadEntry(static_cast<zip_uint64_t>(i), names);
    std::sort(file_.tensors.begin(), file_.tensors.end(),
              [](const NamedTensor& a, const NamedTensor& b) { return a.name < b.name; });
    file_.metadata.try_emplace("format", "samebits-trace-1");
    return std::move(file_);
  }

 private:
  void ReadEntry(zip_uint64_t index, std::set<std::string>& names) {
    zip_stat_t stat{};
    constexpr zip_uint64_t kNeeded = ZIP_STAT_NAME | ZIP_STAT_SIZE | ZIP_STAT_COMP_SIZE;
    if (zip_stat_index(archive_, index, 0, &stat) != 0 || (stat.valid & kNeeded) != kNeeded) {
      Fail(ErrorCode::kBadInput, "{}: entry {} of the archive can not be read", file_.path, index);
    }
    std::string name = stat.name;
    if (name.ends_with(".npy")) name.resize(name.size() - 4);
    const std::string place = fmt::format("{}: array {}", file_.path, Excerpt(Json(name)));
    if (!names.insert(name).second) Fail(ErrorCode::kBadInput, "{}: twice in the archive", place);
    if (stat.size > kMaxArray || stat.size / kMaxRatio > stat.comp_size) {
      Fail(ErrorCode::kBadInput, "{}: {} bytes out of {}: more than deflate can hold", place,
           stat.size, stat.comp_size);
    }
    // All entries together, too: some may share their bytes.
    stated_ += stat.size;
    if (stated_ > most_) {
      Fail(ErrorCode::kBadInput, "{}: {} bytes up to here: more than deflate can hold in this file",
           place, stated_);
    }
    zip_file_t* entry = zip_fopen_index(archive_, index, 0);
    if (entry == nullptr) {
      Fail(ErrorCode::kBadInput, "{}: {}", place, zip_strerror(archive_));
    }
    const std::shared_ptr<zip_file_t> closer(entry, zip_fclose);
    // The header first: it says how much memory the rest needs.
    std::vector<std::byte> head(std::min<uint64_t>(stat.size, kMaxHeader + 12));
    ReadExactly(entry, head, 0, place);
    const Header header = ReadHeader(head, stat.size, place);
    std::vector<std::byte> data(stat.size - header.data);
    const size_t had = std::min(head.size() - header.data, data.size());
    std::copy_n(head.begin() + static_cast<std::ptrdiff_t>(header.data), had, data.begin());
    ReadExactly(entry, data, had, place);
    std::byte more{};
    if (zip_fread(entry, &more, 1) != 0) {
      Fail(ErrorCode::kBadInput, "{}: damaged, or longer than the archive says", place);
    }
    if (header.fortran && header.shape.size() > 1) data = FromFortran(data, header);
    Keep(name, header, std::move(data), place);
  }

  static void ReadExactly(zip_file_t* entry, std::vector<std::byte>& to, size_t from,
                          const std::string& place) {
    while (from < to.size()) {
      const zip_int64_t count = zip_fread(entry, to.data() + from, to.size() - from);
      if (count <= 0) {
        Fail(ErrorCode::kBadInput, "{}: damaged: {} of {} bytes can be read", place, from,
             to.size());
      }
      from += static_cast<size_t>(count);
    }
  }

  void Keep(const std::string& name, const Header& header, std::vector<std::byte> data,
            const std::string& place) {
    const char kind = header.dtype == "bfloat16" ? 'V' : header.dtype[1];
    if (kind == 'U' || kind == 'S') {
      if (!header.shape.empty()) {
        Fail(ErrorCode::kBadInput, "{}: strings of shape {}: expected a single one", place,
             ShapeToString(header.shape));
      }
      file_.metadata[name] = Utf8(data, header);
      return;
    }
    if (kind == 'i' || kind == 'u' || kind == 'b') {
      file_.metadata[name] = IntegersAsJson(data, header, place);
      return;
    }
    TensorView view{DType::kBF16, header.shape, nullptr};
    if (kind == 'f' && header.item == 2) view.dtype = DType::kF16;
    if (kind == 'f' && header.item == 4) view.dtype = DType::kF32;
    if (kind == 'f' && header.item != 2 && header.item != 4) {
      view.dtype = DType::kF32;
      data = Narrowed(data, header, place);
    }
    const auto owned = std::make_shared<const std::vector<std::byte>>(std::move(data));
    view.data = owned->data();
    file_.owned.push_back(owned);
    file_.tensors.push_back({name, view});
  }

  // f8 whose values are all numbers of float32.
  static std::vector<std::byte> Narrowed(const std::vector<std::byte>& data, const Header& header,
                                         const std::string& place) {
    if (header.item != 8) {
      Fail(ErrorCode::kUnsupported, "{}: dtype {}: expected f2, f4 or f8", place, header.dtype);
    }
    std::vector<std::byte> narrow(data.size() / 2);
    for (size_t i = 0; i < data.size() / 8; ++i) {
      double wide = 0;
      std::memcpy(&wide, &data[8 * i], 8);
      const auto value = static_cast<float>(RoundToDType(wide, DType::kF32));
      if (static_cast<double>(value) != wide && !std::isnan(wide)) {
        Fail(ErrorCode::kBadInput,
             "{}: float64: element {} is {:.17g}, which is no float32; record what the model held",
             place, i, wide);
      }
      std::memcpy(&narrow[4 * i], &value, 4);
    }
    return narrow;
  }

  zip_t* archive_;
  uint64_t most_, stated_ = 0;  // bytes of all arrays: allowed, stated so far
  TensorFile file_;
};

}  // namespace

bool LooksLikeZip(std::span<const std::byte> first_bytes) {
  return first_bytes.size() >= 4 && (std::memcmp(first_bytes.data(), "PK\x03\x04", 4) == 0 ||
                                     std::memcmp(first_bytes.data(), "PK\x05\x06", 4) == 0);
}

TensorFile OpenNpz(const std::string& path) {
  int code = 0;
  zip_t* archive = zip_open(path.c_str(), ZIP_RDONLY | ZIP_CHECKCONS, &code);
  if (archive == nullptr) {
    zip_error_t error;
    zip_error_init_with_code(&error, code);
    const std::string reason = zip_error_strerror(&error);
    zip_error_fini(&error);
    Fail(ErrorCode::kBadInput, "{}: no zip archive that can be read: {}", path, reason);
  }
  const std::shared_ptr<zip_t> closer(archive, zip_discard);
  struct stat info {};
  if (stat(path.c_str(), &info) != 0) Fail(ErrorCode::kIo, "{}: can not be read", path);
  return Reader(archive, path, static_cast<uint64_t>(info.st_size)).Read();
}

TensorFile ParseNpz(std::span<const std::byte> bytes, const std::string& place) {
  zip_error_t error;
  zip_error_init(&error);
  zip_source_t* source = zip_source_buffer_create(bytes.data(), bytes.size(), 0, &error);
  zip_t* archive = source == nullptr
                       ? nullptr
                       : zip_open_from_source(source, ZIP_RDONLY | ZIP_CHECKCONS, &error);
  if (archive == nullptr) {
    if (source != nullptr) zip_source_free(source);
    const std::string reason = zip_error_strerror(&error);
    zip_error_fini(&error);
    Fail(ErrorCode::kBadInput, "{}: no zip archive that can be read: {}", place, reason);
  }
  zip_error_fini(&error);
  const std::shared_ptr<zip_t> closer(archive, zip_discard);
  return Reader(archive, place, bytes.size()).Read();
}

}  // namespace samebits
