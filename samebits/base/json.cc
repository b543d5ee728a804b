#include "samebits/base/json.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <limits>
#include <memory>
#include <set>
#include <type_traits>
#include <vector>

#include "samebits/base/error.h"

namespace samebits {
namespace {

constexpr size_t kMaxDepth = 64;

// Builds the value through nlohmann's own builder and watches what that one lets pass.
template <typename AnyJson>
class StrictBuilder : public nlohmann::json_sax<AnyJson> {
 public:
  using typename nlohmann::json_sax<AnyJson>::binary_t;

  StrictBuilder(AnyJson& result, const std::string& place) : builder_(result), place_(place) {}

  bool null() override { return builder_.null(); }
  bool boolean(bool v) override { return builder_.boolean(v); }
  bool number_integer(int64_t v) override { return builder_.number_integer(v); }
  bool number_unsigned(uint64_t v) override { return builder_.number_unsigned(v); }
  bool number_float(double v, const std::string& text) override {
    if (std::is_same_v<AnyJson, OrderedJson> && text.find_first_of(".eE") == std::string::npos) {
      Fail(ErrorCode::kUnsupported, "{}: the integer {} is beyond 64 bits", place_,
           text.substr(0, 60));
    }
    return builder_.number_float(v, text);
  }
  bool string(std::string& v) override { return builder_.string(v); }
  bool binary(binary_t& v) override { return builder_.binary(v); }
  bool start_object(size_t size) override {
    Enter();
    return builder_.start_object(size);
  }
  bool end_object() override {
    keys_.pop_back();
    return builder_.end_object();
  }
  bool start_array(size_t size) override {
    Enter();
    return builder_.start_array(size);
  }
  bool end_array() override {
    keys_.pop_back();
    return builder_.end_array();
  }
  bool key(std::string& name) override {
    if (!keys_.back().insert(name).second) {
      Fail(ErrorCode::kBadInput, "{}: the key {} stands twice in one object", place_,
           Excerpt(Json(name)));
    }
    return builder_.key(name);
  }
  bool parse_error(size_t position, const std::string&,
                   const nlohmann::detail::exception& error) override {
    Fail(ErrorCode::kBadInput, "{}: not valid JSON at byte {}: {}", place_, position,
         std::string(error.what()).substr(0, 300));
  }

 private:
  void Enter() {
    keys_.emplace_back();
    if (keys_.size() > kMaxDepth) {
      Fail(ErrorCode::kBadInput, "{}: JSON nested deeper than {} levels", place_, kMaxDepth);
    }
  }

  nlohmann::detail::json_sax_dom_parser<AnyJson> builder_;
  const std::string& place_;
  std::vector<std::set<std::string>> keys_;
};

template <typename AnyJson>
AnyJson ParseStrictly(std::string_view text, const std::string& place) {
  // nlohmann takes a NUL for the end of the text, and whatever follows would pass unseen.
  if (const size_t nul = text.find('\0'); nul != std::string_view::npos) {
    Fail(ErrorCode::kBadInput, "{}: not valid JSON at byte {}: a NUL", place, nul + 1);
  }
  AnyJson result;
  StrictBuilder<AnyJson> builder(result, place);
  // false: the builder throws before sax_parse can return an error.
  if (!AnyJson::sax_parse(text.begin(), text.end(), &builder)) {
    Fail(ErrorCode::kBadInput, "{}: not valid JSON", place);
  }
  return result;
}

// The value of \uXXXX at `at`; -1 when none stands there.
int EscapeAt(std::string_view text, size_t at) {
  if (at + 6 > text.size() || text[at] != '\\' || text[at + 1] != 'u') return -1;
  int value = 0;
  for (size_t i = at + 2; i < at + 6; ++i) {
    const char c = text[i];
    const int digit = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                             : -1;
    if (digit < 0) return -1;
    value = value * 16 + digit;
  }
  return value;
}

// Escapes of half a surrogate pair become \ufffd. Backslashes stand in strings alone.
std::string ReplaceLoneSurrogates(std::string_view text) {
  const auto is_high = [](int c) { return c >= 0xD800 && c < 0xDC00; };
  const auto is_low = [](int c) { return c >= 0xDC00 && c < 0xE000; };
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    size_t length = text[i] == '\\' ? 2 : 1;
    if (const int c = EscapeAt(text, i); c >= 0) {
      length = 6;
      if (is_high(c) && is_low(EscapeAt(text, i + 6))) {
        length = 12;
      } else if (is_high(c) || is_low(c)) {
        out += "\\ufffd";
        i += 6;
        continue;
      }
    }
    out += text.substr(i, length);
    i += length;
  }
  return out;
}

[[noreturn]] void Wrong(const std::string& place, std::string_view key, const std::string& expected,
                        const Json& object) {
  const auto found = object.find(key);
  Fail(ErrorCode::kBadInput, "{}: '{}': expected {}, found {}", place, key, expected,
       found == object.end() ? "nothing" : Excerpt(*found));
}

}  // namespace

Json ParseJson(std::string_view text, const std::string& place) {
  return ParseStrictly<Json>(text, place);
}

OrderedJson ParseOrderedJson(std::string_view text, const std::string& place,
                             bool lone_surrogates) {
  if (!lone_surrogates) return ParseStrictly<OrderedJson>(text, place);
  return ParseStrictly<OrderedJson>(ReplaceLoneSurrogates(text), place);
}

std::string ReadTextFile(const std::string& path, int64_t max_bytes) {
  std::error_code ignored;
  const auto status = std::filesystem::status(path, ignored);
  if (std::filesystem::exists(status) && !std::filesystem::is_regular_file(status)) {
    Fail(ErrorCode::kIo, "{}: not a regular file", path);  // opening a pipe could wait for ever
  }
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "rb"),
                                                             &std::fclose);
  if (file == nullptr) {
    Fail(ErrorCode::kIo, "{}: can not be opened: {}", path, std::strerror(errno));
  }
  std::string text;
  std::vector<char> buffer(1 << 16);
  for (;;) {
    const size_t got = std::fread(buffer.data(), 1, buffer.size(), file.get());
    text.append(buffer.data(), got);
    if (static_cast<int64_t>(text.size()) > max_bytes) {
      Fail(ErrorCode::kBadInput, "{}: larger than the {} bytes that such a file may have", path,
           max_bytes);
    }
    if (got < buffer.size()) break;
  }
  if (std::ferror(file.get()) != 0) {
    Fail(ErrorCode::kIo, "{}: can not be read: {}", path, std::strerror(errno));
  }
  return text;
}

int64_t IntegerField(const Json& object, std::string_view key, int64_t low, int64_t high,
                     const std::string& place) {
  const auto found = object.find(key);
  // A number beyond int64 would read as a negative one.
  const bool fits =
      found != object.end() && found->is_number_integer() &&
      (!found->is_number_unsigned() ||
       found->get<uint64_t>() <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max()));
  if (fits) {
    const auto value = found->get<int64_t>();
    if (value >= low && value <= high) return value;
  }
  Wrong(place, key, fmt::format("an integer from {} to {}", low, high), object);
}

double NumberField(const Json& object, std::string_view key, double low, double high,
                   const std::string& place) {
  const auto found = object.find(key);
  if (found != object.end() && found->is_number()) {
    const auto value = found->get<double>();
    if (value >= low && value <= high) return value;
  }
  Wrong(place, key, fmt::format("a number from {} to {}", low, high), object);
}

bool BoolField(const Json& object, std::string_view key, const std::string& place) {
  const auto found = object.find(key);
  if (found != object.end() && found->is_boolean()) return found->get<bool>();
  Wrong(place, key, "true or false", object);
}

std::string StringField(const Json& object, std::string_view key, const std::string& place) {
  const auto found = object.find(key);
  if (found != object.end() && found->is_string()) return found->get<std::string>();
  Wrong(place, key, "a string", object);
}

std::string Excerpt(const Json& value) {
  std::string text = value.dump(-1, ' ', true, Json::error_handler_t::replace);
  if (text.size() > 80) text = text.substr(0, 77) + "...";
  return text;
}

bool HasField(const Json& object, std::string_view key) {
  const auto found = object.find(key);
  return found != object.end() && !found->is_null();
}

}  // namespace samebits
