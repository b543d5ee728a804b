// Are the judge's intervals sound? Outcomes of legitimate implementations, in every order that the
// interpreter of orders knows, in random trees, fused or not, on ordinary, cancelling, widely
// spread and adversarial data, in float32, bfloat16 and float16 and up to 18944 terms: none may
// fall outside. SAMEBITS_SOUNDNESS=N runs N outcomes of sums (a million otherwise).
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <random>
#include <thread>
#include <vector>

#include "samebits/numerics/bounds.h"
#include "samebits/numerics/exact.h"
#include "samebits/numerics/sum_order.h"
#include "samebits/numerics/tail.h"
#include "samebits/tensor/convert.h"

namespace samebits {
namespace {

using Floats = std::vector<float>;
using Random = std::mt19937_64;

int64_t Outcomes() {
  const char* asked = std::getenv("SAMEBITS_SOUNDNESS");
  return asked == nullptr ? 1'000'000 : std::strtoll(asked, nullptr, 10);
}

int64_t RandomSize(Random& random) {
  const uint64_t r = random() % 10000;
  if (r < 9000) return 1 + static_cast<int64_t>(random() % 64);
  if (r < 9960) return 64 + static_cast<int64_t>(random() % 960);
  if (r < 9995) return 1024 + static_cast<int64_t>(random() % 4000);
  static constexpr int64_t kModels[] = {4864, 8960, 14336, 18944};
  return kModels[random() % 4];
}

// Each step of one chain meets an error of nearly half a step in the same direction: one term is
// large, the others are just above half of a step of the sum.
void FillAdversarial(DType dtype, Random& random, Floats& x, Floats& w) {
  const bool up = random() % 2 == 0;
  float sum = 0;
  for (size_t k = 0; k < x.size(); ++k) {
    x[k] = 1;
    if (k == 0) {
      w[k] = 1;
    } else {
      const double half = HalfUlp(sum, DType::kF32);
      const double share = (up ? 1 : -1) * 0x1p-6 + 1;
      w[k] = static_cast<float>(
          RoundToDType(half * share, dtype == DType::kF16 ? DType::kBF16 : dtype));
    }
    sum += w[k];
  }
}

void Fill(DType dtype, Random& random, Floats& x, Floats& w) {
  const uint64_t kind = random() % 5;
  if (kind == 4 && dtype != DType::kF16) return FillAdversarial(dtype, random, x, w);
  std::normal_distribution<double> normal;
  for (size_t k = 0; k < x.size(); ++k) {
    const double spread =
        kind == 2 ? std::exp((dtype == DType::kF16 ? 1 : 3) * normal(random)) : 1.0;
    x[k] = static_cast<float>(RoundToDType(normal(random) * spread, dtype));
    w[k] = static_cast<float>(RoundToDType(normal(random), dtype));
    if (kind == 3) {
      x[k] = std::fabs(x[k]);
      w[k] = std::fabs(w[k]);
    }
    if (kind == 1 && k % 2 == 1) {
      x[k] = x[k - 1];
      w[k] = -w[k - 1];
    }
  }
  if (kind != 1) return;
  for (size_t k = x.size() - 1; k > 0; --k) {  // partners far apart
    const size_t other = random() % (k + 1);
    std::swap(x[k], x[other]);
    std::swap(w[k], w[other]);
  }
}

ProductKind RandomProduct(Random& random) {
  return random() % 2 == 0 ? ProductKind::kFused : ProductKind::kRounded;
}

SumOrder RandomTree(int64_t size, Random& random) {
  TreeOrder order;
  order.product = RandomProduct(random);
  // Postfix of a random binary tree over a random permutation.
  std::vector<int32_t> leaves(static_cast<size_t>(size));
  for (size_t k = 0; k < leaves.size(); ++k) leaves[k] = static_cast<int32_t>(k);
  std::shuffle(leaves.begin(), leaves.end(), random);
  int64_t open = 0;
  for (size_t next = 0; next < leaves.size() || open > 1;) {
    if (next < leaves.size() && (open < 2 || random() % 2 == 0)) {
      order.postfix.push_back(leaves[next++]);
      ++open;
    } else {
      order.postfix.push_back(kJoin);
      --open;
    }
  }
  return order;
}

SumOrder RandomChain(Random& random) {
  ChainOrder order;
  static constexpr int64_t kBlocks[] = {0, 64, 192, 384, 512};
  order.block = kBlocks[random() % 5];
  order.product = RandomProduct(random);
  order.start_in_chain = order.block == 0 && random() % 2 == 0;
  switch (random() % 5) {
    case 0:
      order.group = {{1}, {0}};  // VDPBF16PS
      break;
    case 1:
      order.group = {{0, 2, kJoin, 1, 3, kJoin, kJoin}};
      break;
    case 2:
      if (!order.start_in_chain) order.tile = 32;  // AMX
      break;
    case 3:
      if (order.block != 0) {
        order.halve_below = 2 * order.block;
        order.halve = Halving::kUp;
      }
      break;
    default:
      break;
  }
  return order;
}

SumOrder RandomLanes(Random& random) {
  LaneOrder order;
  order.product = RandomProduct(random);
  order.tail_product = RandomProduct(random);
  order.tail = random() % 2 == 0 ? LaneTail::kSequence : LaneTail::kLane0;
  LaneStage stage;
  stage.lanes = 4 << random() % 3;
  stage.vectors = 1 << random() % 3;
  stage.accumulators = random() % 2 == 0 ? stage.vectors : 1;
  stage.join_lanes = random() % 2 == 0 ? Joining::kHalves : Joining::kSequence;
  order.stages = {stage};
  return order;
}

SumOrder RandomOrder(int64_t size, Random& random) {
  const uint64_t kind = random() % 4;
  if (kind == 0 && size <= 1024) return RandomTree(size, random);
  return kind <= 1 ? RandomChain(random) : RandomLanes(random);
}

struct Count {
  int64_t outcomes = 0, outside = 0, likely_outside = 0;
  double closest = 0;  // of the bound
  std::string example;
};

// One product: its exact value, and what some orders make of it. What a legitimate implementation
// may give is judged before and behind the cast to the dtype.
void JudgeOne(DType dtype, Random& random, Count& count) {
  const int64_t size = RandomSize(random);
  Floats x(static_cast<size_t>(size)), w(x.size());
  Fill(dtype, random, x, w);
  const bool with_bias = random() % 3 == 0;
  const auto bias =
      with_bias
          ? static_cast<float>(RoundToDType(std::normal_distribution<double>(0, 3)(random), dtype))
          : 0.0F;
  double y = bias, magnitude = std::fabs(bias);
  for (size_t k = 0; k < x.size(); ++k) {
    const double product = static_cast<double>(x[k]) * w[k];
    y += product;
    magnitude += std::fabs(product);
  }
  const int64_t terms = size + 1 + (with_bias ? 1 : 0);
  const double bound = exact::SumBound(terms, magnitude);
  const double likely = bound * LikelyShare(static_cast<double>(terms));
  const int orders = size > 1000 ? 4 : 12;
  for (int i = 0; i < orders; ++i) {
    const SumOrder order = RandomOrder(size, random);
    const double outcome = Dot(order, size, x.data(), w.data(), with_bias, bias, 0);
    const double rounded = RoundToDType(outcome, dtype);
    const bool inside = std::fabs(outcome - y) <= bound + kTiny &&
                        rounded >= RoundToDType(y - bound, dtype) - kTiny &&
                        rounded <= RoundToDType(y + bound, dtype) + kTiny;
    ++count.outcomes;
    count.likely_outside += std::fabs(outcome - y) <= likely + kTiny ? 0 : 1;
    if (bound > 0) count.closest = std::max(count.closest, std::fabs(outcome - y) / bound);
    if (inside) continue;
    if (count.outside++ == 0) {
      count.example = fmt::format("{} terms in {}: {:.17g}, exact {:.17g}, bound {:.3g}", size,
                                  ModelDTypeName(dtype), outcome, y, bound);
    }
  }
}

TEST(Soundness, NoSumFallsOutside) {
  const int64_t wanted = Outcomes();
  const auto threads = std::max(1U, std::min(8U, std::thread::hardware_concurrency()));
  std::vector<Count> counts(threads);
  std::vector<std::thread> workers;
  for (unsigned t = 0; t < threads; ++t) {
    workers.emplace_back([&, t] {
      Random random(100 + t);
      while (counts[t].outcomes < wanted / threads + 1) {
        for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
          JudgeOne(dtype, random, counts[t]);
        }
      }
    });
  }
  for (std::thread& worker : workers) worker.join();
  Count all;
  for (const Count& count : counts) {
    all.outcomes += count.outcomes;
    all.outside += count.outside;
    all.likely_outside += count.likely_outside;
    all.closest = std::max(all.closest, count.closest);
    if (all.example.empty()) all.example = count.example;
  }
  fmt::print(
      "{} outcomes of fp32 sums: {} outside the proven interval, the closest at {:.2f} of its "
      "bound; {} outside the second tier, which is no proof\n",
      all.outcomes, all.outside, all.closest, all.likely_outside);
  EXPECT_EQ(all.outside, 0) << all.example;
  EXPECT_GE(all.outcomes, wanted);
  // The adversarial data come near: a bound of half the size would not have held.
  EXPECT_GT(all.closest, 0.5);
}

// RMSNorm and softmax in the forms that frameworks have, at random sizes.
TEST(Soundness, NoNormAndNoSoftmaxFallsOutside) {
  Random random(5);
  std::normal_distribution<double> normal;
  int64_t outcomes = 0, outside = 0;
  const int64_t rows = std::max<int64_t>(200, Outcomes() / 20'000);
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t size = 1 + static_cast<int64_t>(random() % 1500);
    const double scale = std::exp(3 * normal(random));
    Floats x;
    for (int64_t k = 0; k < size; ++k) x.push_back(static_cast<float>(normal(random) * scale));
    const std::vector<double> wide(x.begin(), x.end());
    std::vector<double> y(x.size()), bound(x.size());
    double relative = 0;
    exact::RmsNormRow(wide.data(), size, 1e-6, y.data(), &relative);
    const float sum = Dot(RandomOrder(size, random), size, x.data(), x.data(), false, 0, 0);
    const float mean = sum / static_cast<float>(size) + 1e-6F;
    const float root = std::sqrt(mean), reciprocal = 1.0F / root;
    for (size_t k = 0; k < x.size(); ++k) {
      for (const float outcome : {x[k] * reciprocal, x[k] / root}) {
        ++outcomes;
        outside += std::fabs(outcome - y[k]) <= relative * std::fabs(y[k]) + kTiny ? 0 : 1;
      }
    }
    const std::vector<uint8_t> visible(x.size(), 1);
    exact::SoftmaxRow(wide.data(), visible.data(), size, y.data(), bound.data());
    const float top = *std::max_element(x.begin(), x.end());
    Floats e(x.size()), ones(x.size(), 1.0F);
    for (size_t k = 0; k < x.size(); ++k) e[k] = std::exp(x[k] - top);
    const float total = Dot(RandomOrder(size, random), size, e.data(), ones.data(), false, 0, 0);
    for (size_t k = 0; k < x.size(); ++k) {
      for (const float outcome : {e[k] / total, e[k] * (1.0F / total)}) {
        ++outcomes;
        outside += std::fabs(outcome - y[k]) <= bound[k] ? 0 : 1;
      }
    }
  }
  fmt::print("{} outcomes of norms and softmaxes: {} outside\n", outcomes, outside);
  EXPECT_EQ(outside, 0);
}

}  // namespace
}  // namespace samebits
