// Controls: the comparisons of the invariance tests can fail, and canonical arithmetic is not just
// any arithmetic.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <set>

#include "samebits/tensor/bits_testing.h"
#include "tests/invariance/fixtures.h"
#include "tests/invariance/runs.h"

namespace samebits {
namespace {

const CheckpointSpec kSpec{.stored = DType::kBF16, .tied = true, .seed = 1};
const CheckpointSpec kF32{.stored = DType::kF32, .seed = 2};
const CheckpointSpec kLlama{.model_type = "llama", .stored = DType::kBF16, .seed = 4};

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
  const Opened opened(kSpec);
  std::vector<int64_t> prompt = Prompt(12, 131);
  const auto run = [&] { return RunWay(opened.In(DType::kBF16), {}, prompt, 0, true); };
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
  const Opened opened(kF32);
  const Outcome outcome = RunWay(opened.In(DType::kF32), {}, Prompt(23, 131), 0, true);
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
  const Opened opened(kLlama);
  const auto run = [&] { return RunWay(opened.In(DType::kF16), {}, Prompt(9, 131), 0, true); };
  const Outcome first = run();
  Outcome second = run();
  const int64_t compared = ExpectSameTensors(first, second);
  EXPECT_GT(compared, 10000);
  Tensor& probs = second.tensors.at("model.layers.1.self_attn.probs");
  probs.as<uint16_t>()[9 * 9 * 3 + 9 * 4 + 2] ^= 1;
  int64_t differing = 0;
  for (const auto& [name, tensor] : first.tensors) {
    ForVisible(name, tensor, 0, [&, &name = name, &tensor = tensor](int64_t offset, int64_t count) {
      const auto* a = tensor.as<uint16_t>() + offset;
      const auto* b = second.tensors.at(name).as<uint16_t>() + offset;
      if (!BitsEqual(DType::kF16, a, b, count)) ++differing;
    });
  }
  EXPECT_EQ(differing, 1);
}

}  // namespace
}  // namespace samebits
