// The tokenizer against ids that the `tokenizers` library gave (tests/fixtures), decoding, and
// files that are broken or ask for what is not done here.
#include "samebits/text/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>

#include "samebits/base/error.h"
#include "samebits/base/json.h"

namespace samebits {
namespace {

const std::string kFixtures = SAMEBITS_SOURCE_DIR "/tests/fixtures/tokenizer/";

std::string TokenizerPath(const std::string& name) {
  return name == "nano" ? SAMEBITS_SOURCE_DIR "/models/nano/tokenizer.json"
                        : kFixtures + name + ".json";
}

std::string ReadFixture(const std::string& name) {
  return ReadTextFile(TokenizerPath(name), 16 << 20);
}

Tokenizer Load(const std::string& name) { return Tokenizer::Parse(ReadFixture(name), name); }

class TokenizerTest : public testing::TestWithParam<std::string> {
 protected:
  Tokenizer tokenizer_ = Load(GetParam());
};

TEST_P(TokenizerTest, IdsAreTheLibrarys) {
  const std::string path = kFixtures + GetParam() + ".ids.json";
  const Json fixture = ParseJson(ReadTextFile(path, 16 << 20), path);
  ASSERT_GT(fixture["cases"].size(), 900U);
  int64_t ids = 0;
  for (const Json& one : fixture["cases"]) {
    const auto expected = one[1].get<std::vector<int64_t>>();
    EXPECT_EQ(tokenizer_.Encode(one[0].get<std::string>()), expected) << one[0];
    ids += static_cast<int64_t>(expected.size());
  }
  EXPECT_GT(ids, 6000);
}

TEST_P(TokenizerTest, DecodingGivesTheTextBack) {
  const std::string path = kFixtures + GetParam() + ".ids.json";
  const Json fixture = ParseJson(ReadTextFile(path, 16 << 20), path);
  for (const Json& one : fixture["cases"]) {
    const auto text = one[0].get<std::string>();
    const auto ids = one[1].get<std::vector<int64_t>>();
    EXPECT_EQ(tokenizer_.Decode(ids), text);
    TextStream stream(tokenizer_, true);
    std::string streamed;
    for (const int64_t id : ids) streamed += stream.Add(id);
    EXPECT_EQ(streamed + stream.Finish(), tokenizer_.Decode(ids, true));
  }
}

TEST_P(TokenizerTest, SpecialTokens) {
  const int64_t id = tokenizer_.TokenToId("<|im_end|>");
  EXPECT_GE(id, 0);
  EXPECT_TRUE(tokenizer_.IsSpecial(id));
  EXPECT_EQ(tokenizer_.IdToToken(id), "<|im_end|>");
  EXPECT_LT(id, tokenizer_.size());
  EXPECT_EQ(tokenizer_.Decode({{id}}, true), "");
  EXPECT_EQ(tokenizer_.Decode({{id}}), "<|im_end|>");
  EXPECT_EQ(tokenizer_.Encode("<|im_end|>"), std::vector<int64_t>{id});
  EXPECT_EQ(tokenizer_.TokenToId("no such token"), -1);
  for (const int64_t none : {int64_t{1} << 20, int64_t{1} << 40, int64_t{-1}}) {
    EXPECT_EQ(tokenizer_.Decode({{none}}), "");
    EXPECT_EQ(tokenizer_.IdToToken(none), "");
    EXPECT_FALSE(tokenizer_.IsSpecial(none));
  }
}

// A quadratic search would take minutes for this.
TEST_P(TokenizerTest, LongPiecesAreFast) {
  const auto start = std::chrono::steady_clock::now();
  const std::vector<int64_t> ids = tokenizer_.Encode(std::string(200000, 'e'));
  EXPECT_GT(ids.size(), 1000U);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20));
}

INSTANTIATE_TEST_SUITE_P(Patterns, TokenizerTest, testing::Values("nano", "gpt2", "digits"),
                         [](const auto& it) { return it.param; });

TEST(Tokenizer, AddedTokensThatAreNotSpecialAreShown) {
  const Tokenizer tokenizer = Load("gpt2");
  const int64_t id = tokenizer.TokenToId("<b>bold");
  ASSERT_GE(id, 0);
  EXPECT_FALSE(tokenizer.IsSpecial(id));
  EXPECT_EQ(tokenizer.Decode({{id}}, true), "<b>bold");
}

// A tokenizer.json of a few bytes with one change.
Json Small() {
  return ParseJson(R"({
    "added_tokens": [{"id": 4, "content": "<s>", "special": true}],
    "normalizer": null,
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true},
    "post_processor": null,
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, "Ġ": 3}, "merges": ["a b"]}
  })",
                   "small");
}

std::vector<int64_t> SmallIds(const Json& json, const std::string& text) {
  return Tokenizer::Parse(json.dump(), "small").Encode(text);
}

std::string SmallError(const Json& json, ErrorCode code) {
  try {
    Tokenizer::Parse(json.dump(), "small");
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    return error.what();
  }
  return "no error";
}

TEST(SmallTokenizer, Works) {
  EXPECT_EQ(SmallIds(Small(), "ab ba<s>a"), (std::vector<int64_t>{2, 3, 1, 0, 4, 0}));
  Json pairs = Small();
  pairs["model"]["merges"] = Json::array({Json::array({"a", "b"})});
  EXPECT_EQ(SmallIds(pairs, "ab"), std::vector<int64_t>{2});
}

// As the library does it, when there is no unk_token.
TEST(SmallTokenizer, AByteWithoutATokenGivesNothing) {
  EXPECT_EQ(SmallIds(Small(), "abcb"), (std::vector<int64_t>{2, 1}));
}

TEST(SmallTokenizer, TheLowestRankIsMergedFirstAndThenTheLeftmost) {
  Json json = Small();
  json["added_tokens"] = Json::array();
  json["model"]["vocab"] = {{"a", 0}, {"b", 1}, {"ab", 2}, {"ba", 3}, {"aba", 5}, {"aa", 6}};
  json["model"]["merges"] = {"b a", "a ba", "a b", "a a"};
  EXPECT_EQ(SmallIds(json, "aba"), std::vector<int64_t>{5});        // a (ba), then (a ba)
  EXPECT_EQ(SmallIds(json, "aaa"), (std::vector<int64_t>{6, 0}));   // leftmost
  EXPECT_EQ(SmallIds(json, "abab"), (std::vector<int64_t>{5, 1}));  // b a before both a b
}

TEST(HostileTokenizer, BrokenFiles) {
  struct Case {
    const char* pointer;
    Json value;
    const char* words;
  };
  const Case cases[] = {
      {"/model/vocab", 3, "expected an object 'vocab'"},
      {"/model/vocab", Json::array({"a"}), "expected an object 'vocab'"},
      {"/model/vocab/a", "x", "expected a token id"},
      {"/model/vocab/a", -1, "expected a token id"},
      {"/model/vocab/a", 1.5, "expected a token id"},
      {"/model/vocab/a", 4294967296U, "expected a token id"},
      {"/model/vocab/a", 1, "two tokens have the id 1"},
      {"/model/merges", "a b", "a list 'merges'"},
      {"/model/merges/0", "ab", "expected two tokens"},
      {"/model/merges/0", " b", "expected two tokens"},
      {"/model/merges/0", "a ", "expected two tokens"},
      {"/model/merges/0", "", "expected two tokens"},
      {"/model/merges/0", "a b b", "expected two tokens"},
      {"/model/merges/0", 7, "expected two tokens"},
      {"/model/merges/0", nullptr, "expected two tokens"},
      {"/model/merges/0", Json::array({"a"}), "expected two tokens"},
      {"/model/merges/0", Json::array({"a", 1}), "expected two tokens"},
      {"/model/merges/0", "a \xe4\xb8\xad", "does not have"},
      {"/model/merges/0", "b a", "does not have"},
      {"/model/merges/0", "a c", "does not have"},
      {"/added_tokens", 5, "expected a list"},
      {"/added_tokens", {{"id", 1}}, "expected a list"},
      {"/added_tokens/0", "x", "expected objects"},
      {"/added_tokens/0/id", -5, "expected a token id"},
      {"/added_tokens/0/id", nullptr, "expected a token id"},
      {"/added_tokens/0/content", "", "empty content"},
      {"/added_tokens/0/content", 3, "expected a string"},
      {"/added_tokens/0/special", "yes", "expected true or false"},
  };
  for (const Case& c : cases) {
    Json json = Small();
    json[Json::json_pointer(c.pointer)] = c.value;
    EXPECT_THAT(SmallError(json, ErrorCode::kBadInput), testing::HasSubstr(c.words))
        << c.pointer << " = " << c.value;
  }
  for (const char* missing : {"model"}) {
    Json json = Small();
    json.erase(missing);
    EXPECT_THAT(SmallError(json, ErrorCode::kBadInput), testing::HasSubstr(missing));
  }
  for (const char* missing : {"vocab", "merges"}) {
    Json json = Small();
    json["model"].erase(missing);
    EXPECT_THAT(SmallError(json, ErrorCode::kBadInput), testing::HasSubstr(missing));
  }
  for (const Json& whole : {Json(1), Json("x"), Json::array({1}), Json(nullptr)}) {
    EXPECT_THAT(SmallError(whole, ErrorCode::kBadInput), testing::HasSubstr("missing"));
  }
}

TEST(HostileTokenizer, TextThatIsNoJson) {
  const std::string good = Small().dump();
  for (size_t size = 0; size < good.size(); ++size) {
    EXPECT_THROW(Tokenizer::Parse(good.substr(0, size), "small"), Error) << size;
  }
  EXPECT_THROW(Tokenizer::Parse(std::string(100000, '['), "small"), Error);
  EXPECT_THROW(Tokenizer::Parse("\xff\xfe", "small"), Error);
}

// What would give other ids than the library's is refused, by its name.
TEST(HostileTokenizer, SettingsThatAreNotDoneHere) {
  struct Case {
    const char* pointer;
    Json value;
    const char* words;
  };
  const Json level = Small()["pre_tokenizer"];
  const auto sequence = [](const char* key, std::initializer_list<Json> items) {
    return Json{{"type", "Sequence"}, {key, Json(std::vector<Json>(items))}};
  };
  const auto split = [](const Json& pattern) {
    return Json{{"type", "Split"}, {"pattern", pattern}, {"behavior", "Isolated"}};
  };
  const Case cases[] = {
      {"/model/type", "Unigram", "Unigram"},
      {"/model/dropout", 0.1, "dropout"},
      {"/model/continuing_subword_prefix", "##", "continuing_subword_prefix"},
      {"/model/end_of_word_suffix", "</w>", "end_of_word_suffix"},
      {"/normalizer", {{"type", "Lowercase"}}, "Lowercase"},
      {"/normalizer", sequence("normalizers", {{{"type", "BertNormalizer"}}}), "BertNormalizer"},
      {"/truncation", {{"max_length", 5}}, "truncation"},
      {"/padding", {{"length", 5}}, "padding"},
      {"/pre_tokenizer/type", "Whitespace", "Whitespace"},
      {"/pre_tokenizer", sequence("pretokenizers", {level, level}), "behind ByteLevel"},
      {"/pre_tokenizer", split({{"Regex", "(?<name>a)"}}), "a group '(?<n'"},
      {"/pre_tokenizer", split({{"Regex", "\\h"}}), "\\h"},
      {"/pre_tokenizer", split({{"Regex", "[a&&b]"}}), "&&"},
      {"/pre_tokenizer", split({{"Regex", "a{1,2}+"}}), "'+'"},
      {"/pre_tokenizer", split({{"String", ""}}), "empty pattern"},
      {"/post_processor", {{"type", "RobertaProcessing"}}, "RobertaProcessing"},
      {"/post_processor",
       {{"type", "TemplateProcessing"}, {"single", Json::array()}},
       "without the text"},
      {"/decoder", {{"type", "WordPiece"}}, "WordPiece"},
      {"/decoder", sequence("decoders", {{{"type", "Fuse"}}, {{"type", "ByteFallback"}}}),
       "behind Fuse"},
  };
  for (const Case& c : cases) {
    Json json = Small();
    json[Json::json_pointer(c.pointer)] = c.value;
    EXPECT_THAT(SmallError(json, ErrorCode::kUnsupported), testing::HasSubstr(c.words))
        << c.pointer << " = " << c.value;
  }
}

TEST(Tokenizer, HarmlessSettingsAreAccepted) {
  const std::pair<const char*, Json> cases[] = {
      {"/normalizer", {{"type", "NFC"}}},
      {"/model/dropout", nullptr},
      {"/model/ignore_merges", false},
      {"/model/continuing_subword_prefix", ""},
      {"/post_processor", {{"type", "ByteLevel"}, {"trim_offsets", false}}},
      {"/post_processor",
       {{"type", "TemplateProcessing"},
        {"single", Json::array({{{"Sequence", {{"id", "A"}, {"type_id", 0}}}}})}}},
      {"/pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", {Small()["pre_tokenizer"]}}}},
  };
  for (const auto& [pointer, value] : cases) {
    Json json = Small();
    json[Json::json_pointer(pointer)] = value;
    EXPECT_EQ(SmallIds(json, "ab"), std::vector<int64_t>{2}) << pointer << " = " << value;
  }
}

TEST(Tokenizer, OpenSaysWhatToDoWithoutAFile) {
  try {
    Tokenizer::Open("/nonexistent");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kIo);
    EXPECT_THAT(error.what(), testing::HasSubstr("/nonexistent/tokenizer.json"));
    EXPECT_THAT(error.what(), testing::HasSubstr("--ids"));
  }
}

TEST(CompleteUtf8, NothingIsShownBeforeItIsComplete) {
  const std::string text = "a\xc3\xbc\xe2\x82\xac\xf0\x9f\x98\x80z";
  std::string pending, shown;
  const std::vector<size_t> ends = {1, 3, 6, 10, 11};  // of the characters
  for (size_t i = 0; i < text.size(); ++i) {
    pending.push_back(text[i]);
    const size_t complete = CompleteUtf8(pending);
    shown += pending.substr(0, complete);
    pending.erase(0, complete);
    const bool at_end = std::find(ends.begin(), ends.end(), i + 1) != ends.end();
    EXPECT_EQ(pending.empty(), at_end) << "after byte " << i;
  }
  EXPECT_EQ(shown, text);
}

TEST(CompleteUtf8, BytesThatAreNoUtf8DoNotWaitForever) {
  EXPECT_EQ(CompleteUtf8(""), 0U);
  EXPECT_EQ(CompleteUtf8("\x80"), 1U);
  EXPECT_EQ(CompleteUtf8("\x80\x80\x80\x80\x80"), 5U);
  EXPECT_EQ(CompleteUtf8("\xc3z"), 2U);
  EXPECT_EQ(CompleteUtf8("\xe2\x82"), 0U);
  EXPECT_EQ(CompleteUtf8("ab\xf0\x9f\x98"), 2U);
}

}  // namespace
}  // namespace samebits
