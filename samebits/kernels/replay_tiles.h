// Tiles of a replayed product, all in fp32: what replay.cc gives to the source file that is built
// for an instruction set. Plain data only (see tables.h on templates of the library).
#pragma once

#include <cstdint>

namespace samebits {

constexpr int64_t kMaxTileAccumulators = 16;
constexpr int64_t kChainTileOuts = 16;  // outputs side by side in a chain's tile

// One stage of a LaneOrder: sums[r, c] = the joined accumulators of row r of x and row c of w.
struct LaneTile {
  const float* x;      // row r at r * x_stride
  const float* w;      // row c at c * w_stride
  const float* start;  // [rows, sums_stride]: where lane 0 of accumulator 0 starts; null: +0
  float* sums;         // row r at r * sums_stride
  int64_t x_stride, w_stride, sums_stride;
  int64_t rows, outs, turns;
  int64_t lanes;  // 4, 8 or 16
  int64_t vectors, accumulators;
  bool accumulators_in_sequence;
  bool fused;
  // Of 16 lanes only: lanes are joined by halves otherwise.
  bool quarters = false;
  int64_t tail = 0;                    // elements after the turns, at most 16: each its own lane
  const float* start_lanes = nullptr;  // [rows, sums_stride, 16]: all lanes of accumulator 0
  float* joined_lanes = nullptr;       // [rows, sums_stride, 16]: what is returned instead of sums
};

// sums[r, c] joined by x[r, k] w[c, k] for k = 0 .. size - 1, one by one.
struct TailTile {
  const float* x;
  const float* w;
  float* sums;
  int64_t x_stride, w_stride, sums_stride;
  int64_t rows, outs, size;
  bool fused;
};

// sums[r, c] joined by x[r, k] w[k, c] for k = 0 .. size - 1, for kChainTileOuts outputs c. With
// several `lanes` there are as many sums, row r and lane l at sums + (r * lanes + l) *
// kChainTileOuts, and element k joins lane k mod lanes. With a `tile` (and one lane) the even and
// the odd ones of as many elements are chains of their own from +0, whose joined sum joins sums.
struct ChainTile {
  const float* x;  // row r at r * x_stride
  const float* w;  // [size, kChainTileOuts]
  float* sums;
  int64_t x_stride;
  int64_t rows, size;
  int64_t lanes;  // 1 or 4
  int64_t tile;   // or 0
  bool fused, flush;
};

void LaneTileAvx2(const LaneTile& tile);
void TailTileAvx2(const TailTile& tile);
void ChainTileAvx2(const ChainTile& tile);
// [count] bf16 (or f16) values to fp32.
void WidenBF16Avx2(const uint16_t* from, float* to, int64_t count);
void WidenF16Avx2(const uint16_t* from, float* to, int64_t count);
// to[k, c] = from[c, k] for kChainTileOuts rows of from.
void TransposeAvx2(const float* from, int64_t stride, float* to, int64_t size);

}  // namespace samebits
