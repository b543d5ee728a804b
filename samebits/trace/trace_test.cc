// The trace format: what is written is read back, every rule of the metadata, and that a writer
// leaves either a whole file or nothing.
#include "samebits/trace/trace.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <bit>
#include <csignal>

#include "samebits/base/errors_testing.h"
#include "samebits/checkpoint/safetensors_testing.h"

namespace samebits {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;

using Metadata = std::map<std::string, std::string>;

const Metadata kMust = {
    {"format", "samebits-trace-1"}, {"input_ids", "[5, 0, 7]"}, {"dtype", "bfloat16"}};

Trace ParseWith(const Metadata& metadata) {
  static std::vector<AlignedBytes> kept;  // a parsed trace points into its bytes
  kept.emplace_back(SafetensorsBytes({{"model.norm", DType::kBF16, {3, 2}}}, metadata));
  return Trace::Parse(kept.back().span(), "t.safetensors");
}

Trace ParseEdited(const std::string& key, const std::string& value) {
  Metadata metadata = kMust;
  metadata[key] = value;
  return ParseWith(metadata);
}

std::string EditError(const std::string& key, const std::string& value,
                      ErrorCode code = ErrorCode::kBadInput) {
  std::string message = ErrorOf(code, [&] { ParseEdited(key, value); });
  EXPECT_THAT(message, StartsWith("t.safetensors: ")) << value;
  return message;
}

TEST(Trace, Reads) {
  const Trace trace = ParseEdited("framework", "torch");
  EXPECT_EQ(trace.path(), "t.safetensors");
  EXPECT_THAT(trace.info().input_ids, ElementsAre(5, 0, 7));
  EXPECT_THAT(trace.info().positions, ElementsAre(0, 1, 2));
  EXPECT_EQ(trace.info().dtype, DType::kBF16);
  EXPECT_EQ(trace.info().metadata.at("framework"), "torch");
  EXPECT_EQ(trace.tokens(), 3);
  ASSERT_EQ(trace.tensors().size(), 1U);
  EXPECT_EQ(trace.Find("model.norm")->shape, (Shape{3, 2}));
  EXPECT_EQ(trace.Find("lm_head"), nullptr);
}

TEST(Trace, DTypes) {
  EXPECT_EQ(ParseEdited("dtype", "float32").info().dtype, DType::kF32);
  EXPECT_EQ(ParseEdited("dtype", "float16").info().dtype, DType::kF16);
  for (const char* name : {"", "float64", "BF16", "torch.bfloat16"}) {
    EXPECT_THAT(EditError("dtype", name), HasSubstr("expected float32, bfloat16 or float16"));
  }
}

TEST(Trace, Positions) {
  EXPECT_THAT(ParseEdited("positions", "[9, 9, 100]").info().positions, ElementsAre(9, 9, 100));
  EXPECT_THAT(ParseEdited("positions", "[[1, 2, 3]]").info().positions, ElementsAre(1, 2, 3));
  EXPECT_THAT(EditError("positions", "[0, 1]"), HasSubstr("2 positions for 3 input_ids"));
  EXPECT_THAT(EditError("positions", "[0, 1, 2, 3]"), HasSubstr("4 positions"));
  EXPECT_THAT(EditError("positions", "[-1, 0, 1]"), HasSubstr("'positions'"));
  EXPECT_THAT(EditError("positions", ""), HasSubstr("'positions'"));
}

TEST(Trace, EveryMustKey) {
  for (const auto& [key, value] : kMust) {
    Metadata metadata = kMust;
    metadata.erase(key);
    EXPECT_THAT(ErrorOf(ErrorCode::kBadInput, [&] { ParseWith(metadata); }),
                AllOf(HasSubstr("has no '" + key + "'"), HasSubstr("is this a trace?")));
  }
}

TEST(Trace, OtherFormats) {
  for (const char* format : {"samebits-trace-2", "pt", "", "samebits-trace-1 "}) {
    EXPECT_THAT(EditError("format", format, ErrorCode::kUnsupported),
                HasSubstr("expected samebits-trace-1"));
  }
}

TEST(Trace, InputIds) {
  for (const char* ids :
       {"", "1, 2, 3", "[]", "7", "\"1\"", "{}", "null", "[1,", "[1] [2]", "[[]]"}) {
    EXPECT_THAT(EditError("input_ids", ids), HasSubstr("'input_ids'")) << ids;
  }
  for (const char* id : {"-1", "1.5", "1.0", "\"1\"", "null", "true", "2147483648",
                         "18446744073709551615", "99999999999999999999", "[1]"}) {
    EXPECT_THAT(EditError("input_ids", fmt::format("[1, {}, 3]", id)),
                HasSubstr("expected integers from 0 to 2^31 - 1, found"))
        << id;
  }
  EXPECT_THAT(EditError("input_ids", std::string(100'000, '[')), HasSubstr("nested"));
  EXPECT_THAT(ParseEdited("input_ids", "[1, 2147483647, 3]").info().input_ids,
              ElementsAre(1, 2147483647, 3));
}

TEST(Trace, Batches) {
  const Trace one = ParseEdited("input_ids", "[[1, 2, 3]]");
  EXPECT_THAT(one.info().input_ids, ElementsAre(1, 2, 3));
  EXPECT_EQ(one.info().batch, 1);
  EXPECT_EQ(one.tokens(), 3);
  EXPECT_EQ(ParseWith(kMust).info().batch, 0);

  const Trace two = ParseEdited("input_ids", "[[1, 2, 3], [4, 5, 6]]");
  EXPECT_EQ(two.info().batch, 2);
  EXPECT_EQ(two.tokens(), 3);
  EXPECT_THAT(two.info().input_ids, ElementsAre(1, 2, 3, 4, 5, 6));
  EXPECT_THAT(two.info().positions, ElementsAre(0, 1, 2, 0, 1, 2));
  EXPECT_THAT(two.info().attention_mask, ElementsAre(1, 1, 1, 1, 1, 1));
  EXPECT_THAT(two.info().chunks, ElementsAre(3));

  Metadata padded = kMust;
  padded["input_ids"] = "[[1, 2, 3], [4, 5, 6]]";
  padded["positions"] = "[[0, 1, 2], [1, 0, 1]]";
  padded["attention_mask"] = "[[1, 1, 1], [0, 1, 1]]";
  padded["chunks"] = "[2, 1]";
  const Trace all = ParseWith(padded);
  EXPECT_THAT(all.info().positions, ElementsAre(0, 1, 2, 1, 0, 1));
  EXPECT_THAT(all.info().attention_mask, ElementsAre(1, 1, 1, 0, 1, 1));
  EXPECT_THAT(all.info().chunks, ElementsAre(2, 1));

  EXPECT_THAT(EditError("input_ids", "[[1, 2, 3], [4, 5]]"),
              HasSubstr("sequence 1 has 2 integers, the first has 3"));
  for (const char* ids : {"[[[1]]]", "[1, [2, 3]]", "[[1], 2]", "[[1], []]", "[[], [1]]"}) {
    EXPECT_THAT(EditError("input_ids", ids), HasSubstr("'input_ids'")) << ids;
  }
  for (const char* key : {"positions", "attention_mask"}) {
    for (const auto& [value, shown] :
         {std::pair{"[[0, 1, 1]]", "3 "}, std::pair{"[0, 1, 1, 0, 1, 1]", "6 "},
          std::pair{"[[0, 1], [0, 1], [0, 1]]", "3 x 2 "}}) {
      Metadata metadata = padded;
      metadata[key] = value;
      EXPECT_THAT(ErrorOf(ErrorCode::kBadInput, [&] { ParseWith(metadata); }),
                  HasSubstr(fmt::format("{}{} for 2 x 3 input_ids", shown, key)))
          << value;
    }
  }
}

TEST(Trace, AttentionMask) {
  EXPECT_THAT(ParseWith(kMust).info().attention_mask, ElementsAre(1, 1, 1));
  EXPECT_THAT(ParseEdited("attention_mask", "[0, 1, 1]").info().attention_mask,
              ElementsAre(0, 1, 1));
  EXPECT_THAT(EditError("attention_mask", "[0, 1]"), HasSubstr("2 attention_mask for 3 input_ids"));
  for (const char* value : {"2", "-1", "true", "1.0", "\"1\"", "4294967297"}) {
    EXPECT_THAT(EditError("attention_mask", fmt::format("[1, {}, 1]", value)),
                HasSubstr("'attention_mask': expected integers from 0 to 1, found"))
        << value;
  }
}

TEST(Trace, Chunks) {
  EXPECT_THAT(ParseWith(kMust).info().chunks, ElementsAre(3));
  EXPECT_THAT(ParseEdited("chunks", "[3]").info().chunks, ElementsAre(3));
  EXPECT_THAT(ParseEdited("chunks", "[1, 1, 1]").info().chunks, ElementsAre(1, 1, 1));
  for (const char* chunks : {"[2]", "[2, 2]", "[16777216]"}) {
    EXPECT_THAT(EditError("chunks", chunks), HasSubstr("expected 3, as many as input_ids"));
  }
  EXPECT_THAT(EditError("chunks", "[3, 0]"), HasSubstr("a forward pass of 0 tokens"));
  EXPECT_THAT(EditError("chunks", "[[3]]"), HasSubstr("a list of lists"));
  for (const char* chunks : {"", "3", "[]", "{}", "null", "[-1, 4]", "[1.5, 1.5]", "[16777217]",
                             "[18446744073709551615, 4]", "[3, [0]]"}) {
    EXPECT_THAT(EditError("chunks", chunks), HasSubstr("'chunks'")) << chunks;
  }
}

TEST(Trace, BreaksRulesOfSafetensors) {
  const std::string bytes = SafetensorsBytes({{"a", DType::kF32, {2}}}, kMust);
  const AlignedBytes cut(bytes.substr(0, bytes.size() - 1));
  EXPECT_THAT(ErrorOf(ErrorCode::kBadInput, [&] { Trace::Parse(cut.span(), "t"); }),
              HasSubstr("truncated"));
}

TEST(Trace, CorpusIsJudgedAsItsNamesSay) {
  int files = 0;
  for (const auto& entry :
       std::filesystem::directory_iterator(SAMEBITS_SOURCE_DIR "/tests/corpus/trace")) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with("ok_") && !name.starts_with("bad_")) continue;
    const AlignedBytes bytes(ReadBytes(entry.path()));
    ++files;
    if (name.starts_with("ok_")) {
      EXPECT_NO_THROW(Trace::Parse(bytes.span(), name)) << name;
    } else {
      EXPECT_THROW(Trace::Parse(bytes.span(), name), Error) << name;
    }
  }
  EXPECT_GE(files, 20);
}

TEST(TraceWriter, RoundTrip) {
  const TempFolder folder;
  const std::string path = folder / "t.safetensors";
  const std::vector<uint16_t> halves = {1, 2, 3, 4, 5, 6};
  const std::vector<float> floats = {1.5F, -0.0F, 2.5F};
  Metadata metadata = kMust;
  metadata["prompt"] = "a \"quoted\" \n \xc3\xa4";
  {
    // An odd number of 16-bit values before fp32 ones: the writer must sort them.
    TraceWriter writer(path, metadata,
                       {{"odd", DType::kBF16, {3}},
                        {"model.norm", DType::kBF16, {3, 2}},
                        {"lm_head", DType::kF32, {3}},
                        {"empty", DType::kF32, {0, 4}},
                        {"unwritten", DType::kF32, {2}}});
    EXPECT_TRUE(writer.Has("model.norm"));
    EXPECT_FALSE(writer.Has("model"));
    // Row by row, the last one first.
    for (const int64_t row : {2, 0, 1}) {
      writer.Write("model.norm", row * 4, halves.data() + row * 2, 4);
    }
    writer.Write("lm_head", 0, floats.data(), 12);
    writer.Write("odd", 0, halves.data(), 6);
    writer.Write("empty", 0, nullptr, 0);
    EXPECT_FALSE(std::filesystem::exists(path));  // not before it is whole
    writer.Finish();
  }
  const Trace trace = Trace::Open(path);
  EXPECT_EQ(trace.info().metadata, metadata);
  const auto* norm = trace.Find("model.norm")->as<uint16_t>();
  EXPECT_EQ(std::vector<uint16_t>(norm, norm + 6), halves);
  for (size_t i = 0; i < floats.size(); ++i) {  // bits: -0.0F is not 0.0F
    EXPECT_EQ(std::bit_cast<uint32_t>(trace.Find("lm_head")->as<float>()[i]),
              std::bit_cast<uint32_t>(floats[i]));
  }
  EXPECT_EQ(trace.Find("odd")->as<uint16_t>()[2], 3);
  EXPECT_EQ(trace.Find("unwritten")->as<float>()[1], 0.0F);
  EXPECT_EQ(trace.Find("empty")->elements(), 0);
  for (const NamedTensor& entry : trace.tensors()) {
    EXPECT_EQ(reinterpret_cast<uintptr_t>(entry.view.data) %
                  static_cast<uintptr_t>(DTypeSize(entry.view.dtype)),
              0U);
  }
  int files = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(folder.path())) {
    ++files;
  }
  EXPECT_EQ(files, 1);  // no part file beside it
}

TEST(TraceWriter, GivenUpLeavesNothing) {
  const TempFolder folder;
  {
    TraceWriter writer(folder / "t", kMust, {{"a", DType::kF32, {2}}});
    writer.Write("a", 0, "12345678", 8);
  }
  EXPECT_TRUE(folder.Empty());
}

TEST(TraceWriter, GivenUpKeepsTheOldFile) {
  const TempFolder folder;
  const std::string path = folder.Write("t", "old");
  { const TraceWriter writer(path, kMust, {{"a", DType::kF32, {2}}}); }
  EXPECT_EQ(ReadBytes(path), "old");
}

TEST(TraceWriter, FolderThatIsNotThere) {
  const TempFolder folder;
  EXPECT_THAT(ErrorOf(ErrorCode::kIo, [&] { TraceWriter(folder / "no/t", kMust, {}); }),
              AllOf(HasSubstr("no/t"), HasSubstr("can not be created")));
}

TEST(TraceWriter, NoRoomLeavesNothing) {
  const TempFolder folder;
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const rlimit small = {1 << 20, before.rlim_max};
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const std::string message = ErrorOf(ErrorCode::kIo, [&] {
    TraceWriter(folder / "t", kMust, {{"a", DType::kF32, {1 << 20}}});
  });
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  std::signal(SIGXFSZ, old_handler);
  EXPECT_THAT(message, HasSubstr("no room for"));
  EXPECT_TRUE(folder.Empty());
}

TEST(TraceWriter, NameThatIsTaken) {
  const TempFolder folder;
  std::filesystem::create_directory(folder / "t");
  TraceWriter writer(folder / "t", kMust, {{"a", DType::kF32, {2}}});
  EXPECT_THAT(ErrorOf(ErrorCode::kIo, [&] { writer.Finish(); }), HasSubstr("can not be written"));
  EXPECT_TRUE(std::filesystem::is_empty(folder / "t"));
  std::filesystem::remove(folder / "t");
  EXPECT_TRUE(folder.Empty());
}

TEST(TraceWriterDeathTest, WritingOutsideIsAProgrammersError) {
  const TempFolder folder;
  TraceWriter writer(folder / "t", kMust, {{"a", DType::kF32, {2}}});
  const char bytes[16] = {};
  EXPECT_DEATH(writer.Write("b", 0, bytes, 4), "b");
  EXPECT_DEATH(writer.Write("a", 0, bytes, 12), "a");
  EXPECT_DEATH(writer.Write("a", 8, bytes, 4), "a");
  EXPECT_DEATH(writer.Write("a", -4, bytes, 4), "a");
}

}  // namespace
}  // namespace samebits
