// Stop texts across pieces, and generation_config.json. Whole answers are tested through the
// program (tests/live/test_run.py, tests/cli).
#include "samebits/engine/generate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "samebits/base/errors_testing.h"

namespace samebits {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// What the pieces show, one after the other, and what the end adds.
std::vector<std::string> Shown(const std::vector<std::string>& stops,
                               const std::vector<std::string>& pieces, bool* found = nullptr) {
  StopFilter filter(stops);
  std::vector<std::string> shown;
  shown.reserve(pieces.size() + 1);
  for (const std::string& piece : pieces) shown.push_back(filter.Add(piece));
  shown.push_back(filter.Finish());
  if (found != nullptr) *found = filter.found();
  return shown;
}

TEST(StopFilter, WithoutStopTextsAllPasses) {
  bool found = true;
  EXPECT_THAT(Shown({}, {"a", "", "bc"}, &found), ElementsAre("a", "", "bc", ""));
  EXPECT_FALSE(found);
  EXPECT_THAT(Shown({""}, {"a"}), ElementsAre("a", ""));
}

TEST(StopFilter, EndsBeforeTheFirst) {
  bool found = false;
  EXPECT_THAT(Shown({"stop"}, {"go stop go", "on"}, &found), ElementsAre("go ", "", ""));
  EXPECT_TRUE(found);
  EXPECT_THAT(Shown({"b", "a"}, {"xaxb"}), ElementsAre("x", ""));
  EXPECT_THAT(Shown({"stop"}, {"stop"}), ElementsAre("", ""));
}

TEST(StopFilter, AcrossPieces) {
  bool found = false;
  EXPECT_THAT(Shown({"stop"}, {"a s", "t", "op b"}, &found), ElementsAre("a ", "", "", ""));
  EXPECT_TRUE(found);
  EXPECT_THAT(Shown({"stop"}, {"a st", "ep"}, &found), ElementsAre("a ", "step", ""));
  EXPECT_FALSE(found);
  EXPECT_THAT(Shown({"stop"}, {"a sto"}), ElementsAre("a ", "sto"));
  // The held end may begin anew inside what looked like a beginning.
  EXPECT_THAT(Shown({"aab"}, {"aa", "a", "b!"}, &found), ElementsAre("", "a", "", ""));
  EXPECT_TRUE(found);
  EXPECT_THAT(Shown({"\n\n", "\nQ"}, {"A\n", "B\n", "Q"}), ElementsAre("A", "\nB", "", ""));
}

class GenerationConfig : public testing::Test {
 protected:
  GenerationConfig() { config_.eos_token_ids = {7, 8}; }
  GenerationDefaults Read(const std::string& json) {
    folder_.Write("generation_config.json", json);
    return ReadGenerationDefaults(folder_.path(), config_);
  }
  std::string Refused(const std::string& json) {
    return ErrorOf(ErrorCode::kBadInput, [&] { Read(json); });
  }

  TempFolder folder_;
  ModelConfig config_;
};

TEST_F(GenerationConfig, MayBeMissing) {
  const GenerationDefaults defaults = ReadGenerationDefaults(folder_.path(), config_);
  EXPECT_THAT(defaults.stop_ids, ElementsAre(7, 8));
  EXPECT_EQ(defaults.sampling.temperature, 0);
  EXPECT_FALSE(defaults.max_tokens.has_value());
}

TEST_F(GenerationConfig, Qwen) {
  const GenerationDefaults defaults = Read(
      R"({"bos_token_id": 1, "pad_token_id": 1, "do_sample": true, "eos_token_id": [5, 1],
          "repetition_penalty": 1.1, "temperature": 0.7, "top_p": 0.8, "top_k": 20})");
  EXPECT_THAT(defaults.stop_ids, ElementsAre(5, 1));
  EXPECT_EQ(defaults.sampling.temperature, 0.7);
  EXPECT_EQ(defaults.sampling.top_p, 0.8);
  EXPECT_EQ(defaults.sampling.top_k, 20);
  EXPECT_EQ(defaults.sampling.repetition_penalty, 1.1);
  EXPECT_TRUE(defaults.left_out.empty());
}

TEST_F(GenerationConfig, WithoutDoSampleItIsGreedy) {
  const GenerationDefaults defaults =
      Read(R"({"temperature": 0.7, "top_p": 0.8, "max_new_tokens": 9, "eos_token_id": null})");
  EXPECT_EQ(defaults.sampling.temperature, 0);
  EXPECT_EQ(defaults.sampling.top_p, 1);
  EXPECT_EQ(defaults.max_tokens, 9);
  EXPECT_THAT(defaults.stop_ids, ElementsAre(7, 8));
  // What transformers takes when do_sample stands alone.
  const GenerationDefaults sampling = Read(R"({"do_sample": true})");
  EXPECT_EQ(sampling.sampling.temperature, 1);
  EXPECT_EQ(sampling.sampling.top_k, 50);
}

TEST_F(GenerationConfig, NamesWhatIsLeftOut) {
  EXPECT_THAT(Read(R"({"num_beams": 4, "no_repeat_ngram_size": 3})").left_out,
              testing::UnorderedElementsAre("num_beams = 4", "no_repeat_ngram_size = 3"));
  EXPECT_THAT(Read(R"({"num_beams": 1, "guidance_scale": null, "typical_p": 1.0,
                       "suppress_tokens": [], "bad_words_ids": null, "use_cache": true})")
                  .left_out,
              testing::IsEmpty());
}

TEST_F(GenerationConfig, Hostile) {
  EXPECT_THAT(Refused("[]"), HasSubstr("expected an object"));
  EXPECT_THAT(Refused("{"), HasSubstr("generation_config.json"));
  for (const char* json :
       {R"({"eos_token_id": "x"})", R"({"eos_token_id": -1})", R"({"eos_token_id": [1, 1e99]})",
        R"({"temperature": "hot"})", R"({"temperature": -1})", R"({"top_p": 2})",
        R"({"top_k": -5})", R"({"top_k": 1.5})", R"({"max_new_tokens": 0})",
        R"({"repetition_penalty": 0})", R"({"do_sample": 1})", R"({"min_p": [1]})"}) {
    EXPECT_THAT(Refused(json), HasSubstr("generation_config.json")) << json;
  }
}

}  // namespace
}  // namespace samebits
