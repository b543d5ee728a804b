// The whole program on files that are cut short, random or edited, as somebody else's download
// could be: exit 2 and a message that names the file (or, where the damage happens to keep the
// rules, an answer), never a signal, never a hang, never memory beyond what the files explain.
// Left out: the formats' single rules, which the unit tests beside the readers hold.
#include <fmt/ranges.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <csignal>

#include "samebits/base/errors_testing.h"
#include "samebits/base/json.h"
#include "samebits/checkpoint/checkpoint.h"
#include "samebits/checkpoint/safetensors_testing.h"
#include "tests/hostile/mutate.h"
#include "tests/hostile/process.h"

namespace samebits {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

constexpr bool kSanitized = SAMEBITS_SANITIZED != 0;
// Under the sanitizers every process takes ten times as long, and shadow memory has no limit.
constexpr int kEdits = kSanitized ? 30 : 90;
constexpr unsigned kSeconds = 60;
constexpr long kAddressSpaceMb = kSanitized ? 0 : 1024;
constexpr double kMemoryMb = 100;

using Arguments = std::vector<std::string>;

// A folder with a checkpoint of one layer and the embedded model's tokenizer, and a trace of it.
class HostileTest : public testing::Test {
 protected:
  HostileTest() {
    const Json config = {{"model_type", "qwen2"},     {"vocab_size", 496},
                         {"hidden_size", 16},         {"intermediate_size", 24},
                         {"num_hidden_layers", 1},    {"num_attention_heads", 2},
                         {"num_key_value_heads", 1},  {"max_position_embeddings", 64},
                         {"rms_norm_eps", 1e-6},      {"rope_theta", 10000.0},
                         {"hidden_act", "silu"},      {"tie_word_embeddings", true},
                         {"torch_dtype", "bfloat16"}, {"eos_token_id", 495}};
    Write("config.json", config.dump());
    fs::copy_file(SAMEBITS_SOURCE_DIR "/models/nano/tokenizer.json", model() + "/tokenizer.json");
    // Without the file's last line end, so that every cut breaks it.
    const std::string source = SAMEBITS_SOURCE_DIR "/models/nano/tokenizer_config.json";
    Write("tokenizer_config.json", ParseJson(ReadBytes(source), source).dump());
    Write("generation_config.json",
          R"({"do_sample": true, "temperature": 0.7, "top_k": 20, "top_p": 0.8, "min_p": 0.1,
              "repetition_penalty": 1.1, "eos_token_id": [495, 494], "max_new_tokens": 2})");
    Write(
        "chat.json",
        R"({"messages": [{"role": "system", "content": "a"}, {"role": "user", "content": "b\u00e9"},
              {"role": "assistant", "content": "c"}], "tools": [{"name": "f"}], "x": 1.5})");
    std::vector<TensorSpec> tensors;
    std::mt19937 random(1);
    for (const ExpectedTensor& t : ExpectedTensors(ParseModelConfig(config.dump(), "config"))) {
      std::vector<uint16_t> values(static_cast<size_t>(NumElements(t.shape)));
      // bf16 of either sign, from 2^-7 to below 2^-3
      for (uint16_t& v : values) {
        v = static_cast<uint16_t>((random() & 0x81ffU) | 0x3c00U);
      }
      tensors.push_back({t.name, DType::kBF16, t.shape, ValueBytes(values)});
    }
    Write("model.safetensors", SafetensorsBytes(tensors, {{"format", "pt"}}));
    const Ended ended = Samebits({"trace", model(), "--ids", "1,2,3", "-o", trace()});
    EXPECT_EQ(ended.code, 0) << ended.err;
    EXPECT_EQ(Samebits({"check", model(), trace()}).code, 0);
  }

  std::string model() const { return folder_.path(); }
  std::string trace() const { return folder_ / "trace.safetensors"; }
  void Write(const std::string& name, const std::string& bytes) const {
    folder_.Write(name, bytes);
  }
  std::string Read(const std::string& name) const { return ReadBytes(folder_ / name); }

  Ended Samebits(Arguments arguments) const {
    arguments.insert(arguments.begin(), SAMEBITS_BINARY);
    return RunProcess(arguments, work_.path(), kSeconds, kAddressSpaceMb);
  }

  // What must hold whatever the files are. Gives the exit code.
  int RunHostile(const Arguments& arguments, const std::string& what) {
    const Ended ended = Samebits(arguments);
    ++runs_;
    refused_ += ended.code == 2 ? 1 : 0;
    const std::string how = fmt::format("{}: {}", what, fmt::join(arguments, " "));
    EXPECT_NE(ended.signal, SIGALRM) << how << ": still running after " << kSeconds << " s";
    EXPECT_EQ(ended.signal, 0) << how << ": " << ended.err.substr(0, 2000);
    EXPECT_GE(ended.code, 0) << how;
    EXPECT_LE(ended.code, 2) << how << ": " << ended.err.substr(0, 2000);
    // A check that could not tell says so on stdout.
    if (ended.code == 2 && (arguments[0] != "check" || ended.out.empty())) {
      EXPECT_THAT(ended.err, StartsWith("samebits: ")) << how;
    }
    EXPECT_THAT(ended.err, Not(HasSubstr("unexpected error"))) << how;
    // The sanitizers end a process with 1, as a check that finds a bug does.
    EXPECT_THAT(ended.err, Not(HasSubstr("Sanitizer"))) << how;
    EXPECT_THAT(ended.err, Not(HasSubstr("runtime error"))) << how;
    EXPECT_LT(ended.err.size(), 2000U) << how;
    if (!kSanitized) {
      EXPECT_LT(ended.megabytes, kMemoryMb) << how;
    }
    last_error_ = ended.err;
    return ended.code;
  }

  // The same, where no damage can be overlooked: exit 2, and the file is named.
  void ExpectRefused(const Arguments& arguments, const std::string& what,
                     const std::string& named) {
    EXPECT_EQ(RunHostile(arguments, what), 2) << what;
    EXPECT_THAT(last_error_, HasSubstr(named)) << what;
  }

  // The commands that read a checkpoint.
  std::vector<Arguments> ModelCommands() const {
    return {{"inspect", model()},
            {"run", model(), "--ids", "1,2", "--max-tokens", "2", "--threads", "1"},
            {"trace", model(), "--ids", "1,2", "-o", work_ / "out", "--threads", "1"},
            {"check", model(), trace(), "--threads", "1"}};
  }
  // And the one that reads a tokenizer.
  Arguments TextCommand() const {
    return {"run", model(), "1 + 1", "--raw", "--max-tokens", "2", "--threads", "1"};
  }
  // Those that read the template, the chat and the defaults of generation.
  std::vector<Arguments> ChatCommands() const {
    return {{"tokenize", model(), "--chat", folder_ / "chat.json", "--json"},
            {"run", model(), "1 + 1", "--max-tokens", "2", "--threads", "1"},
            {"run", model(), "--chat", folder_ / "chat.json", "--json", "--threads", "1"}};
  }
  std::vector<Arguments> TraceCommands() {
    if (!fs::exists(work_ / "good")) fs::copy_file(trace(), work_ / "good");
    return {{"check", model(), trace(), "--threads", "1"},
            {"diff", trace(), work_ / "good"},
            {"diff", work_ / "good", trace()},
            {"inspect", trace()}};
  }
  // Those that compare two checkpoints.
  std::vector<Arguments> WeightCommands() {
    const std::string good = work_ / "weights.safetensors";
    if (!fs::exists(good)) fs::copy_file(folder_ / "model.safetensors", good);
    return {{"diff", model(), good},
            {"diff", good, model(), "--json"},
            {"diff", folder_ / "model.safetensors", good, "--head-dim", "8"}};
  }

  // Replaces the file by damaged ones; each goes to one of the commands in turn.
  template <typename Damage>
  void RunDamaged(const std::string& name, const std::vector<Arguments>& commands, int count,
                  Damage&& damage) {
    const std::string good = Read(name);
    std::mt19937 random(static_cast<uint32_t>(count));
    for (int i = 0; i < count; ++i) {
      Write(name, damage(good, random));
      RunHostile(commands[static_cast<size_t>(i) % commands.size()],
                 fmt::format("{}, damage {} of {}", name, i, count));
      if (HasFailure()) {  // keep the file that shows it
        fs::copy_file(folder_ / name, fs::temp_directory_path() / ("hostile_" + name),
                      fs::copy_options::overwrite_existing);
        break;
      }
    }
    Write(name, good);
    RecordProperty("runs", runs_);
    RecordProperty("refused", refused_);
    fmt::print("{} runs, {} refused\n", runs_, refused_);
    // Most edits break a rule; if they stopped doing so this test would see nothing.
    EXPECT_GT(refused_, runs_ / 2);
  }

  void RunTruncated(const std::string& name, const std::vector<Arguments>& commands) {
    const std::string good = Read(name);
    std::vector<size_t> sizes = {0, 1, 2, 7, 8, 9, 10, 16, 100};
    for (size_t part = 1; part < 8; ++part) sizes.push_back(good.size() * part / 8);
    sizes.push_back(good.size() - 1);
    for (size_t i = 0; i < sizes.size(); ++i) {
      if (sizes[i] >= good.size()) continue;
      Write(name, good.substr(0, sizes[i]));
      ExpectRefused(commands[i % commands.size()],
                    fmt::format("{} cut to {} bytes", name, sizes[i]), name);
    }
    Write(name, good);
  }

  void RunRandom(const std::string& name, const std::vector<Arguments>& commands) {
    const std::string good = Read(name);
    std::mt19937 random(7);
    for (int i = 0; i < kEdits / 5; ++i) {
      Write(name, RandomBytes(random));
      ExpectRefused(commands[static_cast<size_t>(i) % commands.size()],
                    fmt::format("{} random {}", name, i), name);
    }
    Write(name, good);
  }

  // Replaces the single file by two shards and an index.
  void Shard() {
    const SafetensorsFile file = SafetensorsFile::Open(folder_ / "model.safetensors");
    std::vector<TensorSpec> shards[2];
    Json index = {{"metadata", {{"total_size", 0}}}, {"weight_map", Json::object()}};
    for (const TensorEntry& entry : file.tensors()) {
      const size_t shard = index["weight_map"].size() % 2;
      index["weight_map"][entry.name] = shard == 0 ? "a.safetensors" : "b.safetensors";
      shards[shard].push_back({entry.name, entry.view.dtype, entry.view.shape,
                               std::string(reinterpret_cast<const char*>(entry.view.data),
                                           static_cast<size_t>(entry.view.bytes()))});
    }
    Write("a.safetensors", SafetensorsBytes(shards[0]));
    Write("b.safetensors", SafetensorsBytes(shards[1]));
    Write("model.safetensors.index.json", index.dump());
    fs::remove(folder_ / "model.safetensors");
    EXPECT_EQ(RunHostile(ModelCommands()[3], "sharded"), 0) << last_error_;
  }

  TempFolder folder_, work_;
  int runs_ = 0, refused_ = 0;
  std::string last_error_;
};

TEST_F(HostileTest, TruncatedWeights) { RunTruncated("model.safetensors", ModelCommands()); }
TEST_F(HostileTest, TruncatedWeightsCompared) {
  RunTruncated("model.safetensors", WeightCommands());
}
TEST_F(HostileTest, TruncatedConfig) { RunTruncated("config.json", ModelCommands()); }
TEST_F(HostileTest, TruncatedTokenizer) { RunTruncated("tokenizer.json", {TextCommand()}); }
TEST_F(HostileTest, TruncatedTrace) { RunTruncated("trace.safetensors", TraceCommands()); }
TEST_F(HostileTest, TruncatedIndex) {
  Shard();
  RunTruncated("model.safetensors.index.json", ModelCommands());
}
TEST_F(HostileTest, TruncatedShard) {
  Shard();
  RunTruncated("b.safetensors", ModelCommands());
}

TEST_F(HostileTest, RandomWeights) { RunRandom("model.safetensors", ModelCommands()); }
TEST_F(HostileTest, RandomConfig) { RunRandom("config.json", ModelCommands()); }
TEST_F(HostileTest, RandomTokenizer) { RunRandom("tokenizer.json", {TextCommand()}); }
TEST_F(HostileTest, RandomTrace) { RunRandom("trace.safetensors", TraceCommands()); }

TEST_F(HostileTest, EditedWeights) {
  RunDamaged("model.safetensors", ModelCommands(), kEdits, EditSafetensors);
}
TEST_F(HostileTest, EditedWeightsCompared) {
  RunDamaged("model.safetensors", WeightCommands(), kEdits, EditSafetensors);
}
TEST_F(HostileTest, EditedConfig) { RunDamaged("config.json", ModelCommands(), kEdits, EditText); }
TEST_F(HostileTest, EditedTrace) {
  RunDamaged("trace.safetensors", TraceCommands(), kEdits, EditSafetensors);
}
TEST_F(HostileTest, EditedTokenizer) {
  // Most edits of a vocabulary leave a tokenizer, so half of these aim at what stands around it.
  const std::string good = Read("tokenizer.json");
  std::mt19937 random(3);
  for (int i = 0; i < kEdits; ++i) {
    std::string text = good;
    if (i % 2 == 0) {
      text = EditText(good.substr(0, 1500), random) + good.substr(1500);
    } else {
      text = EditText(good, random);
    }
    Write("tokenizer.json", text);
    RunHostile(TextCommand(), fmt::format("tokenizer.json, damage {}", i));
  }
  EXPECT_GT(refused_, runs_ / 4);
}
TEST_F(HostileTest, ChatFiles) {
  RunTruncated("chat.json", {ChatCommands()[0], ChatCommands()[2]});
  RunRandom("chat.json", {ChatCommands()[0], ChatCommands()[2]});
  RunDamaged("chat.json", {ChatCommands()[0]}, kEdits, EditText);
}
TEST_F(HostileTest, GenerationConfig) {
  const std::vector<Arguments> commands = {ChatCommands()[1], ChatCommands()[2]};
  RunTruncated("generation_config.json", commands);
  RunRandom("generation_config.json", commands);
  RunDamaged("generation_config.json", commands, kEdits, EditText);
}
TEST_F(HostileTest, TokenizerConfig) {
  RunTruncated("tokenizer_config.json", ChatCommands());
  RunRandom("tokenizer_config.json", ChatCommands());
}
// A template may be any text, so that nothing need be refused here.
TEST_F(HostileTest, ChatTemplates) {
  const Json config = ParseJson(Read("tokenizer_config.json"), "tokenizer_config.json");
  const auto chat_template = config["chat_template"].get<std::string>();
  std::mt19937 random(11);
  for (int i = 0; i < kEdits; ++i) {
    Write("chat_template.jinja",
          i % 6 == 5 ? RandomBytes(random) : EditText(chat_template, random));
    RunHostile(ChatCommands()[static_cast<size_t>(i) % 3], fmt::format("template, damage {}", i));
  }
  EXPECT_GT(refused_, 0);
}

TEST_F(HostileTest, EditedIndex) {
  Shard();
  RunDamaged("model.safetensors.index.json", ModelCommands(), kEdits, EditText);
}

// Values, not structure: whatever the numbers are, there is an answer.
TEST_F(HostileTest, RandomValuesOfWeightsAndTraces) {
  for (const char* name : {"model.safetensors", "trace.safetensors"}) {
    const std::string good = Read(name);
    uint64_t header = 0;
    std::memcpy(&header, good.data(), 8);
    std::mt19937 random(5);
    auto commands = std::string(name) == "model.safetensors" ? ModelCommands() : TraceCommands();
    if (std::string(name) == "model.safetensors") {
      for (const Arguments& command : WeightCommands()) commands.push_back(command);
    }
    for (size_t i = 0; i < 3 * commands.size(); ++i) {
      std::string bytes = good;
      for (size_t at = 8 + header; at < bytes.size(); ++at) {
        // everything; now and then a value; all ones, which are NaN
        if (i % 3 == 0 || (i % 3 == 1 && random() % 50 == 0)) {
          bytes[at] = static_cast<char>(random() & 0xffU);
        }
        if (i % 3 == 2) bytes[at] = '\xff';
      }
      Write(name, bytes);
      RunHostile(commands[i % commands.size()], fmt::format("values of {}, {}", name, i));
    }
    Write(name, good);
  }
}

TEST_F(HostileTest, WhatIsNoFile) {
  for (const char* name : {"model.safetensors", "config.json", "trace.safetensors"}) {
    const std::string path = folder_ / name, good = Read(name);
    const Arguments command = ModelCommands()[3];
    fs::remove(path);
    ExpectRefused(command, "missing", name);
    fs::create_directory(path);
    ExpectRefused(command, "a folder", name);
    fs::remove(path);
    ASSERT_EQ(mkfifo(path.c_str(), 0600), 0);  // nobody will ever write into it
    ExpectRefused(command, "a pipe", name);
    fs::remove(path);
    fs::create_symlink(path, path);
    ExpectRefused(command, "a link to itself", name);
    fs::remove(path);
    fs::create_symlink("/dev/zero", path);
    ExpectRefused(command, "a device without end", name);
    fs::remove(path);
    Write(name, good);
  }
  EXPECT_EQ(RunHostile(ModelCommands()[3], "all back"), 0) << last_error_;
}

// Small files must not make large answers or large tables.
TEST_F(HostileTest, SmallFilesStaySmall) {
  std::vector<TensorSpec> tensors;
  tensors.reserve(2001);
  for (int i = 0; i < 2000; ++i) tensors.push_back({fmt::format("t{}", i), DType::kF32, {0}});
  tensors.push_back({std::string(100'000, 'n'), DType::kF32, {0}});
  const Json metadata = {
      {"format", "samebits-trace-1"}, {"input_ids", "[1, 2, 3]"}, {"dtype", "bfloat16"}};
  Write("trace.safetensors", SafetensorsBytes(tensors, metadata));
  for (const Arguments& command : TraceCommands()) {
    RunHostile(command, "many names, one of them long");
    EXPECT_LT(fs::file_size(work_ / "stdout"), 2'000'000U) << command[0];
  }
  EXPECT_EQ(RunHostile({"inspect", trace()}, "many names"), 0);

  std::string ids = "[1";
  for (int i = 1; i < 300'000; ++i) ids += ",1";
  Write("trace.safetensors",
        SafetensorsBytes(
            {}, {{"format", "samebits-trace-1"}, {"input_ids", ids + "]"}, {"dtype", "bfloat16"}}));
  EXPECT_EQ(RunHostile({"check", model(), trace(), "--threads", "1"}, "many ids, no tensor"), 2);
}

TEST_F(HostileTest, NamesDoNotReachTheTerminalAsTheyAre) {
  const Json metadata = {{"format", "samebits-trace-1"},
                         {"input_ids", "[1, 2, 3]"},
                         {"dtype", "bfloat16"},
                         {"\x1b]0;key\x07", "\x1b[2J"}};
  Write("trace.safetensors", SafetensorsBytes({{"\x1b[31mred", DType::kF32, {1}}}, metadata));
  for (const Arguments& command : TraceCommands()) {
    const Ended ended = Samebits(command);
    EXPECT_THAT(ended.out + ended.err, Not(HasSubstr("\x1b"))) << command[0];
    EXPECT_THAT(ended.out + ended.err, Not(HasSubstr("\x07"))) << command[0];
  }
}

}  // namespace
}  // namespace samebits
