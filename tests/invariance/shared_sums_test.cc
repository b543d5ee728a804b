// The sums of a check, shared by ranks: bit for bit those of one process, for every way in which a
// weight is read, and for more ranks than rows.
#include "samebits/diagnose/shared_sums.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/invariance/fixtures.h"
#include "tests/invariance/local_ranks.h"

namespace samebits {
namespace {

// qwen2 layers: gate_proj [704, 84] and k_proj [6, 84].
CheckpointSpec Spec(DType stored, uint64_t seed) {
  return {.stored = stored,
          .num_hidden_layers = 1,
          .hidden_size = 84,
          .num_attention_heads = 14,
          .num_key_value_heads = 1,
          .head_dim = 6,
          .intermediate_size = 704,
          .seed = seed};
}

constexpr const char* kWide = "model.layers.0.mlp.gate_proj.weight";
constexpr const char* kNarrow = "model.layers.0.self_attn.k_proj.weight";

struct Sums {
  std::vector<double> x, y, magnitude;
  exact::DotArgs args{};
};

// NaN where a sum would go: what no rank computes is seen.
Sums MakeSums(const Checkpoint& checkpoint, const char* weight, int64_t rows, bool transposed) {
  Sums sums;
  exact::DotArgs& args = sums.args;
  args.w = checkpoint.Get(weight);
  args.dtype = DType::kF32;
  args.transposed = transposed;
  args.rows = rows;
  args.size = args.w.shape[transposed ? 0 : 1];
  args.outs = args.w.shape[transposed ? 1 : 0];
  for (int64_t i = 0; i < rows * args.size; ++i) {
    sums.x.push_back(std::sin(static_cast<double>(i)));
  }
  sums.y.assign(static_cast<size_t>(rows * args.outs), std::numeric_limits<double>::quiet_NaN());
  sums.magnitude = sums.y;
  args.x = sums.x.data();
  args.y = sums.y.data();
  args.magnitude = sums.magnitude.data();
  return sums;
}

int64_t Differing(const Sums& a, const Sums& b) {
  int64_t differing = 0;
  for (size_t i = 0; i < a.y.size(); ++i) {
    differing += a.y[i] == b.y[i] && a.magnitude[i] == b.magnitude[i] ? 0 : 1;
  }
  return differing;
}

// Rank 0 computes `sums` of `checkpoint` with others that have `theirs`.
void Share(int ranks, const Checkpoint& checkpoint, const Checkpoint& theirs, const char* weight,
           Sums& sums) {
  RunLocalRanks(ranks, [&](Communicator& own) {
    ThreadPool pool(2);
    SharedSums shared(own, own.rank() == 0 ? checkpoint : theirs);
    if (own.rank() != 0) return shared.Serve(pool);
    shared.Compute(weight, sums.args, pool);
    shared.End();
  });
}

TEST(SharedSums, AreThoseOfOneProcess) {
  int64_t compared = 0;
  ThreadPool pool(1);
  for (const DType stored : {DType::kF32, DType::kBF16}) {
    const Opened opened(Spec(stored, 4));
    for (const int ranks : {2, 3, 5, 9}) {
      for (int variant = 0; variant < 7; ++variant) {
        const char* weight = variant < 5 ? kWide : kNarrow;
        const int64_t rows = variant < 5 ? 37 : 2100;  // enough to be shared
        const auto make = [&] {
          Sums sums = MakeSums(opened.checkpoint, weight, rows, variant == 1);
          if (variant == 2) sums.args.through = DType::kF16;
          if (variant == 3) sums.args.products = exact::Products::kBf16x3;
          if (variant == 4) sums.args.dtype = DType::kBF16;
          sums.args.truncate = variant == 4;
          return sums;
        };
        Sums one = make(), many = make();
        ComputeSums(one.args, {0, one.args.outs}, pool);
        Share(ranks, opened.checkpoint, opened.checkpoint, weight, many);
        EXPECT_EQ(Differing(one, many), 0) << ranks << " ranks, variant " << variant;
        compared += static_cast<int64_t>(one.y.size());
      }
    }
  }
  EXPECT_GT(compared, 500000);
  fmt::print("{} sums compared\n", compared);
}

// Sums that differ when all ranks but rank 0 have other weights.
int64_t DifferingWithOtherWeights(int ranks, const char* weight, int64_t rows) {
  const Opened opened(Spec(DType::kF32, 4)), other(Spec(DType::kF32, 5));
  ThreadPool pool(1);
  Sums one = MakeSums(opened.checkpoint, weight, rows, false);
  Sums many = MakeSums(opened.checkpoint, weight, rows, false);
  ComputeSums(one.args, {0, one.args.outs}, pool);
  Share(ranks, opened.checkpoint, other.checkpoint, weight, many);
  return Differing(one, many);
}

// The comparison must be able to fail: with other weights all that the others computed is wrong.
TEST(SharedSums, AWrongShareIsSeen) {
  EXPECT_EQ(DifferingWithOtherWeights(4, kWide, 37), 37 * 704 * 3 / 4);
}

// Too small to be worth an exchange: none of the others' weights is used.
TEST(SharedSums, SmallOnesStay) { EXPECT_EQ(DifferingWithOtherWeights(2, kNarrow, 3), 0); }

}  // namespace
}  // namespace samebits
