#include "samebits/kernels/parallel_linear.h"

#include <algorithm>

namespace samebits {

void ParallelLinear(const Kernels& kernels, ThreadPool& pool, std::span<const LinearArgs> layers) {
  constexpr int64_t kPerThread = 8;  // pieces: who is kept from working is waited for that long
  // Of the weights that one row reads: each piece waits for the memory once, some 0.4 us, before
  // it reads as fast as memory allows.
  constexpr int64_t kPieceBytes = 256 << 10;
  const auto parts = [](int64_t count, int64_t size) { return (count + size - 1) / size; };
  const LinearArgs& args = layers.front();
  const LinearCut cut = kernels.linear_cut(args);
  int64_t outs = 0;
  for (const LinearArgs& layer : layers) outs += layer.out_features;
  const int64_t blocks = parts(args.rows, cut.most_rows);
  int64_t per_thread = kPerThread, least = cut.fewest_outs;
  if (args.rows == 1) {
    const int64_t bytes = outs * args.in_features * DTypeSize(args.weight_dtype);
    per_thread = std::clamp<int64_t>(bytes / kPieceBytes / pool.threads(), 1, kPerThread);
    least = cut.unit_outs;
  }
  const int64_t wanted = parts(per_thread * pool.threads(), blocks);
  const int64_t unit = cut.unit_outs;
  const int64_t piece_outs = parts(std::max(least, parts(outs, wanted)), unit) * unit;
  const int64_t piece_rows = parts(args.rows, blocks);
  // Pieces of the same weights follow one another.
  pool.ParallelFor(parts(outs, piece_outs) * blocks, [&](int64_t piece) {
    const int64_t row = piece % blocks * piece_rows;
    int64_t begin = piece / blocks * piece_outs, end = begin + piece_outs;
    for (const LinearArgs& layer : layers) {  // what the piece has of each
      if (begin < layer.out_features && end > 0) {
        kernels.linear(layer, row, std::min(args.rows, row + piece_rows),
                       std::max<int64_t>(0, begin), std::min(layer.out_features, end));
      }
      begin -= layer.out_features;
      end -= layer.out_features;
    }
  });
}

}  // namespace samebits
