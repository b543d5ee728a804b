// The promise of canonical arithmetic: every tensor, every logit and every chosen token has the
// same bits whatever the threads, the chunks of the prompt and the instruction set, recorded or
// not, read at once or token by token. Controls show that the comparison can fail.
// Each test prints a row of the table in docs/invariance.md.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>

#include "samebits/base/error.h"
#include "samebits/engine/sampler.h"
#include "samebits/tensor/bits_testing.h"
#include "tests/invariance/random_checkpoint.h"
#include "tests/invariance/runs.h"

namespace samebits {
namespace {

constexpr Isa kIsas[] = {Isa::kPortable, Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Bf16};
constexpr int kThreads[] = {1, 2, 3, 7};
constexpr DType kDTypes[] = {DType::kF32, DType::kBF16, DType::kF16};
constexpr int64_t kSteps = 6;

std::vector<Isa> SupportedIsas() {
  std::vector<Isa> isas;
  for (Isa isa : kIsas) {
    if (IsaSupported(isa)) isas.push_back(isa);
  }
  return isas;
}

struct Model {
  const char* name;
  CheckpointSpec spec;
};

const Model kModels[] = {
    {"qwen2_bf16_tied", {.stored = DType::kBF16, .tied = true, .seed = 1}},
    {"qwen2_f32", {.stored = DType::kF32, .seed = 2}},
    // Rows of 1537 values: elementwise work is split, and sums of an odd length.
    {"qwen2_f16_wide",
     {.stored = DType::kF16, .num_hidden_layers = 1, .intermediate_size = 1537, .seed = 3}},
    {"llama_bf16", {.model_type = "llama", .stored = DType::kBF16, .seed = 4}},
    {"llama_f32", {.model_type = "llama", .stored = DType::kF32, .seed = 5}},
};

std::vector<int64_t> Prompt(int64_t tokens, int64_t vocab_size) {
  std::vector<int64_t> ids;
  for (int64_t i = 0; i < tokens; ++i) ids.push_back((i * i * 7 + 13 * i + 5) % vocab_size);
  return ids;
}

// A checkpoint on disk, opened.
struct Opened {
  explicit Opened(const CheckpointSpec& spec)
      : checkpoint((WriteRandomCheckpoint(spec, folder.path()), Checkpoint::Open(folder.path()))),
        graph(BuildGraph(checkpoint.config())) {}
  TemporaryFolder folder;
  Checkpoint checkpoint;
  Graph graph;
};

int64_t ExpectSameTensors(const Outcome& expected, const Outcome& actual) {
  int64_t compared = 0;
  EXPECT_EQ(expected.tensors.size(), actual.tensors.size());
  for (const auto& [name, tensor] : expected.tensors) {
    const Tensor& other = actual.tensors.at(name);
    const int64_t size = DTypeSize(tensor.dtype());
    EXPECT_EQ(tensor.shape(), other.shape()) << name;
    ForVisible(name, tensor, [&, &name = name, &tensor = tensor](int64_t offset, int64_t count) {
      EXPECT_BITS_EQ(tensor.dtype(), tensor.data() + offset * size, other.data() + offset * size,
                     count)
          << name << " from element " << offset;
      compared += count;
    });
  }
  return compared;
}

using LogitsList = std::vector<std::vector<std::byte>>;

int64_t ExpectSameLogits(const LogitsList& expected, const LogitsList& actual, DType dtype) {
  int64_t compared = 0;
  EXPECT_EQ(expected.size(), actual.size());
  for (size_t i = 0; i < std::min(expected.size(), actual.size()); ++i) {
    EXPECT_EQ(expected[i].size(), actual[i].size());
    const auto count = static_cast<int64_t>(expected[i].size()) / DTypeSize(dtype);
    EXPECT_BITS_EQ(dtype, expected[i].data(), actual[i].data(), count)
        << "logits behind step " << i;
    compared += count;
  }
  return compared;
}

void PrintRow(const std::string& model, DType dtype, int64_t tokens, int64_t runs,
              int64_t compared) {
  fmt::print("| {} | {} | {} | {} | {} | {} |\n", model, ModelDTypeName(dtype), tokens, runs,
             compared, testing::Test::HasFailure() ? "SOME" : "0");
}

class Invariance : public testing::TestWithParam<std::tuple<int, DType>> {
 protected:
  const Model& model() const { return kModels[std::get<0>(GetParam())]; }
  DType dtype() const { return std::get<1>(GetParam()); }
};

TEST_P(Invariance, ThreadsChunksInstructionSetsRecording) {
  const Opened opened(model().spec);
  const std::vector<int64_t> prompt = Prompt(23, model().spec.vocab_size);
  const auto run = [&](const Way& way, bool record) {
    return RunWay(opened.graph, opened.checkpoint, dtype(), way, prompt, kSteps, record);
  };
  Outcome reference = run({}, true);
  const Outcome silent_reference = run({}, false);
  EXPECT_EQ(silent_reference.greedy, reference.greedy);
  reference.sampled = silent_reference.sampled;
  reference.sampled_logits = silent_reference.sampled_logits;
  EXPECT_EQ(reference.sampled.size(), static_cast<size_t>(kSteps));
  EXPECT_NE(reference.sampled, reference.greedy);
  for (const auto& [name, tensor] : reference.tensors) {  // numbers, not all the same
    if (name.ends_with(".scores")) continue;              // hidden places hold anything
    std::set<double> different;
    for (double value : ToDoubles(tensor.view())) {
      ASSERT_TRUE(std::isfinite(value)) << name;
      different.insert(value);
    }
    EXPECT_GT(different.size(), 10U) << name;
  }
  int64_t runs = 0, compared = 0;
  for (Isa isa : SupportedIsas()) {
    for (int threads : kThreads) {
      for (int64_t chunk : {1, 5, 1000}) {
        SCOPED_TRACE(fmt::format("{}, {} threads, chunks of {}", IsaName(isa), threads, chunk));
        const Outcome recorded = run({isa, threads, chunk}, true);
        compared += ExpectSameTensors(reference, recorded);
        compared += ExpectSameLogits(reference.logits, recorded.logits, dtype());
        EXPECT_EQ(reference.greedy, recorded.greedy);
        ++runs;
        if (chunk == 5) {
          const Outcome silent = run({isa, threads, chunk}, false);
          compared += ExpectSameLogits(reference.logits, silent.logits, dtype());
          compared += ExpectSameLogits(reference.sampled_logits, silent.sampled_logits, dtype());
          EXPECT_EQ(reference.greedy, silent.greedy);
          EXPECT_EQ(reference.sampled, silent.sampled);
          ++runs;
        }
        if (HasFailure()) return;
      }
    }
  }
  // What decoding computed with the cache is what reading all tokens at once gives.
  std::vector<int64_t> all = prompt;
  all.insert(all.end(), reference.greedy.begin(), reference.greedy.end());
  for (Isa isa : SupportedIsas()) {
    const Outcome once = RunWay(opened.graph, opened.checkpoint, dtype(), {isa, 2}, all, 0, true);
    compared += ExpectSameTensors(reference, once);
    ++runs;
  }
  PrintRow(model().name, dtype(), 23 + kSteps, runs, compared);
}

INSTANTIATE_TEST_SUITE_P(Models, Invariance,
                         testing::Combine(testing::Range(0, 5), testing::ValuesIn(kDTypes)),
                         [](const auto& it) {
                           return fmt::format("{}_in_{}", kModels[std::get<0>(it.param)].name,
                                              ModelDTypeName(std::get<1>(it.param)));
                         });

// Long enough that norms, rotations and attention are split between threads, too, and that the
// cache has grown several times.
class LongPrompt : public testing::TestWithParam<DType> {};

TEST_P(LongPrompt, ThreadsChunksInstructionSets) {
  const CheckpointSpec spec{.stored = DType::kBF16, .num_hidden_layers = 1, .seed = 6};
  const Opened opened(spec);
  constexpr int64_t kTokens = 601;
  const std::vector<int64_t> prompt = Prompt(kTokens, spec.vocab_size);
  const auto run = [&](const Way& way) {
    return RunWay(opened.graph, opened.checkpoint, GetParam(), way, prompt, 1, true);
  };
  const Outcome reference = run({BestIsa(), 1, 97});
  int64_t runs = 0, compared = 0;
  const auto compare = [&](const Way& way) {
    SCOPED_TRACE(
        fmt::format("{}, {} threads, chunks of {}", IsaName(way.isa), way.threads, way.chunk));
    const Outcome outcome = run(way);
    compared += ExpectSameTensors(reference, outcome);
    compared += ExpectSameLogits(reference.logits, outcome.logits, GetParam());
    EXPECT_EQ(reference.greedy, outcome.greedy);
    ++runs;
  };
  for (int threads : kThreads) compare({BestIsa(), threads, 1000});
  for (Isa isa : SupportedIsas()) compare({isa, 3, 500});
  PrintRow("qwen2_bf16_long", GetParam(), kTokens + 1, runs, compared);
}

INSTANTIATE_TEST_SUITE_P(DTypes, LongPrompt, testing::ValuesIn(kDTypes),
                         [](const auto& it) { return std::string(ModelDTypeName(it.param)); });

TEST(InstructionSets, AllOnThisCpu) {
  std::string missing;
  for (Isa isa : kIsas) {
    if (!IsaSupported(isa)) missing += fmt::format(" {}", IsaName(isa));
  }
  if (!missing.empty()) GTEST_SKIP() << "this CPU lacks" << missing << ": not compared";
}

// Controls -------------------------------------------------------------------------------------

// Rows of a tensor [T, ...] that are not bit-equal.
std::set<int64_t> DifferingRows(const Tensor& a, const Tensor& b) {
  const int64_t tokens = a.shape()[0], row = a.view().bytes() / tokens;
  std::set<int64_t> rows;
  for (int64_t t = 0; t < tokens; ++t) {
    if (std::memcmp(a.data() + t * row, b.data() + t * row, static_cast<size_t>(row)) != 0) {
      rows.insert(t);
    }
  }
  return rows;
}

TEST(Control, AnotherTokenChangesEveryTensorFromItsPlaceOn) {
  const Opened opened(kModels[0].spec);
  std::vector<int64_t> prompt = Prompt(12, 131);
  const auto run = [&] {
    return RunWay(opened.graph, opened.checkpoint, DType::kBF16, {}, prompt, 0, true);
  };
  const Outcome before = run();
  prompt[7] = (prompt[7] + 1) % 131;
  const Outcome after = run();
  int64_t compared = 0;
  for (const auto& [name, tensor] : before.tensors) {
    if (name.starts_with("model.rotary")) continue;                       // positions only
    if (name.ends_with(".scores") || name.ends_with(".probs")) continue;  // [H, T, S]
    const std::set<int64_t> rows = DifferingRows(tensor, after.tensors.at(name));
    EXPECT_TRUE(rows.contains(7)) << name;
    EXPECT_TRUE(rows.empty() || *rows.begin() == 7) << name << ": a row before the change differs";
    // Later tokens see it through attention, in all that the first layer's context goes into.
    if (name == "lm_head" || name == "model.layers.0") {
      EXPECT_EQ(rows, (std::set<int64_t>{7, 8, 9, 10, 11})) << name;
    }
    ++compared;
  }
  EXPECT_EQ(compared, 3 + 2 * 16);
  EXPECT_NE(before.logits, after.logits);
}

// Sums of q_proj in another order than the canonical one are not bit-equal: the promise is not
// kept by any arithmetic whatever. In the canonical order, written here once more, they are.
TEST(Control, APlainSumDiffers) {
  const Opened opened(kModels[1].spec);
  const Outcome outcome =
      RunWay(opened.graph, opened.checkpoint, DType::kF32, {}, Prompt(23, 131), 0, true);
  const std::string name = "model.layers.0.self_attn.q_proj";
  const float* x = outcome.tensors.at("model.layers.0.input_layernorm").as<float>();
  const auto* w = opened.checkpoint.Get(name + ".weight").as<float>();
  const auto* bias = opened.checkpoint.Get(name + ".bias").as<float>();
  std::vector<float> plain, lanes;
  for (int64_t t = 0; t < 23; ++t) {
    for (int64_t n = 0; n < 72; ++n) {
      float sum = 0, lane[16] = {};
      for (int64_t k = 0; k < 72; ++k) {
        sum = std::fma(x[t * 72 + k], w[n * 72 + k], sum);
        lane[k % 16] = std::fma(x[t * 72 + k], w[n * 72 + k], lane[k % 16]);
      }
      for (int d : {8, 4, 2, 1}) {
        for (int l = 0; l < d; ++l) lane[l] += lane[l + d];
      }
      plain.push_back(sum + bias[n]);
      lanes.push_back(lane[0] + bias[n]);
    }
  }
  const Tensor& recorded = outcome.tensors.at(name);
  EXPECT_BITS_EQ(DType::kF32, lanes.data(), recorded.data(), recorded.elements());
  EXPECT_FALSE(BitsEqual(DType::kF32, plain.data(), recorded.data(), recorded.elements()));
}

TEST(Control, OneBitInOneTensorIsSeen) {
  const Opened opened(kModels[3].spec);
  const auto run = [&] {
    return RunWay(opened.graph, opened.checkpoint, DType::kF16, {}, Prompt(9, 131), 0, true);
  };
  const Outcome first = run();
  Outcome second = run();
  const int64_t compared = ExpectSameTensors(first, second);
  EXPECT_GT(compared, 10000);
  Tensor& probs = second.tensors.at("model.layers.1.self_attn.probs");
  probs.as<uint16_t>()[9 * 9 * 3 + 9 * 4 + 2] ^= 1;
  int64_t differing = 0;
  for (const auto& [name, tensor] : first.tensors) {
    ForVisible(name, tensor, [&, &name = name, &tensor = tensor](int64_t offset, int64_t count) {
      const auto* a = tensor.as<uint16_t>() + offset;
      const auto* b = second.tensors.at(name).as<uint16_t>() + offset;
      if (!BitsEqual(DType::kF16, a, b, count)) ++differing;
    });
  }
  EXPECT_EQ(differing, 1);
}

// Errors of the runtime -------------------------------------------------------------------------

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
  const Opened opened(kModels[0].spec);
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

}  // namespace
}  // namespace samebits
