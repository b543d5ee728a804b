#include "samebits/kernels/replay.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "samebits/base/error.h"
#include "samebits/kernels/replay_tiles.h"
#include "samebits/numerics/element.h"
#include "samebits/numerics/flush.h"

namespace samebits {
namespace {

constexpr int64_t kChunk = 256;           // elements of a chain's tile
constexpr int64_t kTileFloats = 1 << 15;  // widened weights of a lane order's tile

// `count` neighbours from element `first` on.
void Widen(DType dtype, const void* data, int64_t first, float* to, int64_t count) {
  switch (dtype) {
    case DType::kBF16:
      WidenBF16Avx2(static_cast<const uint16_t*>(data) + first, to, count);
      break;
    case DType::kF16:
      WidenF16Avx2(static_cast<const uint16_t*>(data) + first, to, count);
      break;
    default:
      std::memcpy(to, static_cast<const float*>(data) + first, static_cast<size_t>(count) * 4);
  }
}

// A region of a product: its operands widened, and its outputs taken.
class Region {
 public:
  Region(const ProductArgs& args, BiasRule bias, const OrderRegion& where)
      : a_(args), bias_(bias), where_(where) {
    x_.resize(static_cast<size_t>(rows() * size()));
    for (int64_t r = 0; r < rows(); ++r) {
      Widen(a_.dtype, a_.x, (where_.row_begin + r) * a_.x_row_stride, &x_[r * size()], size());
    }
  }

  int64_t rows() const { return where_.row_end - where_.row_begin; }
  int64_t out_begin() const { return where_.out_begin; }
  int64_t out_end() const { return where_.out_end; }
  int64_t size() const { return a_.in_features; }
  int32_t peel() const { return where_.peel; }
  std::vector<float>& x() { return x_; }  // [rows, size]
  bool has_c() const { return a_.bias != nullptr || a_.accumulate; }
  bool c_first() const { return has_c() && bias_ == BiasRule::kFirst; }

  float C(int64_t r, int64_t n) const {
    if (a_.bias != nullptr) return LoadElement(a_.weight_dtype, a_.bias, n);
    return LoadElement(a_.y_dtype, a_.y, (where_.row_begin + r) * a_.y_row_stride + n);
  }

  // Rows of w as fp32: in place, or widened into `buffer` [outs, size].
  const float* Rows(int64_t n, int64_t outs, std::vector<float>& buffer, int64_t& stride) const {
    if (a_.weight_dtype == DType::kF32 && a_.w_in_stride == 1) {
      stride = a_.w_out_stride;
      return static_cast<const float*>(a_.w) + n * a_.w_out_stride;
    }
    stride = size();
    buffer.resize(static_cast<size_t>(outs * size()));
    for (int64_t c = 0; c < outs; ++c) {
      float* to = &buffer[c * size()];
      const int64_t first = (n + c) * a_.w_out_stride;
      if (a_.w_in_stride == 1) {
        Widen(a_.weight_dtype, a_.w, first, to, size());
      } else {
        for (int64_t k = 0; k < size(); ++k) {
          to[k] = LoadElement(a_.weight_dtype, a_.w, first + k * a_.w_in_stride);
        }
      }
    }
    return buffer.data();
  }

  // Elements k .. k + count - 1 of up to kChainTileOuts outputs: [count, kChainTileOuts], outputs
  // beyond `outs` as 0.
  void Columns(int64_t n, int64_t outs, int64_t k, int64_t count, float* to) const {
    if (a_.w_out_stride == 1) {
      for (int64_t j = 0; j < count; ++j, to += kChainTileOuts) {
        Widen(a_.weight_dtype, a_.w, n + (k + j) * a_.w_in_stride, to, outs);
        std::fill(to + outs, to + kChainTileOuts, 0.0F);
      }
      return;
    }
    alignas(32) float rows[kChainTileOuts * kChunk];
    for (int64_t c = 0; c < kChainTileOuts; ++c) {
      float* row = rows + c * kChunk;
      const int64_t first = (n + c) * a_.w_out_stride + k * a_.w_in_stride;
      if (c >= outs) {
        std::fill(row, row + count, 0.0F);
      } else if (a_.w_in_stride == 1) {
        Widen(a_.weight_dtype, a_.w, first, row, count);
      } else {
        for (int64_t j = 0; j < count; ++j) {
          row[j] = LoadElement(a_.weight_dtype, a_.w, first + j * a_.w_in_stride);
        }
      }
    }
    TransposeAvx2(rows, kChunk, to, count);
  }

  // Takes the sums of outputs n .. n + outs - 1. c_inside: they hold c already.
  void Take(int64_t n, int64_t outs, const float* sums, int64_t stride, bool c_inside) const {
    const bool add = has_c() && !c_inside;
    for (int64_t r = 0; r < rows(); ++r) {
      for (int64_t i = 0; i < outs; ++i) {
        float sum = sums[r * stride + i];
        if (add) {
          if (bias_ == BiasRule::kRounded)
            sum = RoundElement(a_.y_dtype, sum);  // round: see kRounded
          sum = C(r, n + i) + sum;
        }
        // round: to the output's dtype
        StoreElement(a_.y_dtype, a_.y, (where_.row_begin + r) * a_.y_row_stride + n + i, sum);
      }
    }
  }

 private:
  const ProductArgs& a_;
  BiasRule bias_;
  const OrderRegion& where_;
  std::vector<float> x_;
};

void TailOf(Region& region, const float* w, int64_t w_stride, int64_t outs, int64_t begin,
            int64_t end, ProductKind kind, float* sums) {
  if (begin == end) return;
  TailTileAvx2({.x = region.x().data() + begin,
                .w = w + begin,
                .sums = sums,
                .x_stride = region.size(),
                .w_stride = w_stride,
                .sums_stride = outs,
                .rows = region.rows(),
                .outs = outs,
                .size = end - begin,
                .fused = kind == ProductKind::kFused});
}

// Whether LaneTile can do it.
bool FastLanes(const LaneOrder& order) {
  const auto fast = [](const LaneStage& stage) {
    if (stage.accumulators > kMaxTileAccumulators || !stage.lane_distances.empty()) return false;
    if (stage.lanes == 16) return stage.join_lanes != Joining::kSequence;
    return (stage.lanes == 4 || stage.lanes == 8) && stage.join_lanes == Joining::kHalves &&
           stage.start != StageStart::kLanes;
  };
  const LaneStage& last = order.stages.back();
  const bool in_lanes = order.tail == LaneTail::kLanes;
  const bool fast_tail =
      !in_lanes || (last.lanes == 16 && last.vectors == 1 && order.tail_product == order.product);
  return order.tail != LaneTail::kLane0 && fast_tail && !order.pairs && !order.flush &&
         std::all_of(order.stages.begin(), order.stages.end(), fast);
}

// A LaneOrder on one tile of outputs.
class LaneRun {
 public:
  LaneRun(const LaneOrder& order, Region& region) : order_(order), region_(region) {}

  // Outputs n .. n + outs - 1; w: their rows.
  void Run(int64_t n, int64_t outs, const float* w, int64_t w_stride) {
    const int64_t size = region_.size();
    const int64_t peel = std::min<int64_t>(region_.peel(), size);
    w_ = w, w_stride_ = w_stride, outs_ = outs;
    const auto sums = static_cast<size_t>(region_.rows() * outs);
    first_.assign(sums, 0.0F);
    total_.resize(sums);
    joined_.resize(sums);
    if (peel > 0) TailOf(region_, w, w_stride, outs, 0, peel, order_.product, first_.data());
    int64_t k = peel;
    const float* start = peel > 0 && !order_.peel_last ? first_.data() : nullptr;
    bool has_total = false;
    for (size_t i = 0; i < order_.stages.size(); ++i) {
      const bool last = i + 1 == order_.stages.size();
      const StageStart next = last ? StageStart::kZero : order_.stages[i + 1].start;
      k = Stage(order_.stages[i], k, start, last, next == StageStart::kLanes,
                has_total ? joined_ : total_);
      start = nullptr;
      if (next == StageStart::kLanes) continue;
      for (size_t j = 0; has_total && j < sums; ++j) total_[j] = total_[j] + joined_[j];
      has_total = next != StageStart::kTotal;
      if (next == StageStart::kTotal) {
        first_total_ = total_;
        start = first_total_.data();
      }
    }
    TailOf(region_, w, w_stride, outs, k, size, order_.tail_product, total_.data());
    for (size_t j = 0; order_.peel_last && j < sums; ++j) total_[j] = first_[j] + total_[j];
    region_.Take(n, outs, total_.data(), outs, /*c_inside=*/false);
  }

 private:
  // From element k on; returns the next one.
  int64_t Stage(const LaneStage& stage, int64_t k, const float* start, bool last, bool keep_lanes,
                std::vector<float>& sums) {
    const int64_t turn = int64_t{stage.lanes} * stage.vectors, turns = (region_.size() - k) / turn;
    const int64_t end = k + turns * turn;
    const bool from_lanes = stage.start == StageStart::kLanes;
    const int64_t tail = last && order_.tail == LaneTail::kLanes ? region_.size() - end : 0;
    if (keep_lanes) lanes_[1].resize(sums.size() * 16);
    LaneTileAvx2({.x = region_.x().data() + k,
                  .w = w_ + k,
                  .start = start,
                  .sums = sums.data(),
                  .x_stride = region_.size(),
                  .w_stride = w_stride_,
                  .sums_stride = outs_,
                  .rows = region_.rows(),
                  .outs = outs_,
                  .turns = turns,
                  .lanes = stage.lanes,
                  .vectors = stage.vectors,
                  .accumulators = stage.accumulators,
                  .accumulators_in_sequence = stage.join_accumulators == Joining::kSequence,
                  .fused = order_.product == ProductKind::kFused,
                  .quarters = stage.join_lanes == Joining::kQuarters,
                  .tail = tail,
                  .start_lanes = from_lanes ? lanes_[0].data() : nullptr,
                  .joined_lanes = keep_lanes ? lanes_[1].data() : nullptr});
    lanes_[0].swap(lanes_[1]);
    return end + tail;
  }

  const LaneOrder& order_;
  Region& region_;
  const float* w_ = nullptr;
  int64_t w_stride_ = 0, outs_ = 0;
  std::vector<float> first_, total_, joined_, first_total_;  // [rows, outs]
  std::vector<float> lanes_[2];  // [rows, outs, 16]: where a stage starts, and where it ended
};

void RunLanes(const LaneOrder& order, Region& region) {
  const int64_t tile_outs =
      std::clamp<int64_t>(kTileFloats / std::max<int64_t>(region.size(), 1), 4, 64);
  LaneRun run(order, region);
  std::vector<float> buffer;
  for (int64_t n = region.out_begin(); n < region.out_end(); n += tile_outs) {
    const int64_t outs = std::min(tile_outs, region.out_end() - n);
    int64_t stride = 0;
    const float* w = region.Rows(n, outs, buffer, stride);
    run.Run(n, outs, w, stride);
  }
}

// 16 lanes of pairs, as VDPBF16PS takes them.
bool SixteenPairs(const LaneOrder& order) {
  const LaneStage& stage = order.stages.front();
  return order.pairs && stage.lanes == 16 && stage.vectors == 2 && stage.accumulators == 1 &&
         !stage.lane_distances.empty() && order.tail_product == order.product;
}

// With the odd and the even elements of a turn apart it is two vectors that join one accumulator.
void RunPairs(const LaneOrder& order, Region& region) {
  constexpr int64_t kTurn = 32;
  const int64_t size = region.size(), rows = region.rows();
  const int64_t padded = (size + kTurn - 1) / kTurn * kTurn;
  const auto apart = [size](const float* from, float* to) {
    for (int64_t k = 0; k < size; ++k)
      to[k / kTurn * kTurn + (1 - k % 2) * 16 + k % kTurn / 2] = from[k];
  };
  std::vector<float> x(static_cast<size_t>(rows * padded));
  for (int64_t r = 0; r < rows; ++r) apart(&region.x()[r * size], &x[r * padded]);
  const int64_t tile_outs = std::clamp<int64_t>(kTileFloats / padded, 4, 64);
  std::vector<float> buffer, w, lanes, sums;
  for (int64_t n = region.out_begin(); n < region.out_end(); n += tile_outs) {
    const int64_t outs = std::min(tile_outs, region.out_end() - n);
    int64_t stride = 0;
    const float* from = region.Rows(n, outs, buffer, stride);
    w.assign(static_cast<size_t>(outs * padded), 0.0F);
    for (int64_t c = 0; c < outs; ++c) apart(from + c * stride, &w[c * padded]);
    sums.resize(static_cast<size_t>(rows * outs));
    lanes.resize(sums.size() * 16);
    {
      const FlushDenormals flush(order.flush);
      LaneTileAvx2({.x = x.data(),
                    .w = w.data(),
                    .start = nullptr,
                    .sums = sums.data(),
                    .x_stride = padded,
                    .w_stride = padded,
                    .sums_stride = outs,
                    .rows = rows,
                    .outs = outs,
                    .turns = padded / kTurn,
                    .lanes = 16,
                    .vectors = 2,
                    .accumulators = 1,
                    .accumulators_in_sequence = false,
                    .fused = order.product == ProductKind::kFused,
                    .joined_lanes = lanes.data()});
    }
    for (size_t i = 0; i < sums.size(); ++i) {
      sums[i] = JoinLanes(order.stages.front(), &lanes[i * 16]);
    }
    region.Take(n, outs, sums.data(), outs, /*c_inside=*/false);
  }
}

// Four partial sums, element k to sum k mod 4.
bool FourSums(const LaneOrder& order) {
  return order.stages.size() == 1 && order.stages[0].lanes == 4 && order.stages[0].vectors == 1 &&
         order.stages[0].join_lanes == Joining::kSequence &&
         order.stages[0].lane_distances.empty() && order.tail == LaneTail::kLane0 && !order.pairs &&
         !order.flush && order.product == order.tail_product && order.peel == Peel();
}

void RunFourSums(const LaneOrder& order, Region& region) {
  const int64_t size = region.size(), rows = region.rows();
  std::vector<float> sums(static_cast<size_t>(rows * 4 * kChainTileOuts));
  std::vector<float> total(static_cast<size_t>(rows * kChainTileOuts));
  std::vector<float> w(static_cast<size_t>(kChunk * kChainTileOuts));
  for (int64_t n = region.out_begin(); n < region.out_end(); n += kChainTileOuts) {
    const int64_t outs = std::min(kChainTileOuts, region.out_end() - n);
    std::fill(sums.begin(), sums.end(), 0.0F);
    for (int64_t k = 0; k < size; k += kChunk) {
      const int64_t count = std::min(kChunk, size - k);
      region.Columns(n, outs, k, count, w.data());
      ChainTileAvx2({.x = region.x().data() + k,
                     .w = w.data(),
                     .sums = sums.data(),
                     .x_stride = size,
                     .rows = rows,
                     .size = count,
                     .lanes = 4,
                     .tile = 0,
                     .fused = order.product == ProductKind::kFused,
                     .flush = false});
    }
    for (int64_t r = 0; r < rows; ++r) {
      const float* p = &sums[r * 4 * kChainTileOuts];
      for (int64_t i = 0; i < kChainTileOuts; ++i) {
        total[r * kChainTileOuts + i] =
            ((p[i] + p[kChainTileOuts + i]) + p[2 * kChainTileOuts + i]) +
            p[3 * kChainTileOuts + i];
      }
    }
    region.Take(n, outs, total.data(), kChainTileOuts, /*c_inside=*/false);
  }
}

// Chains whose steps are single elements are plain chains over elements in another order.
bool SingleSteps(const ChainOrder& order) {
  return std::all_of(order.group.begin(), order.group.end(),
                     [](const std::vector<int32_t>& step) { return step.size() == 1; });
}

class ChainRun {
 public:
  ChainRun(const ChainOrder& order, Region& region)
      : order_(order),
        region_(region),
        group_(std::max<int64_t>(std::ssize(order.group), 1)),
        partial_(static_cast<size_t>(region.rows() * kChainTileOuts)),
        part_(partial_.size()),
        total_(partial_.size()),
        w_(static_cast<size_t>(kChunk * kChainTileOuts)),
        moved_(w_.size()) {
    SetOrder();
  }

  void Run() {
    for (int64_t n = region_.out_begin(); n < region_.out_end(); n += kChainTileOuts) {
      const int64_t outs = std::min(kChainTileOuts, region_.out_end() - n);
      const bool inside = region_.c_first();
      for (int64_t i = 0; i < std::ssize(total_); ++i) {
        const int64_t c = i % kChainTileOuts;
        total_[i] = inside && c < outs ? region_.C(i / kChainTileOuts, n + c) : 0.0F;
      }
      bool set = order_.first_set && !inside;
      for (int64_t k = 0, end = 0; k < region_.size(); k = end) {
        end = BlockEnd(order_, region_.size(), k);
        Block(n, outs, k, end - k);
        if (order_.part > 0) {
          for (size_t i = 0; i < part_.size(); ++i) {
            part_[i] = BeginsSum(order_, k) ? partial_[i] : part_[i] + partial_[i];
          }
          if (end < region_.size() && !BeginsSum(order_, end)) continue;
          partial_ = part_;
        }
        const bool replace = set || order_.start_in_chain;
        for (size_t i = 0; i < total_.size(); ++i) {
          total_[i] = replace ? partial_[i] : total_[i] + partial_[i];
        }
        set = false;
      }
      region_.Take(n, outs, total_.data(), kChainTileOuts, inside);
    }
  }

 private:
  // element_[k]: which element is the k-th of the chain. x is put into that order.
  void SetOrder() {
    if (order_.group.empty() && !order_.tail_descending) return;
    const int64_t size = region_.size();
    element_.resize(static_cast<size_t>(size));
    for (int64_t begin = 0, end = 0; begin < size; begin = end) {
      end = BlockEnd(order_, size, begin);
      int64_t k = begin;
      if (!order_.group.empty()) {
        for (; k + group_ <= end; k += group_) {
          for (int64_t i = 0; i < group_; ++i) element_[k + i] = k + order_.group[i][0];
        }
      }
      for (int64_t i = k; i < end; ++i) {
        element_[i] = order_.tail_descending ? end - 1 - (i - k) : i;
      }
    }
    std::vector<float> row(static_cast<size_t>(size));
    for (int64_t r = 0; r < region_.rows(); ++r) {
      float* x = &region_.x()[r * size];
      for (int64_t k = 0; k < size; ++k) row[k] = x[element_[k]];
      std::copy(row.begin(), row.end(), x);
    }
  }

  void Block(int64_t n, int64_t outs, int64_t begin, int64_t size) {
    if (order_.start_in_chain) {
      partial_ = total_;
    } else {
      std::fill(partial_.begin(), partial_.end(), 0.0F);
    }
    // Whole groups or tiles, so that a chunk's elements are its own; a descending tail is one
    // chunk.
    const int64_t whole = order_.tile > 0 ? order_.tile : group_;
    const int64_t chunk = kChunk / whole * whole;
    for (int64_t k = 0; k < size; k += chunk) {
      const int64_t count = std::min(chunk, size - k);
      const float* w = Chunk(n, outs, begin + k, count);
      ChainTileAvx2({.x = region_.x().data() + begin + k,
                     .w = w,
                     .sums = partial_.data(),
                     .x_stride = region_.size(),
                     .rows = region_.rows(),
                     .size = count,
                     .lanes = 1,
                     .tile = order_.tile,
                     .fused = order_.product == ProductKind::kFused,
                     .flush = order_.flush});
    }
  }

  const float* Chunk(int64_t n, int64_t outs, int64_t k, int64_t count) {
    region_.Columns(n, outs, k, count, w_.data());
    if (element_.empty()) return w_.data();
    for (int64_t j = 0; j < count; ++j) {
      std::memcpy(&moved_[j * kChainTileOuts], &w_[(element_[k + j] - k) * kChainTileOuts],
                  kChainTileOuts * sizeof(float));
    }
    return moved_.data();
  }

  const ChainOrder& order_;
  Region& region_;
  int64_t group_;
  std::vector<int64_t> element_;
  std::vector<float> partial_, part_, total_;  // [rows, kChainTileOuts]
  std::vector<float> w_, moved_;               // [kChunk, kChainTileOuts]
};

// Whether a chain's elements stay inside their chunk.
bool FastChain(const ChainOrder& order) {
  return SingleSteps(order) && !(order.tail_descending && order.group.empty()) &&
         order.tile <= kChunk;
}

// False where there is no fast kernel.
bool RunRegion(const ProductArgs& args, BiasRule bias, const OrderRegion& where) {
  if (args.weight_dtype != args.dtype) return false;
  if (const auto* lanes = std::get_if<LaneOrder>(where.order)) {
    const auto run = SixteenPairs(*lanes) ? &RunPairs
                     : FourSums(*lanes)   ? &RunFourSums
                     : FastLanes(*lanes)  ? &RunLanes
                                          : nullptr;
    if (run == nullptr) return false;
    Region region(args, bias, where);
    run(*lanes, region);
    return true;
  }
  if (const auto* chain = std::get_if<ChainOrder>(where.order)) {
    if (!FastChain(*chain)) return false;
    Region region(args, bias, where);
    ChainRun(*chain, region).Run();
    return true;
  }
  return false;
}

}  // namespace

void ReplayProduct(Isa isa, const ProductArgs& args, const SumRule& rule, int64_t row_begin,
                   int64_t row_end, int64_t out_begin, int64_t out_end) {
  if (isa == Isa::kPortable) {
    return Product(args, rule, row_begin, row_end, out_begin, out_end);
  }
  for (OrderRegion region : Regions(rule, args)) {
    region.row_begin = std::max(region.row_begin, row_begin);
    region.row_end = std::min(region.row_end, row_end);
    region.out_begin = std::max(region.out_begin, out_begin);
    region.out_end = std::min(region.out_end, out_end);
    if (region.row_begin >= region.row_end || region.out_begin >= region.out_end) continue;
    if (RunRegion(args, rule.bias, region)) continue;
    Product(args, rule, region.row_begin, region.row_end, region.out_begin, region.out_end);
  }
}

}  // namespace samebits
