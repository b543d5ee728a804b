// JSON from outside: what is refused, what a message says, and that ranges hold at their ends.
#include "samebits/base/json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <limits>

#include "samebits/base/errors_testing.h"

namespace samebits {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

constexpr int64_t kMin = std::numeric_limits<int64_t>::min();
constexpr int64_t kMax = std::numeric_limits<int64_t>::max();

std::string ParseError(const std::string& text) {
  return ErrorOf(ErrorCode::kBadInput, [&] { ParseJson(text, "the place"); });
}

TEST(ParseJson, ReadsWhatIsValid) {
  const Json json =
      ParseJson(R"( {"a": [1, -2, 3.5, true, null, "\u00e4"], "b": {"a": {}}} )", "x");
  EXPECT_EQ(json["a"].size(), 6U);
  EXPECT_EQ(json["a"][5], "\xc3\xa4");
  EXPECT_TRUE(json["b"]["a"].empty());
}

TEST(ParseJson, DuplicateKeysAtAnyDepth) {
  EXPECT_THAT(ParseError(R"({"a": 1, "b": 2, "a": 3})"),
              AllOf(StartsWith("the place: "), HasSubstr("\"a\""), HasSubstr("twice")));
  EXPECT_THAT(ParseError(R"([{"x": {"k": 1, "k": 1}}])"), HasSubstr("\"k\""));
  EXPECT_THAT(ParseError(R"({"a": 1, "\u0061": 2})"),
              HasSubstr("twice"));  // one name, two spellings
  EXPECT_NO_THROW(ParseJson(R"({"a": {"a": 1}, "b": [{"a": 1}, {"a": 1}]})", "x"));
}

TEST(ParseJson, DepthIsLimited) {
  const auto nested = [](int depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  EXPECT_NO_THROW(ParseJson(nested(64), "x"));
  EXPECT_THAT(ParseError(nested(65)), HasSubstr("nested deeper than 64"));
  EXPECT_THAT(ParseError(std::string(1'000'000, '[')), HasSubstr("nested"));
  std::string objects;
  for (int i = 0; i < 100'000; ++i) objects += "{\"a\":";
  EXPECT_THAT(ParseError(objects), HasSubstr("nested"));
}

TEST(ParseJson, RefusesWhatIsNotJson) {
  for (const char* text : {"",
                           " ",
                           "{",
                           "[1,]",
                           "{} x",
                           "{}{}",
                           "nul",
                           "NaN",
                           "[Infinity]",
                           "[-Infinity]",
                           "[1e999]",
                           "[01]",
                           "[1.]",
                           "[.5]",
                           "[+1]",
                           "['a']",
                           "{a: 1}",
                           "[1] // no",
                           "[\"\t\"]",
                           "[\"\\x\"]",
                           "[\"\\ud800\"]",
                           "[\"\xff\"]",
                           "[\"\xc0\xaf\"]",
                           "[\"\xed\xa0\x80\"]",
                           "\"a"}) {
    EXPECT_THAT(ParseError(text), StartsWith("the place: not valid JSON at byte ")) << text;
  }
  EXPECT_THAT(ParseError(std::string("[1]\0", 4)), HasSubstr("not valid JSON"));
}

TEST(ParseJson, MessagesHoldNoControlCharactersAndStayShort) {
  const std::string duplicate = ParseError(R"({"\u001b[2J\u0007": 1, "\u001b[2J\u0007": 2})");
  EXPECT_THAT(duplicate, AllOf(Not(HasSubstr("\x1b")), Not(HasSubstr("\x07"))));
  const std::string name(1'000'000, 'n');
  EXPECT_LT(ParseError("{\"" + name + "\": 1, \"" + name + "\": 2}").size(), 500U);
  EXPECT_LT(ParseError("[\"" + name).size(), 500U);
  EXPECT_THAT(ParseError("[\x1b[2J]"), Not(HasSubstr("\x1b")));
}

TEST(Fields, IntegersWithinTheirRange) {
  const Json json = ParseJson(
      R"({"low": 1, "high": 9, "zero": 0, "ten": 10, "negative": -1, "real": 5.0, "text": "5",
          "yes": true, "null": null, "list": [5], "min": -9223372036854775808,
          "max": 9223372036854775807, "2^63": 9223372036854775808, "2^64-1": 18446744073709551615,
          "2^64": 18446744073709551616})",
      "x");
  EXPECT_EQ(IntegerField(json, "low", 1, 9, "x"), 1);
  EXPECT_EQ(IntegerField(json, "high", 1, 9, "x"), 9);
  EXPECT_EQ(IntegerField(json, "min", kMin, kMax, "x"), kMin);
  EXPECT_EQ(IntegerField(json, "max", kMin, kMax, "x"), kMax);
  for (const char* key : {"zero", "ten", "negative", "real", "text", "yes", "null", "list", "min",
                          "max", "2^63", "2^64-1", "2^64", "absent"}) {
    EXPECT_THAT(ErrorOf(ErrorCode::kBadInput, [&] { IntegerField(json, key, 1, 9, "place"); }),
                AllOf(StartsWith("place: '"), HasSubstr(key), HasSubstr("an integer from 1 to 9")));
  }
  // What would be -1 or the smallest number if it were cut to 64 bits.
  for (const char* key : {"2^63", "2^64-1", "2^64"}) {
    EXPECT_THAT(ErrorOf(ErrorCode::kBadInput, [&] { IntegerField(json, key, kMin, kMax, "x"); }),
                AllOf(HasSubstr("found "), Not(HasSubstr("found -"))));
  }
  EXPECT_THAT(ErrorOf(ErrorCode::kBadInput, [&] { IntegerField(json, "absent", 0, 9, "x"); }),
              HasSubstr("found nothing"));
  EXPECT_THAT(ErrorOf(ErrorCode::kBadInput, [] { IntegerField(Json(3), "key", 0, 9, "x"); }),
              HasSubstr("found nothing"));
}

TEST(Fields, NumbersBoolsAndStrings) {
  const Json json = ParseJson(
      R"({"half": 0.5, "one": 1, "big": 1e300, "text": "a", "yes": true, "no": false, "null": null})",
      "x");
  EXPECT_EQ(NumberField(json, "half", 0.5, 1.0, "x"), 0.5);
  EXPECT_EQ(NumberField(json, "one", 0.5, 1.0, "x"), 1.0);
  EXPECT_TRUE(BoolField(json, "yes", "x"));
  EXPECT_FALSE(BoolField(json, "no", "x"));
  EXPECT_EQ(StringField(json, "text", "x"), "a");
  const auto number = [&](const char* key) {
    return ErrorOf(ErrorCode::kBadInput, [&] { NumberField(json, key, 0.6, 2.0, "place"); });
  };
  for (const char* key : {"half", "big", "text", "yes", "null", "absent"}) {
    EXPECT_THAT(number(key), AllOf(StartsWith("place: '"), HasSubstr("a number from 0.6 to 2")));
  }
  for (const char* key : {"one", "text", "null", "absent"}) {
    EXPECT_THAT(ErrorOf(ErrorCode::kBadInput, [&] { BoolField(json, key, "place"); }),
                HasSubstr("expected true or false"));
  }
  for (const char* key : {"one", "yes", "null", "absent"}) {
    EXPECT_THAT(ErrorOf(ErrorCode::kBadInput, [&] { StringField(json, key, "place"); }),
                HasSubstr("expected a string"));
  }
  EXPECT_TRUE(HasField(json, "no"));
  EXPECT_FALSE(HasField(json, "null"));
  EXPECT_FALSE(HasField(json, "absent"));
  EXPECT_FALSE(HasField(Json::array({1}), "absent"));
}

TEST(Excerpt, IsShortAsciiWithoutControlCharacters) {
  EXPECT_EQ(Excerpt(Json{{"a", 1}}), R"({"a":1})");
  EXPECT_EQ(Excerpt(Json(std::string(1000, 'x'))).size(), 80U);
  EXPECT_EQ(Excerpt(Json("\x1b\n\xc3\xa4")), R"("\u001b\n\u00e4")");
  EXPECT_NO_THROW(Excerpt(Json("\xff")));
}

TEST(ReadTextFile, WholeFilesUpToTheLimit) {
  const TempFolder folder;
  const std::string text = std::string("a\0b\r\n", 5) + std::string(200'000, 'x');
  const std::string path = folder.Write("text", text);
  EXPECT_EQ(ReadTextFile(path, static_cast<int64_t>(text.size())), text);
  EXPECT_EQ(ReadTextFile(folder.Write("empty", ""), 0), "");
  EXPECT_THAT(ErrorOf(ErrorCode::kBadInput,
                      [&] { ReadTextFile(path, static_cast<int64_t>(text.size()) - 1); }),
              AllOf(StartsWith(path), HasSubstr("larger than the 200004 bytes")));
}

TEST(ReadTextFile, WhatIsNoFile) {
  const TempFolder folder;
  EXPECT_THAT(ErrorOf(ErrorCode::kIo, [&] { ReadTextFile(folder / "absent", 9); }),
              AllOf(StartsWith(folder / "absent"), HasSubstr("No such file")));
  EXPECT_THAT(ErrorOf(ErrorCode::kIo, [&] { ReadTextFile(folder.path(), 9); }),
              HasSubstr("not a regular file"));
  EXPECT_THAT(ErrorOf(ErrorCode::kIo, [] { ReadTextFile("/dev/zero", 9); }),
              HasSubstr("not a regular file"));
  ASSERT_EQ(mkfifo((folder / "pipe").c_str(), 0600), 0);  // nobody writes: opening it would wait
  EXPECT_THAT(ErrorOf(ErrorCode::kIo, [&] { ReadTextFile(folder / "pipe", 9); }),
              HasSubstr("not a regular file"));
}

}  // namespace
}  // namespace samebits
