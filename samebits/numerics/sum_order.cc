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

// One chain over size elements, from s. Not inlined: the flush mode is set around it.
__attribute__((noinline)) float ChainBlock(const ChainOrder& order, int64_t size, const float* x,
                                           const float* w, float s) {
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
  for (int64_t k = 0, end = 0; k < size; k = end) {
    end = BlockEnd(order, size, k);
    float s = order.start_in_chain ? total : 0.0F;
    {
      const FlushDenormals flush(order.flush);
      s = ChainBlock(order, end - k, x + k, w + k, s);
    }
    total = set || order.start_in_chain ? s : total + s;
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

float DotLanes(const LaneOrder& order, int64_t size, const float* x, const float* w, bool has_c,
               float c, int32_t peel) {
  float first = 0.0F, total = 0.0F;
  int64_t k = 0;
  for (; k < std::min<int64_t>(peel, size); ++k) first = Joined(order.product, x[k], w[k], first);
  StageLanes lanes;
  std::array<float, kMaxLanes> start{};
  if (!order.peel_last) start[0] = first;
  bool has_total = false;
  for (size_t i = 0; i < order.stages.size(); ++i) {
    const LaneStage& stage = order.stages[i];
    for (auto& lane : lanes) lane.fill(0.0F);
    for (int32_t l = 0; l < stage.lanes; ++l) lanes.at(l)[0] = start.at(l);
    const int64_t turn = int64_t{stage.lanes} * stage.vectors;
    for (; k + turn <= size; k += turn) {
      for (int32_t v = 0; v < stage.vectors; ++v) {
        for (int32_t l = 0; l < stage.lanes; ++l) {
          float& lane = lanes.at(l).at(v % stage.accumulators);
          const int64_t j = k + int64_t{v} * stage.lanes + l;
          lane = Joined(order.product, x[j], w[j], lane);
        }
      }
    }
    const bool last = i + 1 == order.stages.size();
    if (last && (order.tail_in_lane_0 || order.tail_in_lanes)) {
      for (const int64_t tail = k; k < size; ++k) {
        float& lane = lanes.at(order.tail_in_lanes ? (k - tail) % stage.lanes : 0)[0];
        lane = Joined(order.tail_product, x[k], w[k], lane);
      }
    }
    std::array<float, kMaxLanes> joined = JoinStage(stage, lanes);
    const StageStart next = last ? StageStart::kZero : order.stages[i + 1].start;
    if (next == StageStart::kLanes) {
      start = joined;
      continue;
    }
    const float sum = JoinAll(joined.data(), stage.lanes, stage.join_lanes);
    total = has_total ? total + sum : sum;
    has_total = next != StageStart::kTotal;
    start.fill(0.0F);
    if (next == StageStart::kTotal) start[0] = total;
  }
  for (; k < size; ++k) total = Joined(order.tail_product, x[k], w[k], total);
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

int64_t BlockEnd(const ChainOrder& order, int64_t size, int64_t begin) {
  if (order.block == 0) return size;
  const int64_t halved = order.halve == Halving::kRest ? size - begin : size;
  int64_t block = order.block;
  if (block < halved && halved < order.halve_below) {
    block = order.halve == Halving::kDown ? halved / 2 : (halved + 1) / 2;
  }
  return std::min(size, begin + block);
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
