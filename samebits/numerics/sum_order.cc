#include "samebits/numerics/sum_order.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "samebits/base/error.h"
#include "samebits/numerics/flush.h"

namespace samebits {
namespace {

// LaneStage's limits, also those of the reader.
constexpr int64_t kMaxLanes = 64, kMaxAccumulators = 64;

float Joined(ProductKind kind, float x, float w, float sum) {
  return kind == ProductKind::kFused ? std::fma(x, w, sum) : sum + x * w;
}

// One step of a group, whose elements are x[0], x[1], ...
float Step(const std::vector<int32_t>& step, ProductKind kind, const float* x, const float* w,
           float sum) {
  if (step.size() == 1) return Joined(kind, x[step[0]], w[step[0]], sum);
  std::array<float, 32> stack{};
  size_t depth = 0;
  for (int32_t item : step) {
    if (item == kJoin) {
      --depth;
      stack.at(depth - 1) = stack.at(depth - 1) + stack.at(depth);
    } else {
      stack.at(depth++) = x[item] * w[item];
    }
  }
  return sum + stack[0];
}

int64_t GroupSize(const ChainOrder& order) {
  int64_t size = 0;
  for (const auto& step : order.group) size += std::ssize(step) / 2 + 1;
  return std::max<int64_t>(size, 1);
}

// The sum s after all tiles of a block.
float Tiles(const ChainOrder& order, int64_t size, const float* x, const float* w, float s) {
  for (int64_t begin = 0; begin < size; begin += order.tile) {
    const int64_t end = std::min(begin + order.tile, size);
    std::array<float, 2> sums{};
    for (int64_t k = begin; k < end; ++k) {
      float& sum = sums.at((k - begin) % 2);
      sum = Joined(order.product, x[k], w[k], sum);
    }
    s = s + (sums[0] + sums[1]);
  }
  return s;
}

// One chain over size elements, from s. Not inlined: the flush mode is set around it.
__attribute__((noinline)) float ChainBlock(const ChainOrder& order, int64_t size, const float* x,
                                           const float* w, float s) {
  if (order.tile > 0) return Tiles(order, size, x, w, s);
  const int64_t group = GroupSize(order);
  int64_t k = 0;
  if (!order.group.empty()) {
    for (; k + group <= size; k += group) {
      for (const auto& step : order.group) s = Step(step, order.product, x + k, w + k, s);
    }
  }
  if (order.tail_descending) {
    for (int64_t j = size - 1; j >= k; --j) s = Joined(order.product, x[j], w[j], s);
  } else {
    for (; k < size; ++k) s = Joined(order.product, x[k], w[k], s);
  }
  return s;
}

float DotChain(const ChainOrder& order, int64_t size, const float* x, const float* w, bool has_c,
               float c) {
  float total = has_c ? c : 0.0F;
  bool set = order.first_set && !has_c;
  const int64_t block = BlockSize(order, size), part = PartSize(order, size);
  float of_part = 0.0F;
  for (int64_t k = 0; k < size; k += block) {
    float s = order.start_in_chain ? total : 0.0F;
    {
      const FlushDenormals flush(order.flush);
      s = ChainBlock(order, std::min(block, size - k), x + k, w + k, s);
    }
    of_part = k % part == 0 ? s : of_part + s;
    if ((k + block) % part != 0 && k + block < size) continue;
    total = set || order.start_in_chain ? of_part : total + of_part;
    set = false;
  }
  return total;
}

float JoinAll(float* v, int32_t n, Joining joining) {
  if (joining == Joining::kSequence) {
    for (int32_t i = 1; i < n; ++i) v[0] = v[0] + v[i];
    return v[0];
  }
  for (int32_t d = n / 2; d >= 1; d /= 2) {
    for (int32_t i = 0; i < d; ++i) v[i] = v[i] + v[i + d];
  }
  return v[0];
}

using StageLanes = std::array<std::array<float, kMaxAccumulators>, kMaxLanes>;  // [lane][accum.]

float JoinStage(const LaneStage& stage, StageLanes& lanes) {
  std::array<float, kMaxLanes> joined{};
  for (int32_t l = 0; l < stage.lanes; ++l) {
    joined.at(l) = JoinAll(lanes.at(l).data(), stage.accumulators, stage.join_accumulators);
  }
  for (int32_t distance : stage.lane_distances) {
    const std::array<float, kMaxLanes> before = joined;
    for (int32_t l = 0; l < stage.lanes; ++l) joined.at(l) = before.at(l) + before.at(l ^ distance);
  }
  if (!stage.lane_distances.empty()) return joined[0];
  return JoinAll(joined.data(), stage.lanes, stage.join_lanes);
}

// Element of vector v and lane l of a turn.
int64_t ElementOf(const LaneOrder& order, const LaneStage& stage, int32_t v, int32_t l) {
  if (!order.pairs) return int64_t{v} * stage.lanes + l;
  return int64_t{v / 2} * 2 * stage.lanes + int64_t{l} * 2 + (1 - v % 2);
}

// Takes the turns of one stage from element k on and returns the next element. Not inlined: the
// flush mode is set around it.
__attribute__((noinline)) int64_t TakeTurns(const LaneOrder& order, const LaneStage& stage,
                                            bool last, int64_t k, int64_t size, const float* x,
                                            const float* w, StageLanes& lanes) {
  const int64_t turn = int64_t{stage.lanes} * stage.vectors;
  const bool padded = last && order.tail == LaneTail::kLanes;
  for (; k + turn <= size || (padded && k < size); k += turn) {
    for (int32_t v = 0; v < stage.vectors; ++v) {
      for (int32_t l = 0; l < stage.lanes; ++l) {
        float& lane = lanes.at(l).at(v % stage.accumulators);
        const int64_t j = k + ElementOf(order, stage, v, l);
        lane = Joined(order.product, j < size ? x[j] : 0.0F, j < size ? w[j] : 0.0F, lane);
      }
    }
  }
  if (last && order.tail == LaneTail::kLane0) {
    for (; k < size; ++k) lanes[0][0] = Joined(order.tail_product, x[k], w[k], lanes[0][0]);
  }
  return k;
}

__attribute__((noinline)) float OneByOne(ProductKind kind, int64_t k, int64_t end, const float* x,
                                         const float* w, float sum) {
  for (; k < end; ++k) sum = Joined(kind, x[k], w[k], sum);
  return sum;
}

float DotLanes(const LaneOrder& order, int64_t size, const float* x, const float* w, bool has_c,
               float c, int32_t peel) {
  float start = 0.0F, total = 0.0F;
  int64_t k = std::min<int64_t>(peel, size);
  {
    const FlushDenormals flush(order.flush);
    start = OneByOne(order.product, 0, k, x, w, start);
  }
  StageLanes lanes;
  for (size_t i = 0; i < order.stages.size(); ++i) {
    const LaneStage& stage = order.stages[i];
    for (auto& lane : lanes) lane.fill(0.0F);
    if (i == 0) lanes[0][0] = start;
    {
      const FlushDenormals flush(order.flush);
      k = TakeTurns(order, stage, i + 1 == order.stages.size(), k, size, x, w, lanes);
    }
    const float joined = JoinStage(stage, lanes);
    total = i == 0 ? joined : total + joined;
  }
  {
    const FlushDenormals flush(order.flush);
    total = OneByOne(order.tail_product, k, size, x, w, total);
  }
  return has_c ? c + total : total;
}

float DotTree(const TreeOrder& order, const float* x, const float* w, bool has_c, float c) {
  struct Part {
    float sum;
    int32_t element;  // or -1
  };
  std::vector<Part> stack;
  for (int32_t item : order.postfix) {
    if (item != kJoin) {
      stack.push_back({x[item] * w[item], item});
      continue;
    }
    const Part right = stack.back();
    stack.pop_back();
    Part& left = stack.back();
    const bool fused = order.product == ProductKind::kFused && right.element >= 0;
    left.sum =
        fused ? std::fma(x[right.element], w[right.element], left.sum) : left.sum + right.sum;
    left.element = -1;
  }
  const float sum = stack.empty() ? 0.0F : stack.back().sum;
  return has_c ? c + sum : sum;
}

}  // namespace

int64_t BlockSize(const ChainOrder& order, int64_t size) {
  if (order.block == 0 || size <= order.block) return std::max<int64_t>(size, 1);
  return size < order.halve_below ? size / 2 : order.block;
}

int64_t PartSize(const ChainOrder& order, int64_t size) {
  return order.part > 0 ? order.part : BlockSize(order, size);
}

float Dot(const SumOrder& order, int64_t size, const float* x, const float* w, bool has_c, float c,
          int32_t peel) {
  if (const auto* chain = std::get_if<ChainOrder>(&order)) {
    return DotChain(*chain, size, x, w, has_c, c);
  }
  if (const auto* lanes = std::get_if<LaneOrder>(&order)) {
    return DotLanes(*lanes, size, x, w, has_c, c, peel);
  }
  return DotTree(std::get<TreeOrder>(order), x, w, has_c, c);
}

}  // namespace samebits
