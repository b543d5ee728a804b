#include "samebits/engine/arithmetic.h"

#include <algorithm>

namespace samebits {
namespace {

const std::byte* At(const void* data, int64_t bytes) {
  return static_cast<const std::byte*>(data) + bytes;
}

std::byte* At(void* data, int64_t bytes) { return static_cast<std::byte*>(data) + bytes; }

}  // namespace

int64_t KvHead(const Node& attention, int64_t head) {
  const Attributes& a = attention.attributes;
  if (!attention.split) return head / (a.heads / a.kv_heads);
  const int64_t group = attention.split.whole / attention.kv_split.whole;
  return (attention.split.range().begin + head) / group - attention.kv_split.range().begin;
}

void Arithmetic::ForRows(int64_t count, int64_t row_work,
                         const std::function<void(int64_t, int64_t)>& fn) {
  constexpr int64_t kPieceWork = 1 << 15;  // elements: some ten microseconds
  const int64_t piece_rows = std::max<int64_t>(1, kPieceWork / std::max<int64_t>(1, row_work));
  const int64_t pieces = (count + piece_rows - 1) / piece_rows;
  pool_.ParallelFor(pieces, [&](int64_t piece) {
    fn(piece * piece_rows, std::min(count, (piece + 1) * piece_rows));
  });
}

void Arithmetic::Rope(const RopeArgs& args) {
  ForRows(args.rows, args.heads * args.head_dim,
          [&](int64_t begin, int64_t end) { kernels_.rope(args, begin, end); });
}

void Arithmetic::Add(DType dtype, const void* a, const void* b, void* y, int64_t rows,
                     int64_t width) {
  const int64_t row_bytes = width * DTypeSize(dtype);
  ForRows(rows, width, [&](int64_t begin, int64_t end) {
    const int64_t at = begin * row_bytes;
    kernels_.add(dtype, At(a, at), At(b, at), At(y, at), (end - begin) * width);
  });
}

void Arithmetic::Multiply(DType dtype, const void* a, const void* b, void* y, int64_t rows,
                          int64_t width) {
  const int64_t row_bytes = width * DTypeSize(dtype);
  ForRows(rows, width, [&](int64_t begin, int64_t end) {
    const int64_t at = begin * row_bytes;
    kernels_.multiply(dtype, At(a, at), At(b, at), At(y, at), (end - begin) * width);
  });
}

void Arithmetic::LinearLayers(std::span<const Node> nodes, std::span<const LinearArgs> layers) {
  for (size_t i = 0; i < nodes.size(); ++i) Linear(nodes[i], layers[i]);
}

void Arithmetic::SiluMultiply(const Node& silu, DType dtype, const void* x, const void* b,
                              void* activated, void* y, int64_t rows, int64_t width) {
  Silu(silu, dtype, x, activated, rows, width);
  Multiply(dtype, activated, b, y, rows, width);
}

}  // namespace samebits
