// One user turn, against what the templates give in transformers (tests/live compares the ids for
// real models).
#include "samebits/text/chat.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "samebits/base/error.h"

namespace samebits {
namespace {

// As Qwen2.5-Instruct's, the part for tools cut short.
const std::string kQwen25 = R"({%- if tools %}
    {{- '<|im_start|>system\n' }}
    {%- if messages[0]['role'] == 'system' %}
        {{- messages[0]['content'] }}
    {%- else %}
        {{- 'You are Qwen, created by Alibaba Cloud. You are a helpful assistant.' }}
    {%- endif %}
    {{- "\n\n# Tools\n\nYou may call one or more functions.\n</tools><|im_end|>\n" }}
{%- else %}
    {%- if messages[0]['role'] == 'system' %}
        {{- '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}
    {%- else %}
        {{- '<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n' }}
    {%- endif %}
{%- endif %}
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}
)";

constexpr const char* kTurn = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n";

std::string Chat(const std::string& chat) { return FormatChatMl(chat, "Hi", "test"); }

std::string ErrorOf(const std::string& chat, const std::string& user = "Hi") {
  try {
    FormatChatMl(chat, user, "the place");
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
    EXPECT_THAT(error.what(), testing::StartsWith("the place: "));
    EXPECT_THAT(error.what(), testing::HasSubstr("--raw"));
    return error.what();
  }
  return "no error";
}

TEST(FormatChat, Nano) { EXPECT_EQ(FormatChat(SAMEBITS_SOURCE_DIR "/models/nano", "Hi"), kTurn); }

TEST(FormatChat, Qwen25PutsItsSystemMessageInFront) {
  EXPECT_EQ(Chat(kQwen25),
            std::string("<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a "
                        "helpful assistant.<|im_end|>\n") +
                kTurn);
}

TEST(FormatChat, LineEndsInsideAStringAreNoEscapes) {  // SmolLM2's
  EXPECT_EQ(Chat("{% if loop.first %}{{ '<|im_start|>system\nYou are SmolLM<|im_end|>\n' }}"
                 "{% endif %}{{'<|im_start|>' + message['role'] + '\n'}}{{ '<|im_end|>' }}"
                 "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"),
            std::string("<|im_start|>system\nYou are SmolLM<|im_end|>\n") + kTurn);
}

TEST(FormatChat, EscapesInTheSystemMessage) {
  EXPECT_EQ(Chat(R"({{ '<|im_start|>system\nIt\'s\n"two" lines<|im_end|>\n' }})"
                 R"({{ "<|im_start|>assistant\n" }})"),
            std::string("<|im_start|>system\nIt's\n\"two\" lines<|im_end|>\n") + kTurn);
  EXPECT_THAT(ErrorOf(R"({{ '<|im_start|>system\n\u1234<|im_end|>\n' }})"
                      R"({{ '<|im_start|>assistant\n' }})"),
              testing::HasSubstr("system message"));
}

TEST(FormatChat, ASystemMessageOutsideStrings) {
  EXPECT_EQ(Chat("{% if x %}<|im_start|>system\nBe brief.<|im_end|>\n{% endif %}"
                 "<|im_start|>{{ role }}<|im_start|>assistant\n"),
            std::string("<|im_start|>system\nBe brief.<|im_end|>\n") + kTurn);
  EXPECT_EQ(Chat("<|im_start|>system\n{{ system }}<|im_end|>\n<|im_start|>assistant\n"), kTurn);
}

TEST(FormatChat, OtherTemplatesAreRefused) {
  EXPECT_THAT(ErrorOf(""), testing::HasSubstr("ChatML"));
  EXPECT_THAT(ErrorOf("{{ '[INST]' + message + '[/INST]' }}"), testing::HasSubstr("ChatML"));
  const std::string turn = "{{ '<|im_start|>' + role + '\\n' + content + '<|im_end|>\\n' }}";
  EXPECT_THAT(ErrorOf(turn), testing::HasSubstr("generation prompt"));
  EXPECT_THAT(ErrorOf(turn + "{{ '<|im_start|>assistant\\n<think>\\n' }}"),
              testing::HasSubstr("generation prompt"));
  EXPECT_THAT(ErrorOf(turn + "{{ '<|im_start|>assistant' }}"),
              testing::HasSubstr("generation prompt"));
}

TEST(FormatChat, TextsThatATemplateWouldTrimAreRefused) {
  const std::string chat =
      "{{ '<|im_start|>' + message['content'] | trim + '<|im_end|>' }}"
      "{{ '<|im_start|>assistant\\n' }}";
  EXPECT_EQ(ErrorOf(chat), "no error");
  EXPECT_THAT(ErrorOf(chat, " Hi"), testing::HasSubstr("trims"));
  EXPECT_THAT(ErrorOf(chat, "Hi\n"), testing::HasSubstr("trims"));
}

TEST(FormatChat, TheJinjaFileGoesFirst) {
  const std::filesystem::path folder =
      std::filesystem::path(testing::TempDir()) / "samebits_chat_test";
  std::filesystem::create_directories(folder);
  std::ofstream(folder / "tokenizer_config.json") << R"({"chat_template": "[INST]"})";
  EXPECT_THROW(FormatChat(folder, "Hi"), Error);
  std::ofstream(folder / "chat_template.jinja") << kQwen25;
  EXPECT_THAT(FormatChat(folder, "Hi"), testing::HasSubstr("You are Qwen"));
  std::filesystem::remove_all(folder);
  EXPECT_THROW(FormatChat(folder, "Hi"), Error);
}

}  // namespace
}  // namespace samebits
