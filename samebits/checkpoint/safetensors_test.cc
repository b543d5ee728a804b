// One test for every rule of the safetensors format.
#include "samebits/checkpoint/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "samebits/base/errors_testing.h"
#include "samebits/checkpoint/safetensors_testing.h"

namespace samebits {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

std::string ParseError(const std::string& bytes, ErrorCode code = ErrorCode::kBadInput) {
  const AlignedBytes aligned(bytes);
  std::string message =
      ErrorOf(code, [&] { SafetensorsFile::Parse(aligned.span(), "x.safetensors"); });
  EXPECT_THAT(message, StartsWith("x.safetensors: "));
  return message;
}

// A file with the one tensor 'a' and 8 bytes of data.
std::string Single(const std::string& dtype, const std::string& shape, const std::string& offsets,
                   size_t data = 8) {
  return SafetensorsFromHeader(
      R"({"a":{"dtype":)" + dtype + R"(,"shape":)" + shape + R"(,"data_offsets":)" + offsets + "}}",
      std::string(data, '\0'));
}

std::string WithLength(uint64_t length, const std::string& rest) {
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &length, 8);
  return bytes + rest;
}

TEST(Safetensors, ReadsWhatIsInOrder) {
  const std::vector<float> floats = {1, 2, 3, 4, 5, 6};
  const std::vector<uint16_t> halves = {7, 8};
  const AlignedBytes bytes(
      SafetensorsBytes({{"z", DType::kF32, {2, 3}, ValueBytes(floats)},
                        {"empty", DType::kF32, {0, 4}},
                        {"a", DType::kBF16, {2}, ValueBytes(halves)},
                        {"scalar", DType::kF16, {}, std::string("\x01\x02", 2)}},
                       {{"format", "pt"}, {"text", "\xc3\xa4"}}));
  const SafetensorsFile file = SafetensorsFile::Parse(bytes.span(), "x");
  EXPECT_EQ(file.path(), "x");
  EXPECT_EQ(file.metadata().at("format"), "pt");
  EXPECT_EQ(file.metadata().at("text"), "\xc3\xa4");
  ASSERT_EQ(file.tensors().size(), 4U);
  EXPECT_EQ(file.tensors()[0].name, "a");  // sorted by name
  const TensorEntry* z = file.Find("z");
  ASSERT_NE(z, nullptr);
  EXPECT_EQ(z->view.shape, (Shape{2, 3}));
  EXPECT_EQ(std::vector<float>(z->view.as<float>(), z->view.as<float>() + 6), floats);
  EXPECT_EQ(file.Find("a")->view.as<uint16_t>()[1], 8);
  EXPECT_EQ(file.Find("scalar")->view.elements(), 1);
  EXPECT_EQ(file.Find("empty")->view.elements(), 0);
  for (const char* name : {"", "b", "zz", "Z"}) EXPECT_EQ(file.Find(name), nullptr);
}

TEST(Safetensors, NoTensorAndTrailingSpaces) {
  const AlignedBytes bytes(SafetensorsFromHeader("{}          ", ""));
  EXPECT_TRUE(SafetensorsFile::Parse(bytes.span(), "x").tensors().empty());
}

TEST(SafetensorsRule, AtLeastEightBytes) {
  for (size_t size : {0, 1, 7}) {
    EXPECT_THAT(ParseError(std::string(size, '{')), HasSubstr("at least 8"));
  }
}

TEST(SafetensorsRule, HeaderWithinTheFile) {
  EXPECT_THAT(ParseError(WithLength(3, "{}")), HasSubstr("header of 3 bytes: the file has 2"));
  EXPECT_THAT(ParseError(WithLength(~uint64_t{0}, "{}")), HasSubstr("18446744073709551615"));
  EXPECT_THAT(ParseError(WithLength(uint64_t{1} << 63, "{}")), HasSubstr("truncated"));
  EXPECT_THAT(ParseError(WithLength(~uint64_t{0} - 7, "{}")), HasSubstr("truncated"));
}

TEST(SafetensorsRule, HeaderBelow100MB) {
  std::string header = "{}";
  header.resize(100'000'000, ' ');
  const AlignedBytes allowed(WithLength(100'000'000, header));
  EXPECT_NO_THROW(SafetensorsFile::Parse(allowed.span(), "x"));
  EXPECT_THAT(ParseError(WithLength(100'000'001, header + " ")),
              HasSubstr("100000000 are allowed"));
}

TEST(SafetensorsRule, HeaderBeginsWithABrace) {
  EXPECT_THAT(ParseError(WithLength(0, "")), HasSubstr("does not begin with '{'"));
  for (const char* header : {" {}", "[]", "\n{}", "\xef\xbb\xbf{}", "null"}) {
    EXPECT_THAT(ParseError(SafetensorsFromHeader(header, "")), HasSubstr("does not begin"));
  }
}

TEST(SafetensorsRule, HeaderIsJson) {
  for (const char* header : {"{", "{a}", "{}x", "{\"a\":}", "{\"\xff\":{}}"}) {
    EXPECT_THAT(ParseError(SafetensorsFromHeader(header, "")), HasSubstr("not valid JSON"));
  }
  EXPECT_THAT(ParseError(SafetensorsFromHeader(std::string("{}\0\0\0\0\0\0", 8), "")),
              HasSubstr("not valid JSON"));
  EXPECT_THAT(ParseError(SafetensorsFromHeader("{\"a\":" + std::string(100'000, '['), "")),
              HasSubstr("nested"));
}

TEST(SafetensorsRule, NoDuplicateKeys) {
  const std::string one = R"("a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]})";
  EXPECT_THAT(ParseError(SafetensorsFromHeader("{" + one + "," + one + "}", std::string(8, 0))),
              AllOf(HasSubstr("\"a\""), HasSubstr("twice")));
  EXPECT_THAT(ParseError(SafetensorsFromHeader(
                  R"({"a":{"dtype":"U8","shape":[8],"shape":[8],"data_offsets":[0,8]}})",
                  std::string(8, 0))),
              AllOf(HasSubstr("\"shape\""), HasSubstr("twice")));
  EXPECT_THAT(ParseError(SafetensorsFromHeader(R"({"__metadata__":{"k":"1","k":"1"}})", "")),
              HasSubstr("twice"));
  EXPECT_THAT(ParseError(SafetensorsFromHeader(R"({"__metadata__":{},"__metadata__":{}})", "")),
              HasSubstr("twice"));
}

TEST(SafetensorsRule, MetadataIsTextToText) {
  EXPECT_THAT(ParseError(SafetensorsFromHeader(R"({"__metadata__":["x"]})", "")),
              HasSubstr("__metadata__: expected an object, found [\"x\"]"));
  for (const char* value : {"1", "null", "true", "{}", "[\"x\"]"}) {
    EXPECT_THAT(ParseError(SafetensorsFromHeader(
                    fmt::format(R"({{"__metadata__":{{"k":{}}}}})", value), "")),
                HasSubstr("__metadata__ \"k\": expected a string"));
  }
}

TEST(SafetensorsRule, ExactlyThreeKeys) {
  for (const char* entry : {"1", "[]", "null", "{}", R"({"dtype":"U8","shape":[8]})",
                            R"({"dtype":"U8","shape":[8],"data_offsets":[0,8],"x":1})",
                            R"({"dtype":"U8","shape":[8],"offsets":[0,8]})"}) {
    const std::string message =
        ParseError(SafetensorsFromHeader(fmt::format("{{\"a\":{}}}", entry), std::string(8, 0)));
    EXPECT_THAT(message, HasSubstr("tensor \"a\""));
    EXPECT_THAT(message, testing::AnyOf(HasSubstr("expected exactly dtype, shape and data_offsets"),
                                        HasSubstr("'data_offsets' is missing")));
  }
}

TEST(SafetensorsRule, KnownDType) {
  for (const char* dtype : {"\"F33\"", "\"f32\"", "\"\"", "\"F4\""}) {
    EXPECT_THAT(ParseError(Single(dtype, "[2]", "[0,8]")), HasSubstr("unknown dtype"));
  }
  for (const char* dtype : {"7", "null", "[\"F32\"]"}) {
    EXPECT_THAT(ParseError(Single(dtype, "[2]", "[0,8]")),
                HasSubstr("'dtype': expected a string, found"));
  }
}

TEST(SafetensorsRule, ShapeOfNonNegativeIntegers) {
  for (const char* size : {"-1", "2.0", "\"2\"", "null", "true", "[2]", "9223372036854775808",
                           "18446744073709551615", "18446744073709551616", "1e1"}) {
    EXPECT_THAT(ParseError(Single("\"F32\"", fmt::format("[{}]", size), "[0,8]")),
                HasSubstr("shape: expected integers of at least 0, found"))
        << size;
  }
  for (const char* shape : {"2", "{}", "\"[2]\"", "null"}) {
    EXPECT_THAT(ParseError(Single("\"F32\"", shape, "[0,8]")),
                HasSubstr("shape: expected a list, found"))
        << shape;
  }
}

TEST(SafetensorsRule, NoOverflowOfTheShape) {
  for (const char* shape :
       {"[4294967296,4294967296]", "[9223372036854775807]", "[4611686018427387906]",
        "[4611686018427387904,4611686018427387904,0]", "[3037000500,3037000500]"}) {
    EXPECT_THAT(ParseError(Single("\"F32\"", shape, "[0,8]")), HasSubstr("more bytes than 2^63"))
        << shape;
  }
  // 2^62 + 2 values of 4 bytes would be 8 bytes in 64 bits: the offsets fit what is left.
  EXPECT_THAT(ParseError(Single("\"F32\"", "[4611686018427387906]", "[0,8]")),
              HasSubstr("more bytes"));
}

TEST(SafetensorsRule, OffsetsAreTwoIntegers) {
  for (const char* offsets :
       {"8", "[]", "[0]", "[0,4,8]", "[\"0\",8]", "[0,8.0]", "[-8,0]", "[0,null]", "{}"}) {
    EXPECT_THAT(ParseError(Single("\"F32\"", "[2]", offsets)),
                HasSubstr("data_offsets: expected [begin, end], found"))
        << offsets;
  }
}

TEST(SafetensorsRule, OffsetsWithinTheData) {
  for (const char* offsets : {"[8,0]", "[0,9]", "[1,9]", "[9,17]", "[0,18446744073709551615]",
                              "[18446744073709551608,18446744073709551615]"}) {
    EXPECT_THAT(ParseError(Single("\"F32\"", "[2]", offsets)),
                AllOf(HasSubstr("expected begin <= end <= 8"), HasSubstr("truncated?")))
        << offsets;
  }
}

TEST(SafetensorsRule, OffsetsAgreeWithTheShape) {
  EXPECT_THAT(ParseError(Single("\"F32\"", "[3]", "[0,8]")),
              HasSubstr("shape [3] F32 needs 12 bytes, data_offsets give 8"));
  EXPECT_THAT(ParseError(Single("\"F32\"", "[0]", "[0,8]")), HasSubstr("needs 0 bytes"));
  EXPECT_THAT(ParseError(Single("\"F16\"", "[]", "[0,8]")), HasSubstr("needs 2 bytes"));
}

TEST(SafetensorsRule, NoOverlap) {
  EXPECT_THAT(
      ParseError(SafetensorsFromHeader(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},
                                           "b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})",
                                       std::string(12, 0))),
      AllOf(HasSubstr("tensor \"b\": begins at byte 4, expected 8"), HasSubstr("overlaps")));
  EXPECT_THAT(
      ParseError(SafetensorsFromHeader(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},
                                           "b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})",
                                       std::string(8, 0))),
      HasSubstr("overlaps"));
}

TEST(SafetensorsRule, NoHole) {
  EXPECT_THAT(
      ParseError(SafetensorsFromHeader(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},
                                           "b":{"dtype":"F32","shape":[1],"data_offsets":[8,12]}})",
                                       std::string(12, 0))),
      AllOf(HasSubstr("tensor \"b\": begins at byte 8, expected 4"), HasSubstr("hole")));
  EXPECT_THAT(ParseError(Single("\"F32\"", "[1]", "[4,8]")), HasSubstr("hole"));
  EXPECT_THAT(ParseError(Single("\"F32\"", "[0]", "[4,4]")), HasSubstr("hole"));
}

TEST(SafetensorsRule, DataEndsWithTheFile) {
  EXPECT_THAT(ParseError(Single("\"F32\"", "[2]", "[0,8]", 9)),
              HasSubstr("the tensors end at byte 8, the data at 9"));
  EXPECT_THAT(ParseError(SafetensorsFromHeader("{}", "x")), HasSubstr("the data at 1"));
}

TEST(SafetensorsRule, ValuesAreAligned) {
  const std::string header = R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}} )";
  ASSERT_NE(header.size() % 4, 0U);
  EXPECT_THAT(
      ParseError(SafetensorsFromHeader(header, "1234", false), ErrorCode::kUnsupported),
      AllOf(HasSubstr("tensor \"a\": F32 values begin at byte"), HasSubstr("multiple of 4")));
  // Bytes may lie anywhere.
  const AlignedBytes bytes(SafetensorsFromHeader(
      R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})", "1234", false));
  EXPECT_NO_THROW(SafetensorsFile::Parse(bytes.span(), "x"));
}

TEST(Safetensors, EveryTruncationIsAnError) {
  const std::string bytes =
      SafetensorsBytes({{"a", DType::kF32, {3}}, {"b", DType::kBF16, {2, 2}}}, {{"format", "pt"}});
  for (size_t size = 0; size < bytes.size(); ++size) ParseError(bytes.substr(0, size));
}

TEST(Safetensors, NamesReachMessagesWithoutControlCharacters) {
  EXPECT_THAT(ParseError(SafetensorsFromHeader("{\"\\u001b[2J\\n\":{}}", "")),
              AllOf(Not(HasSubstr("\x1b")), Not(HasSubstr("\n"))));
  const std::string name(1'000'000, 'n');
  EXPECT_LT(ParseError(SafetensorsFromHeader("{\"" + name + "\":{}}", "")).size(), 500U);
}

TEST(Safetensors, OpenMapsAFile) {
  const TempFolder folder;
  const std::string path = folder.Write(
      "m.safetensors", SafetensorsBytes({{"a", DType::kF32, {1}, ValueBytes<float>({2.5F})}}));
  SafetensorsFile copy;
  {
    const SafetensorsFile file = SafetensorsFile::Open(path);
    copy = file;
  }
  EXPECT_EQ(copy.Find("a")->view.as<float>()[0], 2.5F);  // the mapping lives as long as a copy
  EXPECT_EQ(copy.path(), path);
}

TEST(Safetensors, OpenOfWhatIsNoFile) {
  const TempFolder folder;
  const auto error = [&](const char* name) {
    return ErrorOf(ErrorCode::kIo, [&] { SafetensorsFile::Open(folder / name); });
  };
  EXPECT_THAT(error("absent"), HasSubstr("No such file"));
  EXPECT_THAT(error(""), HasSubstr("not a regular file"));
  ASSERT_EQ(mkfifo((folder / "pipe").c_str(), 0600), 0);
  EXPECT_THAT(error("pipe"), HasSubstr("not a regular file"));
  EXPECT_THAT(
      ErrorOf(ErrorCode::kBadInput, [&] { SafetensorsFile::Open(folder.Write("empty", "")); }),
      HasSubstr("at least 8"));
}

// The corpus of the fuzz target says by its names what must be refused.
TEST(Safetensors, CorpusIsJudgedAsItsNamesSay) {
  int files = 0;
  for (const auto& entry :
       std::filesystem::directory_iterator(SAMEBITS_SOURCE_DIR "/tests/corpus/safetensors")) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with("ok_") && !name.starts_with("bad_")) continue;
    const AlignedBytes bytes(ReadBytes(entry.path()));
    ++files;
    if (name.starts_with("ok_")) {
      EXPECT_NO_THROW(SafetensorsFile::Parse(bytes.span(), name)) << name;
    } else {
      EXPECT_THROW(SafetensorsFile::Parse(bytes.span(), name), Error) << name;
    }
  }
  EXPECT_GE(files, 40);
}

}  // namespace
}  // namespace samebits
