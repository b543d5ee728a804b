#include "samebits/base/json.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <limits>
#include <memory>
#include <set>
#include <vector>

#include "samebits/base/error.h"

namespace samebits {
namespace {

constexpr size_t kMaxDepth = 64;

// Builds the value through nlohmann's own builder and watches what that one lets pass.
class StrictBuilder : public nlohmann::json_sax<Json> {
 public:
  StrictBuilder(Json& result, const std::string& place) : builder_(result), place_(place) {}

  bool null() override { return builder_.null(); }
  bool boolean(bool v) override { return builder_.boolean(v); }
  bool number_integer(int64_t v) override { return builder_.number_integer(v); }
  bool number_unsigned(uint64_t v) override { return builder_.number_unsigned(v); }
  bool number_float(double v, const std::string& text) override {
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

  nlohmann::detail::json_sax_dom_parser<Json> builder_;
  const std::string& place_;
  std::vector<std::set<std::string>> keys_;
};

[[noreturn]] void Wrong(const std::string& place, std::string_view key, const std::string& expected,
                        const Json& object) {
  const auto found = object.find(key);
  Fail(ErrorCode::kBadInput, "{}: '{}': expected {}, found {}", place, key, expected,
       found == object.end() ? "nothing" : Excerpt(*found));
}

}  // namespace

Json ParseJson(std::string_view text, const std::string& place) {
  // nlohmann takes a NUL for the end of the text, and whatever follows would pass unseen.
  if (const size_t nul = text.find('\0'); nul != std::string_view::npos) {
    Fail(ErrorCode::kBadInput, "{}: not valid JSON at byte {}: a NUL", place, nul + 1);
  }
  Json result;
  StrictBuilder builder(result, place);
  // false: the builder throws before sax_parse can return an error.
  if (!Json::sax_parse(text.begin(), text.end(), &builder)) {
    Fail(ErrorCode::kBadInput, "{}: not valid JSON", place);
  }
  return result;
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
