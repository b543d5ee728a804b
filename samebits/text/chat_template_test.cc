#include "samebits/text/chat_template.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "samebits/base/errors_testing.h"
#include "samebits/jinja/clock_testing.h"

namespace samebits {
namespace {

using testing::HasSubstr;

// What transformers 5.24 made of each chat with each template; null: an error.
TEST(ChatTemplateTest, RecordedChatsRenderAsInTransformers) {
  const std::string folder = SAMEBITS_SOURCE_DIR "/testdata/templates/";
  const OrderedJson file = ParseOrderedJson(ReadBytes(folder + "chat_cases.json"), "chat_cases");
  jinja::Environment environment;
  environment.clock = jinja::FixedTime;
  int texts = 0;
  for (const auto& [name, results] : file["results"].items()) {
    const ChatTemplate used = ChatTemplate::Parse(ReadBytes(folder + name), name, file["tokens"]);
    for (const auto& [chat, expected] : results.items()) {
      const std::string where = fmt::format("{}: {}", name, chat);
      const Chat parsed = ParseChat(file["chats"][chat].dump(), where);
      if (expected.is_null()) {
        EXPECT_THROW(used.Render(parsed, environment), Error) << where;
      } else {
        EXPECT_EQ(used.Render(parsed, environment), expected.get<std::string>()) << where;
        ++texts;
      }
    }
  }
  EXPECT_GT(texts, 250);
}

TEST(ChatTemplateTest, ParseChatTakesBothForms) {
  Chat chat = ParseChat(R"([{"role": "user", "content": "x"}])", "c");
  EXPECT_EQ(chat.messages.size(), 1U);
  EXPECT_TRUE(chat.add_generation_prompt);
  chat = ParseChat(R"({"messages": [{"role": "user", "content": "\ud83d!"}], "tools": [{}],
                       "add_generation_prompt": false, "enable_thinking": false})",
                   "c");
  EXPECT_EQ(chat.messages[0]["content"], "\uFFFD!");
  EXPECT_FALSE(chat.add_generation_prompt);
  EXPECT_EQ(chat.variables.dump(), R"({"enable_thinking":false})");
  for (const char* bad : {"3", "{}", "[3]", R"({"messages": 3})", R"({"messages": [], "tools": 3})",
                          R"({"messages": [], "add_generation_prompt": 1})", "[", ""}) {
    EXPECT_THAT(ErrorOf(ErrorCode::kBadInput, [&] { ParseChat(bad, "c"); }), HasSubstr("c")) << bad;
  }
}

Chat Hello() { return ParseChat(R"([{"role": "user", "content": "hi"}])", "chat"); }

TEST(ChatTemplateTest, OpenFindsTemplateAndSpecialTokens) {
  const TempFolder folder;
  EXPECT_FALSE(ChatTemplate::Open(folder.path()).has_value());
  folder.Write("tokenizer_config.json",
               R"({"bos_token": {"__type": "AddedToken", "content": "<s>"}, "eos_token": "</s>",
                   "add_bos_token": true, "unk_token": null,
                   "chat_template": "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}"})");
  EXPECT_EQ(ChatTemplate::Open(folder.path())->Render(Hello()), "<s>hi</s>");
  folder.Write("special_tokens_map.json", R"({"eos_token": "<end>"})");
  EXPECT_EQ(ChatTemplate::Open(folder.path())->Render(Hello()), "<s>hi<end>");
  folder.Write("chat_template.jinja", "{{ messages[0].content }}{{ tools }}{{ documents }}");
  EXPECT_EQ(ChatTemplate::Open(folder.path())->Render(Hello()), "hiNoneNone");
}

TEST(ChatTemplateTest, AListOfTemplatesIsChosenFromByTools) {
  const TempFolder folder;
  folder.Write("tokenizer_config.json",
               R"({"chat_template": [{"name": "default", "template": "plain"},
                                     {"name": "tool_use", "template": "tools"}]})");
  const auto found = ChatTemplate::Open(folder.path());
  Chat chat = Hello();
  EXPECT_EQ(found->Render(chat), "plain");
  chat.tools = OrderedJson::array();
  EXPECT_EQ(found->Render(chat), "tools");
  folder.Write("tokenizer_config.json", R"({"chat_template": [{"name": "rag", "template": "x"}]})");
  EXPECT_THAT(ErrorOf(ErrorCode::kUnsupported, [&] { ChatTemplate::Open(folder.path()); }),
              HasSubstr("default"));
  folder.Write("tokenizer_config.json", R"({"chat_template": 3})");
  EXPECT_THAT(ErrorOf(ErrorCode::kBadInput, [&] { ChatTemplate::Open(folder.path()); }),
              HasSubstr("chat_template"));
}

TEST(ChatTemplateTest, MessagesArePreparedAsByTransformers) {
  const ChatTemplate dump = ChatTemplate::Parse("{{ messages|tojson }}", "t");
  const Chat chat = ParseChat(R"([{"role": "a", "content": null, "reasoning": "r"}])", "c");
  EXPECT_EQ(dump.Render(chat),
            R"([{"thinking": "r", "role": "a", "reasoning": "r", "reasoning_content": "r"}])");
  EXPECT_THAT(ErrorOf(ErrorCode::kBadInput, [&] { dump.Render(ParseChat("[]", "c")); }),
              HasSubstr("without messages"));
}

}  // namespace
}  // namespace samebits
