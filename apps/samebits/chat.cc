// samebits chat: a conversation. The KV cache carries over: of each turn only what is new is read.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <optional>

#include "apps/samebits/commands.h"
#include "apps/samebits/interrupts.h"
#include "apps/samebits/line_editor.h"
#include "apps/samebits/model_options.h"
#include "apps/samebits/progress.h"
#include "apps/samebits/ranks.h"
#include "apps/samebits/sampling_options.h"
#include "samebits/base/error.h"
#include "samebits/checkpoint/hub_cache.h"
#include "samebits/engine/generate.h"
#include "samebits/text/chat_template.h"

namespace samebits {
namespace {

struct ChatOptions {
  ModelOptions model;
  SamplingArguments sampling;
  std::string system;
};

constexpr const char* kHelp =
    "/reset          a new conversation (the system message stays)\n"
    "/system TEXT    a new conversation with this system message; without TEXT: without one\n"
    "/save FILE      the conversation as JSON, as `run --chat` and `tokenize --chat` read it\n"
    "/exit, Ctrl-D   ends; Ctrl-C stops an answer\n";

class Conversation {
 public:
  Conversation(Runtime& runtime, const ModelConfig& config, const Tokenizer& tokenizer,
               const ChatTemplate& chat_template, const GenerationOptions& options,
               std::string system)
      : runtime_(runtime),
        config_(config),
        tokenizer_(tokenizer),
        template_(chat_template),
        options_(options),
        system_(std::move(system)),
        sequence_(runtime.NewSequence()) {
    Reset();
  }

  void Reset() {
    chat_ = Chat{};
    if (!system_.empty()) chat_.messages.push_back({{"role", "system"}, {"content", system_}});
  }
  void SetSystem(const std::string& system) {
    system_ = system;
    Reset();
  }

  // Prints the answer as it comes. An error takes the turn back.
  void Say(const std::string& text) {
    const Chat before = chat_;
    try {
      chat_.messages.push_back({{"role", "user"}, {"content", text}});
      Answer();
    } catch (...) {
      chat_ = before;
      throw;
    }
  }

  void Save(const std::string& path) const {
    std::ofstream file(path);
    const OrderedJson json = {{"messages", chat_.messages}};
    file << json.dump(2, ' ', false, OrderedJson::error_handler_t::replace) << "\n";
    if (!file.flush()) Fail(ErrorCode::kIo, "{}: can not be written", path);
    fmt::print(stderr, "{}: {} messages\n", path, chat_.messages.size());
  }

 private:
  void Answer() {
    const std::vector<int64_t> prompt = tokenizer_.Encode(template_.Render(chat_), false);
    CheckIds(prompt, config_);
    const auto same = std::mismatch(held_.begin(), held_.end(), prompt.begin(), prompt.end());
    const auto common = static_cast<int64_t>(same.first - held_.begin());
    sequence_.Truncate(std::min(common, static_cast<int64_t>(prompt.size()) - 1));
    held_.clear();  // until the sequence is known again

    ProgressLine progress;
    GenerationEvents events;
    events.interrupted = &interrupted;
    events.prefill = [&](int64_t done, int64_t total) {
      if (done < total && total - done > options_.chunk) {
        progress.Show(done, total, "tokens of the conversation");
      } else {
        progress.Clear();
      }
    };
    events.text = [](std::string_view text) {
      std::fwrite(text.data(), 1, text.size(), stdout);
      std::fflush(stdout);
    };
    GenerationOptions options = options_;
    options.sampling.seed += static_cast<uint64_t>(turn_++);  // another draw each turn
    const Generation answer = Generate(runtime_, sequence_, prompt, &tokenizer_, options, events);
    held_ = prompt;
    held_.insert(held_.end(), answer.ids.begin(), answer.ids.end());
    held_.resize(static_cast<size_t>(sequence_.length()));
    fmt::print("\n");
    if (answer.stop_reason == StopReason::kContext) {
      fmt::print(stderr, "(the context of {} tokens is full: /reset starts anew)\n",
                 options_.max_length);
    } else if (answer.stop_reason == StopReason::kMaxTokens) {
      fmt::print(stderr, "(cut after {} tokens: --max-tokens)\n", options_.max_tokens);
    } else if (answer.stop_reason == StopReason::kInterrupted) {
      fmt::print(stderr, "(stopped)\n");
    }
    chat_.messages.push_back({{"role", "assistant"}, {"content", answer.text}});
  }

  Runtime& runtime_;
  const ModelConfig& config_;
  const Tokenizer& tokenizer_;
  const ChatTemplate& template_;
  const GenerationOptions& options_;
  std::string system_;
  Chat chat_;
  Sequence sequence_;
  std::vector<int64_t> held_;  // the tokens of sequence_
  int64_t turn_ = 0;
};

// False when the conversation is to end.
bool Obey(const std::string& line, Conversation& conversation) {
  const size_t space = std::min(line.find(' '), line.size());
  const std::string command = line.substr(0, space);
  const std::string argument = space < line.size() ? line.substr(space + 1) : "";
  if (command == "/exit" || command == "/quit") return false;
  if (command == "/reset") {
    conversation.Reset();
  } else if (command == "/system") {
    conversation.SetSystem(argument);
  } else if (command == "/save") {
    if (argument.empty()) Fail(ErrorCode::kUsage, "/save FILE: the file is missing");
    if (IsRootRank()) conversation.Save(argument);
  } else if (command == "/help") {
    fmt::print(stderr, "{}", kHelp);
  } else {
    Fail(ErrorCode::kUsage, "{}: no such command; /help lists them", command);
  }
  return true;
}

void RunChat(const ChatOptions& options) {
  const std::string folder = ResolveModel(options.model.model);
  const Checkpoint checkpoint = Checkpoint::Open(folder);
  const Graph graph = BuildGraph(checkpoint.config());
  RuntimeOptions how = ChosenRuntime(options.model, checkpoint.config());
  const Tokenizer tokenizer = Tokenizer::Open(folder);
  const std::optional<ChatTemplate> chat_template = ChatTemplate::Open(folder);
  if (!chat_template) {
    Fail(ErrorCode::kUsage, "{}: no chat template, so no chat; samebits run continues a text",
         folder);
  }
  GenerationOptions generation =
      ChosenGeneration(options.sampling, folder, checkpoint.config(), &tokenizer);
  generation.chunk = options.model.chunk;
  JoinRanks(options.model, checkpoint,
            fmt::format("{} {}", options.system, SamplingJson(generation).dump()), how);
  Runtime runtime(graph, checkpoint, how);
  {
    ProgressLine progress;
    PageIn(checkpoint, progress);
  }
  Conversation conversation(runtime, checkpoint.config(), tokenizer, *chat_template, generation,
                            options.system);
  std::optional<LineEditor> own_editor;  // of rank 0, whose terminal it is
  if (IsRootRank()) own_editor.emplace("> ", StateFile("chat_history"));
  const bool interactive = !FromRoot(own_editor && own_editor->interactive() ? "yes" : "").empty();
  const auto read = [&]() -> std::optional<std::string> {
    std::optional<std::string> line;
    if (own_editor) line = own_editor->Read();
    const std::string shared = FromRoot(line ? "+" + *line : "");
    return shared.empty() ? std::nullopt : std::optional(shared.substr(1));
  };
  if (interactive) fmt::print(stderr, "/help lists the commands, Ctrl-D ends\n");
  const CatchInterrupts caught;
  while (const std::optional<std::string> line = read()) {
    interrupted = false;
    if (line->empty()) continue;
    try {
      if ((*line)[0] == '/') {
        if (!Obey(*line, conversation)) break;
      } else {
        conversation.Say(*line);
      }
    } catch (const Error& error) {
      if (!interactive) throw;
      fmt::print(stderr, "samebits: {}\n", error.what());
    }
    FlushOutput();
  }
  if (interactive) fmt::print("\n");
}

}  // namespace

void RegisterChat(CLI::App& app, int&) {
  auto options = std::make_shared<ChatOptions>();
  CLI::App* command = app.add_subcommand("chat", "talk with a model");
  command->footer(std::string("Example: samebits chat models/nano\n\nWithin a chat:\n") + kHelp);
  AddModelOptions(*command, options->model);
  command->add_option("--system", options->system, "the system message");
  AddSamplingOptions(*command, options->sampling);
  command->callback([options] { RunChat(*options); });
}

}  // namespace samebits
