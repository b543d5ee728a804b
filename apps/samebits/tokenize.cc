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
  std::string model, chat, ids;
  std::vector<std::string> files;
  int threads = 0;  // 0: one a physical core
  bool json = false, count = false;
};

struct Tokenized {
  std::vector<int64_t> ids;
  std::optional<std::string> text;  // what a chat or ids became
};

std::vector<Tokenized> TokenizeFiles(const Tokenizer& tokenizer, const TokenizeOptions& options) {
  CheckThreads(options.threads);
  std::vector<std::string> texts;
  if (options.files.empty()) texts.push_back(ReadInput("-"));
  for (const std::string& file : options.files) texts.push_back(ReadInput(file));
  const std::vector<std::string_view> views(texts.begin(), texts.end());
  std::vector<Tokenized> results;
  for (auto& ids : tokenizer.EncodeBatch(views, true, ChosenThreads(options.threads))) {
    results.push_back({std::move(ids), std::nullopt});
  }
  return results;
}

// One of each file; of a chat, of ids and of standard input one.
std::vector<Tokenized> Tokenize(const TokenizeOptions& options) {
  const int given = static_cast<int>(!options.files.empty()) +
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
    return TokenizeFiles(tokenizer, options);
  }
  return {result};
}

std::string JsonString(const std::string& text) {
  return Json(text).dump(-1, ' ', false, Json::error_handler_t::replace);
}

// What stands within the braces of one result.
std::string JsonFields(const TokenizeOptions& options, const Tokenized& result) {
  std::string fields = fmt::format("\"ids\": [{}]", fmt::join(result.ids, ", "));
  if (result.text) fields += ", \"text\": " + JsonString(*result.text);
  if (options.count) fields += fmt::format(", \"count\": {}", result.ids.size());
  return fields;
}

void Print(const TokenizeOptions& options, const std::vector<Tokenized>& results) {
  const bool several = results.size() > 1;
  if (options.json && several) fmt::print("{{\"files\": [");
  for (size_t i = 0; i < results.size(); ++i) {
    const Tokenized& result = results[i];
    if (options.json && several) {
      fmt::print("{}{{\"file\": {}, {}}}", i == 0 ? "" : ", ", JsonString(options.files[i]),
                 JsonFields(options, result));
    } else if (options.json) {
      fmt::print("{{{}}}\n", JsonFields(options, result));
    } else if (options.count && several) {
      fmt::print("{} {}\n", result.ids.size(), options.files[i]);
    } else if (options.count) {
      fmt::print("{}\n", result.ids.size());
    } else if (!options.ids.empty()) {
      fmt::print("{}\n", *result.text);
    } else {
      fmt::print("{}\n", fmt::join(result.ids, ","));
    }
  }
  if (options.json && several) fmt::print("]}}\n");
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
  command->add_option("FILE", options->files,
                      "the text, or several: ids line by line; without it or with -: standard "
                      "input");
  command->add_option("--chat", options->chat,
                      "JSON file with messages, or {\"messages\": [...], \"tools\": [...]}: as the "
                      "chat template writes them, with the generation prompt");
  command->add_option("--ids", options->ids, "token ids to be turned into text: 1,2,3");
  command->add_option("--threads", options->threads,
                      "threads (default: one a physical core); the ids are the same");
  command->add_flag("--count", options->count, "only how many tokens there are");
  command->add_flag("--json", options->json,
                    "one object with ids (and text, for --chat and --ids); of several files a list "
                    "of them");
  command->callback([options] { Print(*options, Tokenize(*options)); });
}

}  // namespace samebits
