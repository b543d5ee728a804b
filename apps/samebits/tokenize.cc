// samebits tokenize: text to token ids and back, chats as the model gets them.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cstdio>

#include "apps/samebits/commands.h"
#include "apps/samebits/model_options.h"
#include "apps/samebits/prompt_options.h"
#include "samebits/base/error.h"
#include "samebits/base/json.h"
#include "samebits/checkpoint/hub_cache.h"
#include "samebits/text/chat_template.h"

namespace samebits {
namespace {

struct TokenizeOptions {
  std::string model, file, chat, ids;
  bool json = false, count = false;
};

struct Tokenized {
  std::vector<int64_t> ids;
  std::optional<std::string> text;  // what a chat or ids became
};

Tokenized Tokenize(const TokenizeOptions& options) {
  const int given = static_cast<int>(!options.file.empty()) +
                    static_cast<int>(!options.chat.empty()) +
                    static_cast<int>(!options.ids.empty());
  if (given > 1) Fail(ErrorCode::kUsage, "give FILE or --chat or --ids, not more than one");
  const std::string folder = ResolveModel(options.model);
  const Tokenizer tokenizer = Tokenizer::Open(folder);
  Tokenized result;
  if (!options.ids.empty()) {
    result.ids = ParseIds(options.ids);
    for (int64_t id : result.ids) {
      if (tokenizer.IdToToken(id).empty()) {
        Fail(ErrorCode::kUsage, "--ids: token id {}: the tokenizer has none; its ids end at {}", id,
             tokenizer.size() - 1);
      }
    }
    result.text = tokenizer.Decode(result.ids);
  } else if (!options.chat.empty()) {
    const Chat chat = ParseChat(ReadInput(options.chat), options.chat);
    const std::optional<ChatTemplate> chat_template = ChatTemplate::Open(folder);
    if (!chat_template) {
      Fail(ErrorCode::kUsage,
           "{}: no chat template: neither chat_template.jinja nor a chat_template in "
           "tokenizer_config.json",
           folder);
    }
    result.text = chat_template->Render(chat);
    result.ids = tokenizer.Encode(*result.text, false);
  } else {
    result.ids = tokenizer.Encode(ReadInput(options.file.empty() ? "-" : options.file));
  }
  return result;
}

void Print(const TokenizeOptions& options, const Tokenized& result) {
  if (options.json) {
    const std::string ids = fmt::format("[{}]", fmt::join(result.ids, ", "));
    std::string text;
    if (result.text) {
      const Json json = *result.text;
      text = ", \"text\": " + json.dump(-1, ' ', false, Json::error_handler_t::replace);
    }
    const std::string count =
        options.count ? fmt::format(", \"count\": {}", result.ids.size()) : std::string();
    fmt::print("{{\"ids\": {}{}{}}}\n", ids, text, count);
  } else if (options.count) {
    fmt::print("{}\n", result.ids.size());
  } else if (!options.ids.empty()) {
    fmt::print("{}\n", *result.text);
  } else {
    fmt::print("{}\n", fmt::join(result.ids, ","));
  }
  FlushOutput();
}

}  // namespace

void RegisterTokenize(CLI::App& app, int&) {
  auto options = std::make_shared<TokenizeOptions>();
  CLI::App* command = app.add_subcommand("tokenize", "text to token ids and back");
  command->footer(
      "Example: echo \"What is 17 + 25?\" | samebits tokenize models/nano\n"
      "A folder with only the tokenizer's files is enough.");
  AddModelArgument(*command, options->model);
  command->add_option("FILE", options->file, "the text; without it or with -: standard input");
  command->add_option("--chat", options->chat,
                      "JSON file with messages, or {\"messages\": [...], \"tools\": [...]}: as the "
                      "chat template writes them, with the generation prompt");
  command->add_option("--ids", options->ids, "token ids to be turned into text: 1,2,3");
  command->add_flag("--count", options->count, "only how many tokens there are");
  command->add_flag("--json", options->json,
                    "one object with ids (and text, for --chat and --ids)");
  command->callback([options] { Print(*options, Tokenize(*options)); });
}

}  // namespace samebits
