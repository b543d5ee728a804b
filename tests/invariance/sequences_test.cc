// Sequences: errors, what a failed call leaves, recorders that want little, prompts whose length
// matters, and the memory of long prompts.
#include <gtest/gtest.h>

#include <fstream>
#include <functional>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>

#include "samebits/base/error.h"
#include "tests/invariance/fixtures.h"
#include "tests/invariance/runs.h"

namespace samebits {
namespace {

const CheckpointSpec kSpec{.stored = DType::kBF16, .tied = true, .seed = 1};

std::string ErrorOf(const std::function<void()>& fn) {
  try {
    fn();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUsage);
    return error.what();
  }
  return "no error";
}

TEST(RuntimeErrors, IdsAndContext) {
  const Opened opened(kSpec);
  Runtime runtime(opened.graph, opened.checkpoint, {.isa = BestIsa()});
  Sequence sequence = runtime.NewSequence();
  const auto forward = [&](std::vector<int64_t> ids) {
    return ErrorOf([&] { runtime.Forward(sequence, ids); });
  };
  EXPECT_EQ(forward({}), "no token ids: at least one is needed");
  EXPECT_EQ(forward({1, 131}), "token id 131: expected 0 to 130 (vocab_size - 1)");
  EXPECT_EQ(forward({-1}), "token id -1: expected 0 to 130 (vocab_size - 1)");
  EXPECT_EQ(sequence.length(), 0);
  EXPECT_EQ(forward(std::vector<int64_t>(1025, 3)),
            "1025 tokens: the model's context ends at 1024 (max_position_embeddings)");
  EXPECT_EQ(forward(std::vector<int64_t>(1024, 3)), "no error");
  EXPECT_EQ(forward({3}),
            "1025 tokens: the model's context ends at 1024 (max_position_embeddings)");
  EXPECT_EQ(sequence.length(), 1024);
}

// One part of a batch that can not be read: nothing of the others is.
TEST(RuntimeErrors, OnePartOfABatch) {
  const Opened opened(kSpec);
  Runtime runtime(opened.graph, opened.checkpoint, {.isa = BestIsa()});
  Sequence a = runtime.NewSequence(), b = runtime.NewSequence();
  const std::vector<int64_t> good = {1, 2, 3}, bad = {1, 131};
  const std::vector<Part> parts = {{&a, good}, {&b, bad}};
  EXPECT_EQ(ErrorOf([&] { runtime.Forward(parts); }),
            "token id 131: expected 0 to 130 (vocab_size - 1)");
  EXPECT_EQ(a.length(), 0);
  EXPECT_EQ(b.length(), 0);
}

// A recorder that fails in the middle, as a full disk does: the sequence is what it was.
TEST(Sequences, AfterAFailedCall) {
  class Failing : public Recorder {
   public:
    void Record(std::string_view name, const TensorView&, int64_t) override {
      if (name == "model.layers.1.self_attn.context") throw std::runtime_error("full");
    }
  };
  const Opened opened(kSpec);
  const std::vector<int64_t> prompt = Prompt(9, 131), more = {7, 8};
  Runtime runtime(opened.graph, opened.checkpoint, {DType::kBF16, BestIsa(), 2});
  Sequence clean = runtime.NewSequence(), failed = runtime.NewSequence();
  runtime.Forward(clean, prompt);
  runtime.Forward(failed, prompt);
  Failing recorder;
  EXPECT_THROW(runtime.Forward(failed, Prompt(5, 131, 1), &recorder), std::runtime_error);
  EXPECT_EQ(failed.length(), 9);
  const TensorView expected = runtime.Forward(clean, more);
  const std::vector<std::byte> bytes(expected.data, expected.data + expected.bytes());
  const TensorView& actual = runtime.Forward(failed, more);
  EXPECT_BITS_EQ(DType::kBF16, bytes.data(), actual.data, actual.elements());
}

// What nobody wants is not handed out, and what is wanted has the same bits.
TEST(Sequences, ARecorderGetsWhatItWants) {
  class Choosy : public MemoryRecorder {
   public:
    using MemoryRecorder::MemoryRecorder;
    bool Wants(std::string_view name) const override {
      return name.ends_with(".probs") || name == "lm_head";
    }
    void Record(std::string_view name, const TensorView& rows, int64_t first_token) override {
      seen.insert(std::string(name));
      MemoryRecorder::Record(name, rows, first_token);
    }
    std::set<std::string> seen;
  };
  const Opened opened(kSpec);
  const std::vector<int64_t> prompt = Prompt(21, 131);
  const Outcome all = RunWay(opened.In(DType::kBF16), {BestIsa(), 2, 5}, prompt, 0, true);
  Runtime runtime(opened.graph, opened.checkpoint, {DType::kBF16, BestIsa(), 3});
  Sequence sequence = runtime.NewSequence();
  Choosy recorder(opened.graph, DType::kBF16, 21);
  runtime.Forward(sequence, prompt, &recorder);
  EXPECT_EQ(recorder.seen, (std::set<std::string>{"lm_head", "model.layers.0.self_attn.probs",
                                                  "model.layers.1.self_attn.probs"}));
  const auto tensors = std::move(recorder).Take();
  for (const char* name : {"lm_head", "model.layers.1.self_attn.probs"}) {
    const Tensor& expected = all.tensors.at(name);
    EXPECT_BITS_EQ(DType::kBF16, expected.data(), tensors.at(name).data(), expected.elements());
  }
}

// Dynamic rotary embeddings depend on how long the prompt is, but not on its chunks.
TEST(Sequences, DynamicRopeNeedsThePlan) {
  const CheckpointSpec spec{.model_type = "llama",
                            .stored = DType::kF32,
                            .max_position_embeddings = 32,
                            .rope_scaling = R"({"rope_type": "dynamic", "factor": 4.0})",
                            .seed = 8};
  const Opened opened(spec);
  const std::vector<int64_t> prompt = Prompt(50, 131);
  const Outcome once = RunWay(opened.In(DType::kF32), {BestIsa(), 1}, prompt, 5, true);
  for (int64_t chunk : {1, 7, 33}) {
    const Outcome cut = RunWay(opened.In(DType::kF32), {BestIsa(), 2, chunk}, prompt, 5, true);
    EXPECT_GT(ExpectSameTensors(once, cut), 0);
    EXPECT_EQ(once.greedy, cut.greedy);
  }
  // A prompt that is longer gives the first token other cosines: the length matters.
  const Outcome longer = RunWay(opened.In(DType::kF32), {BestIsa(), 1}, Prompt(55, 131), 0, true);
  const Tensor &a = once.tensors.at("model.rotary.cos"), &b = longer.tensors.at("model.rotary.cos");
  EXPECT_FALSE(BitsEqual(DType::kF32, a.data() + 40 * 12 * 4, b.data() + 40 * 12 * 4, 12));
  // So nothing of it is kept for another prompt, while a short one is.
  Runtime runtime(opened.graph, opened.checkpoint, {DType::kF32, BestIsa(), 1});
  Sequence sequence = runtime.NewSequence();
  runtime.Forward(sequence, std::span(prompt).first(20));
  sequence.Truncate(11);
  sequence.Plan(30);
  EXPECT_EQ(sequence.length(), 11);
  sequence.Plan(40);
  EXPECT_EQ(sequence.length(), 0);
}

// Largest resident memory in bytes since the last reset; -1 where /proc does not say.
int64_t PeakMemory(bool reset) {
  if (reset && !(std::ofstream("/proc/self/clear_refs") << "5" << std::flush)) return -1;
  std::ifstream file("/proc/self/status");
  std::string line;
  while (std::getline(file, line)) {
    if (line.starts_with("VmHWM:")) return std::stoll(line.substr(6)) << 10;
  }
  return -1;
}

// Scores of 4096 tokens and 6 heads are 201 MB in bfloat16, and as much again as probs. What is
// needed: activations of at most 4096 x 131 values each in some ten slots (1 MB each), keys and
// values (2 layers, 2 x 4096 x 24 values, while they grow twice that: 2 MB), and for each thread a
// tile of 8 queries x 4096 keys x 6 bytes (0.2 MB). 32 MB leave room for the allocator, and none
// for scores of 4096 x 4096 of a single head (34 MB).
TEST(LongPrompts, ScoresAreNeverHeldWhole) {
#if defined(__SANITIZE_ADDRESS__)
  GTEST_SKIP() << "the sanitizer keeps memory that was freed";
#endif
  CheckpointSpec spec = kSpec;
  spec.max_position_embeddings = 4096;
  const Opened opened(spec);
  const std::vector<int64_t> prompt = Prompt(4096, 131);
  Runtime runtime(opened.graph, opened.checkpoint, {DType::kBF16, BestIsa(), 2});
  Sequence sequence = runtime.NewSequence();
  const int64_t before = PeakMemory(true);
  if (before < 0) GTEST_SKIP() << "/proc/self/clear_refs can not be written";
  runtime.Forward(sequence, prompt);  // in one piece
  const int64_t grown = PeakMemory(false) - before;
  EXPECT_EQ(sequence.length(), 4096);
  EXPECT_GT(grown, 0);
  EXPECT_LT(grown, int64_t{32} << 20);
  fmt::print("4096 tokens in one piece: {:.1f} MB beside the weights\n",
             static_cast<double>(grown) / 1e6);
}

}  // namespace
}  // namespace samebits
