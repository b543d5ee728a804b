// Items from hostile lines, prompts, seeds, lines and their restoring, the file of results.
#include "samebits/evaluate/evaluation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <filesystem>
#include <functional>
#include <optional>
#include <set>

#include "samebits/base/errors_testing.h"
#include "samebits/evaluate/result_file.h"

namespace samebits {
namespace {

using testing::HasSubstr;

const char* const kGood = R"({"question": "1 + 1?", "answer": "1 + 1 = 2 #### 2"})";

TEST(Items, Lines) {
  const std::vector<TaskItem> items =
      ParseItems(std::string(kGood) + "\r\n\n  \n" +
                     R"({"answer": "#### -1,5", "question": "é", "more": [1]})",
                 "x.jsonl");
  ASSERT_EQ(items.size(), 2U);
  EXPECT_EQ(items[0].question, "1 + 1?");
  EXPECT_EQ(items[0].line, 1);
  EXPECT_EQ(items[1].answer, "#### -1,5");
  EXPECT_EQ(items[1].line, 4);
  EXPECT_EQ(ParseItems(std::string("\xef\xbb\xbf") + kGood, "x.jsonl").size(), 1U);
}

TEST(Items, Hostile) {
  const std::pair<const char*, const char*> cases[] = {
      {"{", "expected one JSON object a line"},
      {"[]", "expected an object with \"question\" and \"answer\", found []"},
      {"null", "found null"},
      {R"({"question": "q"})", "x.jsonl:2: 'answer'"},
      {R"({"answer": "#### 1"})", "x.jsonl:2: 'question'"},
      {R"({"question": 5, "answer": "#### 1"})", "'question'"},
      {R"({"question": " \n", "answer": "#### 1"})", "'question': expected a text"},
      {R"({"question": "q", "answer": null})", "'answer'"},
      {R"({"question": "q", "answer": "42"})", "expected a text with \"#### \" and the result"},
      {R"({"question": "q", "answer": "#### 1 #### "})", "found \"#### 1 #### \""},
      {R"({"question": "q", "question": "r", "answer": "#### 1"})", "question"},
      {R"({"question": "q", "answer": "#### 1"} x)", "x.jsonl:2: "},
      {"{\"question\": \"\xff\", \"answer\": \"#### 1\"}", "x.jsonl:2: "}};
  for (const auto& [line, words] : cases) {
    const std::string text = std::string(kGood) + "\n" + line + "\n" + kGood;
    const std::string error = ErrorOf(ErrorCode::kBadInput, [&] { ParseItems(text, "x.jsonl"); });
    EXPECT_THAT(error, HasSubstr("x.jsonl:2: ")) << line;
    EXPECT_THAT(error, HasSubstr(words)) << line;
  }
  for (const char* text : {"", "\n\n", " \r\n"}) {
    EXPECT_THAT(ErrorOf(ErrorCode::kBadInput, [&] { ParseItems(text, "x.jsonl"); }),
                HasSubstr("x.jsonl: no items"));
  }
}

TEST(Items, ALineHasALimit) {
  const std::string rest = R"(", "answer": "#### 1"})", begin = R"({"question": ")";
  const size_t most = size_t{4} << 20;
  std::string line = begin + std::string(most - begin.size() - rest.size(), 'x') + rest;
  EXPECT_EQ(ParseItems(line, "x.jsonl").size(), 1U);
  line += ' ';
  EXPECT_THAT(ErrorOf(ErrorCode::kBadInput, [&] { ParseItems(line, "x.jsonl"); }),
              HasSubstr("x.jsonl:1: expected one question a line, found a line of 4194305 bytes"));
}

TEST(Items, ATargetThatNoAnswerCanReach) {
  for (const char* right : {"42", "-1,234.5", "$5", "007", "5.", "12 #### -3", "1,000,000."}) {
    CheckTarget({"q", std::string("#### ") + right, 3}, "x.jsonl");
  }
  for (const char* wrong : {"two", "2 apples", "42 ", "42\n", " 42", ",", ".", "1/2", "5%", "+5",
                            "--5", "\u0664", "1e3", "####4", "4 ####5"}) {
    const TaskItem item{"q", std::string("#### ") + wrong, 3};
    const std::string error = ErrorOf(ErrorCode::kBadInput, [&] { CheckTarget(item, "x.jsonl"); });
    EXPECT_THAT(error, HasSubstr("x.jsonl:3: 'answer': expected a number alone")) << wrong;
  }
}

TEST(Items, Notes) {
  const std::vector<TaskItem> items = {
      {"a", "#### 1", 2}, {"b", "#### 1", 3}, {"a", "#### 2", 5}, {"a", "#### 1", 6}};
  EXPECT_TRUE(NotesOn({items.data(), 2}, {{items[2]}}, "x").size() == 1);
  EXPECT_THAT(NotesOn({items.data(), 2}, {}, "x"), testing::IsEmpty());
  EXPECT_THAT(
      NotesOn(items, {{items[1]}}, "x"),
      testing::ElementsAre("x: 2 of 4 questions repeat another one (line 5 is line 2); each "
                           "counts",
                           "x: 1 of 4 questions are among the examples, with their answers "
                           "(line 3)"));
}

TEST(Items, Prompts) {
  const std::vector<TaskItem> examples = {{"a?", "b #### 1"}, {"c?", "#### 2"}};
  EXPECT_EQ(FewShotText({}, "q?"), "Question: q?\nAnswer:");
  EXPECT_EQ(FewShotText(examples, "q?"),
            "Question: a?\nAnswer: b #### 1\n\nQuestion: c?\nAnswer: #### 2\n\n"
            "Question: q?\nAnswer:");
  const OrderedJson messages = FewShotMessages(examples, "q?");
  ASSERT_EQ(messages.size(), 5U);
  EXPECT_EQ(messages[1], OrderedJson({{"role", "assistant"}, {"content", "b #### 1"}}));
  EXPECT_EQ(messages[4], OrderedJson({{"role", "user"}, {"content", "q?"}}));
}

Task ThreeItems(int64_t samples) {
  return {{{"a", "#### 1"}, {"b", "#### 2"}, {"c", "#### 3"}}, {{1}, {2}, {3}}, samples, 7};
}

Generation Said(const std::string& text) {
  Generation answer;
  answer.text = text;
  answer.ids = {5, 6};
  return answer;
}

TEST(Evaluation, SamplesAndMajority) {
  Evaluation evaluation(ThreeItems(3));
  const std::vector<BatchPrompt> waiting = evaluation.Waiting();
  ASSERT_EQ(waiting.size(), 9U);
  std::set<uint64_t> seeds;
  for (const BatchPrompt& prompt : waiting) seeds.insert(prompt.seed);
  EXPECT_EQ(seeds.size(), 9U);
  EXPECT_EQ(waiting[4].ids, std::vector<int64_t>{2});
  EXPECT_EQ(waiting[4].seed, DerivedSeed(DerivedSeed(7, 1), 1));
  EXPECT_FALSE(evaluation.Add(5, Said("#### 2")));
  EXPECT_FALSE(evaluation.Add(3, Said("#### 9")));
  const std::optional<Json> line = evaluation.Add(4, Said("it is #### 2"));
  ASSERT_TRUE(line);
  EXPECT_EQ((*line)["item"], 1);
  EXPECT_EQ((*line)["strict"], "2");
  EXPECT_EQ((*line)["strict_right"], true);
  EXPECT_EQ((*line)["samples"][0]["text"], "#### 9");
  EXPECT_EQ((*line)["samples"][1]["seed"], waiting[4].seed);
  EXPECT_EQ(evaluation.score().done, 1);
  EXPECT_EQ(evaluation.score().flexible_right, 1);
  EXPECT_EQ(evaluation.score().tokens, 6);
}

TEST(Evaluation, GoesOn) {
  Evaluation first(ThreeItems(1));
  const Json line = *first.Add(1, Said("x"));
  Evaluation second(ThreeItems(1));
  Json behind = line;
  behind["item"] = 7;  // of a run with more items
  second.Restore({line, behind}, "out");
  EXPECT_EQ(second.score().done, 1);
  EXPECT_EQ(second.score().restored, 1);
  EXPECT_EQ(second.score().strict_right, 0);
  const std::vector<BatchPrompt> waiting = second.Waiting();
  ASSERT_EQ(waiting.size(), 2U);
  EXPECT_EQ(waiting[1].seed, first.Waiting()[2].seed);
  EXPECT_EQ((*second.Add(1, Said("#### 3")))["item"], 2);
  EXPECT_EQ(second.score().strict_right, 1);
}

TEST(Evaluation, RefusesBrokenLines) {
  const Json good = *Evaluation(ThreeItems(1)).Add(1, Said("x"));
  const auto refused = [&](ErrorCode code, const std::vector<Json>& lines) {
    return ErrorOf(code, [&] { Evaluation(ThreeItems(1)).Restore(lines, "out"); });
  };
  EXPECT_THAT(refused(ErrorCode::kBadInput, {good, good}),
              HasSubstr("out:3: item 1 for the second"));
  const std::pair<const char*, Json> edits[] = {
      {"item", -1}, {"item", "x"}, {"item", nullptr}, {"prompt_digest", 5}, {"strict_right", 1}};
  for (const auto& [key, value] : edits) {
    Json bad = good;
    bad[key] = value;
    EXPECT_THAT(refused(ErrorCode::kBadInput, {bad}), HasSubstr("out:2: ")) << bad;
  }
  Json other = good;
  other["prompt_digest"] = "sha256:0";
  EXPECT_THAT(refused(ErrorCode::kUsage, {other}), HasSubstr("made with another prompt"));
}

// The files of the fuzz target's corpus that `judge` throws an Error on are those named bad_*.
void JudgeCorpus(const std::string& target, int at_least,
                 const std::function<void(const std::string& bytes)>& judge) {
  int files = 0;
  for (const auto& entry :
       std::filesystem::directory_iterator(SAMEBITS_SOURCE_DIR "/tests/corpus/" + target)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with("ok_") && !name.starts_with("bad_")) continue;
    ++files;
    bool fine = true;
    try {
      judge(ReadBytes(entry.path()));
    } catch (const Error& error) {
      fine = false;
      EXPECT_THAT(error.what(), testing::StartsWith("input")) << name;
    }
    EXPECT_EQ(fine, name.starts_with("ok_")) << name;
  }
  EXPECT_GE(files, at_least);
}

TEST(Corpus, ItemsAreJudgedAsTheirNamesSay) {
  JudgeCorpus("items", 25, [](const std::string& bytes) {
    for (const TaskItem& item : ParseItems(bytes, "input")) CheckTarget(item, "input");
  });
}

TEST(Corpus, ResultFilesAreJudgedAsTheirNamesSay) {
  JudgeCorpus("result_file", 25, [](const std::string& bytes) {
    const Json run = {{"format", "samebits-eval-1"}, {"seed", 0}};
    Evaluation evaluation({{{"a", "#### 1"}, {"b", "#### 2"}}, {{1}, {2, 3}}, 2, 0});
    evaluation.Restore(ParseResults(bytes, "input", run).lines, "input");
  });
}

class ResultFiles : public testing::Test {
 protected:
  std::string Path() const { return folder_ / "out.jsonl"; }
  std::string Refused(ErrorCode code, const std::string& bytes) {
    folder_.Write("out.jsonl", bytes);
    std::string error = ErrorOf(code, [&] { ResultFile(Path(), run_); });
    EXPECT_EQ(ReadBytes(Path()), bytes);
    return error;
  }

  TempFolder folder_;
  Json run_ = {{"format", "f-1"}, {"dtype", "float32"}, {"shots", 5}};
};

TEST_F(ResultFiles, ACutLineIsDroppedAndDoneAgain) {
  {
    ResultFile file(Path(), run_);
    file.Begin();
    file.Append({{"item", 0}});
    file.Finish();
  }
  const std::string whole = ReadBytes(Path());
  EXPECT_EQ(whole, run_.dump() + "\n{\"item\":0}\n");
  for (size_t cut = 0; cut <= whole.size(); ++cut) {
    folder_.Write("out.jsonl", whole.substr(0, cut));
    ResultFile file(Path(), run_);
    EXPECT_EQ(file.lines().size(), cut == whole.size() ? 1U : 0U) << cut;
    file.Begin();
    if (file.lines().empty()) file.Append({{"item", 0}});
    EXPECT_EQ(ReadBytes(Path()), whole) << cut;
  }
}

TEST_F(ResultFiles, OfALineOnlyWhatIsNeededIsKept) {
  const Json line = {{"item", 3},         {"prompt_digest", "d"},   {"samples", {1, 2, 3}},
                     {"strict_right", 1}, {"flexible_right", true}, {"more", 1}};
  const FoundResults found = ParseResults(run_.dump() + "\n" + line.dump() + "\n", "x", run_);
  ASSERT_EQ(found.lines.size(), 1U);
  EXPECT_EQ(
      found.lines[0],
      Json({{"item", 3}, {"prompt_digest", "d"}, {"strict_right", 1}, {"flexible_right", true}}));
}

TEST_F(ResultFiles, OnlyOneProcessWrites) {
  std::optional<ResultFile> first(std::in_place, Path(), run_);
  EXPECT_THAT(ErrorOf(ErrorCode::kUsage, [&] { ResultFile(Path(), run_); }),
              HasSubstr("out.jsonl: expected a file that no other process writes"));
  first->Begin();
  first.reset();
  EXPECT_TRUE(ResultFile(Path(), run_).lines().empty());
}

// A file that may not grow stands for a full disk: write() takes what fits, then fails.
TEST_F(ResultFiles, AFullDiskKeepsWholeLines) {
  ResultFile file(Path(), run_);
  file.Begin();
  file.Append({{"item", 0}});
  const std::string before = ReadBytes(Path());
  rlimit unlimited{};
  getrlimit(RLIMIT_FSIZE, &unlimited);
  const rlimit limit{before.size() + 5, unlimited.rlim_max};
  std::signal(SIGXFSZ, SIG_IGN);
  setrlimit(RLIMIT_FSIZE, &limit);
  const std::string error = ErrorOf(ErrorCode::kIo, [&] { file.Append({{"item", 1}}); });
  setrlimit(RLIMIT_FSIZE, &unlimited);
  std::signal(SIGXFSZ, SIG_DFL);
  EXPECT_THAT(error, HasSubstr("out.jsonl: can not be written: File too large; its lines are "));
  EXPECT_EQ(ReadBytes(Path()), before);
  file.Append({{"item", 1}});
  EXPECT_EQ(ReadBytes(Path()), before + "{\"item\":1}\n");
}

TEST_F(ResultFiles, RefusesWhatIsNotOurs) {
  EXPECT_THAT(Refused(ErrorCode::kBadInput, "some text"), HasSubstr("out.jsonl:1: expected"));
  EXPECT_THAT(Refused(ErrorCode::kBadInput, "some text\n"), HasSubstr("nothing was changed"));
  EXPECT_THAT(Refused(ErrorCode::kBadInput, "{\"a\": 1}\n"), HasSubstr("out.jsonl:1: expected"));
  EXPECT_THAT(Refused(ErrorCode::kBadInput, "{\"format\": \"f-2\"}\n"), HasSubstr("expected"));
  EXPECT_THAT(Refused(ErrorCode::kBadInput, run_.dump() + "\n{\n"), HasSubstr("out.jsonl:2: "));
  EXPECT_THAT(Refused(ErrorCode::kBadInput, run_.dump() + "\n\n"),
              HasSubstr("without the line its item is done again"));
  EXPECT_THAT(Refused(ErrorCode::kBadInput, run_.dump() + "\n5\n"),
              HasSubstr("out.jsonl:2: expected an object, found 5"));
  Json other = run_;
  other["dtype"] = "bfloat16";
  EXPECT_THAT(Refused(ErrorCode::kUsage, other.dump() + "\n"),
              HasSubstr("made with \"dtype\": \"bfloat16\", this run has \"float32\""));
  other = run_;
  other["shots"] = nullptr;
  EXPECT_THAT(Refused(ErrorCode::kUsage, other.dump() + "\n"), HasSubstr("\"shots\": null"));
  other.erase("shots");
  EXPECT_THAT(Refused(ErrorCode::kUsage, other.dump() + "\n"), HasSubstr("\"shots\": nothing"));
  EXPECT_THAT(ErrorOf(ErrorCode::kIo, [&] { ResultFile(folder_.path(), run_); }),
              HasSubstr("expected a regular file or a new name, found a folder; give another -o"));
  EXPECT_THAT(ErrorOf(ErrorCode::kIo, [&] { ResultFile("/dev/full", run_); }),
              HasSubstr("/dev/full: expected a regular file or a new name, found a device"));
  EXPECT_THAT(ErrorOf(ErrorCode::kIo, [&] { ResultFile(folder_ / "no/x", run_); }),
              HasSubstr("can not be opened for writing: No such file or directory"));
}

}  // namespace
}  // namespace samebits
