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
  for (size_t i = 0; i < step.size(); ++i) {
    const int32_t item = step[i];
    if (item == kJoin) {
      --depth;
      stack.at(depth - 1) = stack.at(depth - 1) + stack.at(depth);
    } else if (i + 1 < step.size() && step[i + 1] == kJoin) {  // on the right
      stack.at(depth - 1) = Joined(kind, x[item], w[item], stack.at(depth - 1));
      ++i;
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
  float of_part = 0.0F;
  for (int64_t k = 0, end = 0; k < size; k = end) {
    end = BlockEnd(order, size, k);
    float s = order.start_in_chain ? total : 0.0F;
    {
      const FlushDenormals flush(order.flush);
      s = ChainBlock(order, end - k, x + k, w + k, s);
    }
    of_part = BeginsSum(order, k) ? s : of_part + s;
    if (end < size && !BeginsSum(order, end)) continue;
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
  if (joining == Joining::kQuarters) {
    for (int32_t i = 4; i < n; ++i) v[i % 4] = v[i % 4] + v[i];
    return (v[0] + v[1]) + (v[2] + v[3]);
  }
  for (int32_t d = n / 2; d >= 1; d /= 2) {
    for (int32_t i = 0; i < d; ++i) v[i] = v[i] + v[i + d];
  }
  return v[0];
}

using StageLanes = std::array<std::array<float, kMaxAccumulators>, kMaxLanes>;  // [lane][accum.]

// The accumulators, lane by lane.
std::array<float, kMaxLanes> JoinStage(const LaneStage& stage, StageLanes& lanes) {
  std::array<float, kMaxLanes> joined{};
  for (int32_t l = 0; l < stage.lanes; ++l) {
    joined.at(l) = JoinAll(lanes.at(l).data(), stage.accumulators, stage.join_accumulators);
  }
  return joined;
}

// Element of vector v and lane l of a turn.
int64_t ElementOf(const LaneOrder& order, const LaneStage& stage, int32_t v, int32_t l) {
  if (!order.pairs) return int64_t{v} * stage.lanes + l;
  return int64_t{v / 2} * 2 * stage.lanes + int64_t{l} * 2 + (1 - v % 2);
}

// One turn from element k on, as far as there are elements.
void TakeTurn(const LaneOrder& order, const LaneStage& stage, ProductKind product, int64_t k,
              int64_t size, const float* x, const float* w, StageLanes& lanes) {
  const int64_t whole = int64_t{2} * stage.lanes;
  const int64_t end = order.pairs ? k + (size - k + whole - 1) / whole * whole : size;
  for (int32_t v = 0; v < stage.vectors; ++v) {
    for (int32_t l = 0; l < stage.lanes; ++l) {
      const int64_t j = k + ElementOf(order, stage, v, l);
      if (j >= end) continue;
      float& lane = lanes.at(l).at(v % stage.accumulators);
      lane = Joined(product, j < size ? x[j] : 0.0F, j < size ? w[j] : 0.0F, lane);
    }
  }
}

// Takes the turns of one stage from element k on, of the last one the tail too if that is the
// lanes' part, and returns the next element. Not inlined: the flush mode is set around it.
__attribute__((noinline)) int64_t TakeTurns(const LaneOrder& order, const LaneStage& stage,
                                            bool last, int64_t k, int64_t size, const float* x,
                                            const float* w, StageLanes& lanes) {
  const int64_t turn = int64_t{stage.lanes} * stage.vectors;
  for (; k + turn <= size; k += turn) TakeTurn(order, stage, order.product, k, size, x, w, lanes);
  if (!last || order.tail == LaneTail::kSequence) return k;
  if (order.tail == LaneTail::kLanes) {
    if (k < size) TakeTurn(order, stage, order.tail_product, k, size, x, w, lanes);
  } else {
    for (; k < size; ++k) lanes[0][0] = Joined(order.tail_product, x[k], w[k], lanes[0][0]);
  }
  return size;
}

__attribute__((noinline)) float OneByOne(ProductKind kind, int64_t k, int64_t end, const float* x,
                                         const float* w, float sum) {
  for (; k < end; ++k) sum = Joined(kind, x[k], w[k], sum);
  return sum;
}

float DotLanes(const LaneOrder& order, int64_t size, const float* x, const float* w, bool has_c,
               float c, int32_t peel) {
  float first = 0.0F, total = 0.0F;
  int64_t k = std::min<int64_t>(peel, size);
  {
    const FlushDenormals flush(order.flush);
    first = OneByOne(order.product, 0, k, x, w, first);
  }
  StageLanes lanes;
  std::array<float, kMaxLanes> start{};
  if (!order.peel_last) start[0] = first;
  bool has_total = false;
  for (size_t i = 0; i < order.stages.size(); ++i) {
    const LaneStage& stage = order.stages[i];
    const bool last = i + 1 == order.stages.size();
    for (auto& lane : lanes) lane.fill(0.0F);
    for (int32_t l = 0; l < stage.lanes; ++l) lanes.at(l)[0] = start.at(l);
    {
      const FlushDenormals flush(order.flush);
      k = TakeTurns(order, stage, last, k, size, x, w, lanes);
    }
    std::array<float, kMaxLanes> joined = JoinStage(stage, lanes);
    const StageStart next = last ? StageStart::kZero : order.stages[i + 1].start;
    if (next == StageStart::kLanes) {
      start = joined;
      continue;
    }
    const float sum = JoinLanes(stage, joined.data());
    total = has_total ? total + sum : sum;
    has_total = next != StageStart::kTotal;
    start.fill(0.0F);
    if (next == StageStart::kTotal) start[0] = total;
  }
  {
    const FlushDenormals flush(order.flush);
    total = OneByOne(order.tail_product, k, size, x, w, total);
  }
  if (order.peel_last) total = first + total;
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

float JoinLanes(const LaneStage& stage, float* lanes) {
  if (stage.lane_distances.empty()) return JoinAll(lanes, stage.lanes, stage.join_lanes);
  for (int32_t distance : stage.lane_distances) {
    std::array<float, kMaxLanes> before{};
    std::copy_n(lanes, stage.lanes, before.begin());
    for (int32_t l = 0; l < stage.lanes; ++l) lanes[l] = before.at(l) + before.at(l ^ distance);
  }
  return lanes[0];
}

bool BeginsSum(const ChainOrder& order, int64_t begin) {
  return order.part == 0 || begin < order.part || begin % order.part == 0;
}

int64_t BlockEnd(const ChainOrder& order, int64_t all, int64_t at) {
  // Each part is cut as if it were all.
  const int64_t first = order.part > 0 ? at / order.part * order.part : 0;
  const int64_t size = order.part > 0 ? std::min(order.part, all - first) : all;
  const int64_t begin = at - first;
  if (order.block == 0) return first + size;
  const int64_t halved = order.halve == Halving::kRest ? size - begin : size;
  int64_t block = order.block;
  if (block < halved && halved < order.halve_below) {
    block = order.halve == Halving::kDown ? halved / 2 : (halved + 1) / 2;
  }
  return first + std::min(size, begin + block);
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
