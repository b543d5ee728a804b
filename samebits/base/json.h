// Parsing JSON that somebody else wrote, and reading fields with errors that name the place.
// Duplicate keys, deep nesting and trailing text are errors. Left out: writing (nlohmann::json
// does).
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace samebits {

using Json = nlohmann::json;
using OrderedJson = nlohmann::ordered_json;  // keeps the order of keys

// `place` starts every message. Throws Error(kBadInput).
Json ParseJson(std::string_view text, const std::string& place);

// The same with the keys in order. Integers beyond 64 bits are errors, where ParseJson makes floats
// of them. `lone_surrogates`: escapes of half a pair (\ud83d alone) are read as U+FFFD, otherwise
// they are errors.
OrderedJson ParseOrderedJson(std::string_view text, const std::string& place,
                             bool lone_surrogates = false);

// The whole file; throws Error(kIo) when it can't be read, kBadInput above `max_bytes`.
std::string ReadTextFile(const std::string& path, int64_t max_bytes);

// A field that must be there with the type and range given. Throws Error(kBadInput):
//   config.json: 'hidden_size': expected an integer from 1 to 1048576, found "large"
int64_t IntegerField(const Json& object, std::string_view key, int64_t low, int64_t high,
                     const std::string& place);
double NumberField(const Json& object, std::string_view key, double low, double high,
                   const std::string& place);
bool BoolField(const Json& object, std::string_view key, const std::string& place);
std::string StringField(const Json& object, std::string_view key, const std::string& place);

// A JSON value as text for a message, cut to a readable length.
std::string Excerpt(const Json& value);

// Present and not null.
bool HasField(const Json& object, std::string_view key);

}  // namespace samebits
