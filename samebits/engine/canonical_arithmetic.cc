#include "samebits/engine/canonical_arithmetic.h"

#include <algorithm>
#include <vector>

#include "samebits/base/error.h"
#include "samebits/kernels/parallel_linear.h"
#include "samebits/numerics/rope.h"

namespace samebits {
namespace {

// The arguments for heads that read the same KV head as `head`: a rank's heads need not be whole
// groups.
AttentionArgs OfOneKvHead(const Node& node, const AttentionArgs& args, int64_t head) {
  AttentionArgs own = args;
  const int64_t bytes = KvHead(node, head) * args.kv_head_stride * DTypeSize(args.dtype);
  own.k = static_cast<const std::byte*>(args.k) + bytes;
  own.v = static_cast<const std::byte*>(args.v) + bytes;
  own.kv_heads = 1;
  return own;
}

}  // namespace

void CanonicalArithmetic::Linear(const Node&, const LinearArgs& args) {
  ParallelLinear(kernels_, pool_, std::span(&args, 1));
}

void CanonicalArithmetic::LinearLayers(std::span<const Node>, std::span<const LinearArgs> layers) {
  ParallelLinear(kernels_, pool_, layers);
}

void CanonicalArithmetic::RmsNorm(const Node&, const RmsNormArgs& args) {
  ForRows(args.rows, args.size,
          [&](int64_t begin, int64_t end) { kernels_.rms_norm(args, begin, end); });
}

void CanonicalArithmetic::Rotary(const Node& node, DType dtype, const RotaryRows& rows,
                                 void* cosine, void* sine) {
  const int64_t head_dim = node.attributes.head_dim;
  const RotaryTable table = MakeRotaryTable(node.attributes.rope, head_dim, rows.text_lengths);
  const auto count = static_cast<int64_t>(rows.positions.size());
  const RotaryArgs args{dtype,
                        rows.positions.data(),
                        table.inv_freq.data(),
                        table.row_stride,
                        table.scaling,
                        cosine,
                        sine,
                        count,
                        head_dim};
  constexpr int64_t kCost = 16;  // a cosine and a sine, in elements of other operations
  ForRows(count, kCost * head_dim,
          [&](int64_t begin, int64_t end) { kernels_.rotary(args, begin, end); });
}

void CanonicalArithmetic::Attention(const Node& node, std::span<const AttentionPart> parts) {
  const Attributes& a = node.attributes;
  struct Piece {
    size_t part;
    int64_t head_begin, head_end, row_begin, row_end;
  };
  // Heads that share keys and values, by KV head.
  std::vector<Range> heads;
  for (int64_t head = 0; head < a.heads; ++head) {
    if (KvHead(node, head) == static_cast<int64_t>(heads.size())) heads.push_back({head, head});
    heads.back().end = head + 1;
  }
  // So many queries that it pays to lay out keys and values for them; a multiple of the rows of a
  // tile, mostly.
  constexpr int64_t kQueries = 256, kUnit = 16;
  const int64_t group_size = std::max<int64_t>(1, a.heads / a.kv_heads);
  const int64_t piece_rows = (kQueries / group_size + kUnit - 1) / kUnit * kUnit;
  int64_t groups = 0;
  for (const AttentionPart& part : parts) {
    groups += (part.args.rows + piece_rows - 1) / piece_rows * a.kv_heads;
  }
  // The heads of a group share what is read; the groups that are left over when all threads had as
  // many are cut into heads, so that no thread has nothing to do.
  const int64_t whole = groups / pool_.threads() * pool_.threads();
  int64_t seen = 0;
  std::vector<Piece> pieces;
  for (size_t at = 0; at < parts.size(); ++at) {
    const AttentionPart& part = parts[at];
    SAMEBITS_CHECK(part.padding == 0, "canonical sequences are ragged, not padded");
    if (part.recorder != nullptr &&
        (part.recorder->Wants(node.outputs[0]) || part.recorder->Wants(node.outputs[1]))) {
      AttentionRecorded(node, part);
      continue;
    }
    const int64_t rows = part.args.rows;
    for (const Range& group : heads) {
      for (int64_t row = 0; row < rows; row += piece_rows, ++seen) {
        const int64_t step = seen < whole ? group.size() : 1,
                      end = std::min(rows, row + piece_rows);
        for (int64_t head = group.begin; head < group.end; head += step) {
          pieces.push_back({at, head, head + step, row, end});
        }
      }
    }
  }
  // The last rows see the most keys: they come first, so that all threads end together.
  pool_.ParallelFor(static_cast<int64_t>(pieces.size()), [&](int64_t at) {
    const Piece& piece = pieces[pieces.size() - 1 - static_cast<size_t>(at)];
    kernels_.attention(OfOneKvHead(node, parts[piece.part].args, piece.head_begin),
                       piece.head_begin, piece.head_end, piece.row_begin, piece.row_end);
  });
}

// In blocks of rows, so that scores and probs take bounded memory.
void CanonicalArithmetic::AttentionRecorded(const Node& node, const AttentionPart& part) {
  const AttentionArgs& whole = part.args;
  constexpr int64_t kBytes = 16 << 20;
  const int64_t size = DTypeSize(whole.dtype);
  const int64_t row_bytes = whole.heads * (part.before + whole.rows) * size;
  const int64_t block = std::max<int64_t>(1, kBytes / row_bytes);
  const int64_t width = whole.heads * whole.head_dim * size;
  const bool wants[] = {part.recorder->Wants(node.outputs[0]),
                        part.recorder->Wants(node.outputs[1])};
  for (int64_t row = 0; row < whole.rows; row += block) {
    AttentionArgs args = whole;
    args.rows = std::min(block, whole.rows - row);
    args.first_key_count = whole.first_key_count + row;
    args.q = static_cast<const std::byte*>(whole.q) + row * width;
    args.context = static_cast<std::byte*>(whole.context) + row * width;
    Tensor recorded[2];
    for (size_t i = 0; i < 2; ++i) {
      if (!wants[i]) continue;
      recorded[i] =
          Tensor(args.dtype, {args.heads, args.rows, args.first_key_count + args.rows - 1});
      (i == 0 ? args.scores : args.probs) = recorded[i].data();
    }
    pool_.ParallelFor(args.heads, [&](int64_t head) {
      kernels_.attention(OfOneKvHead(node, args, head), head, head + 1, 0, args.rows);
    });
    for (size_t i = 0; i < 2; ++i) {
      if (wants[i]) part.recorder->Record(node.outputs[i], recorded[i].view(), part.before + row);
    }
  }
}

void CanonicalArithmetic::Silu(const Node&, DType dtype, const void* x, void* y, int64_t rows,
                               int64_t width) {
  const int64_t row_bytes = width * DTypeSize(dtype);
  ForRows(rows, width, [&](int64_t begin, int64_t end) {
    kernels_.silu(dtype, static_cast<const std::byte*>(x) + begin * row_bytes,
                  static_cast<std::byte*>(y) + begin * row_bytes, (end - begin) * width);
  });
}

// Row by row, so that what was activated is multiplied while it is in the first cache.
void CanonicalArithmetic::SiluMultiply(const Node&, DType dtype, const void* x, const void* b,
                                       void* activated, void* y, int64_t rows, int64_t width) {
  const int64_t row_bytes = width * DTypeSize(dtype);
  ForRows(rows, width, [&](int64_t begin, int64_t end) {
    for (int64_t at = begin * row_bytes; at < end * row_bytes; at += row_bytes) {
      std::byte* const row = static_cast<std::byte*>(activated) + at;
      kernels_.silu(dtype, static_cast<const std::byte*>(x) + at, row, width);
      kernels_.multiply(dtype, row, static_cast<const std::byte*>(b) + at,
                        static_cast<std::byte*>(y) + at, width);
    }
  });
}

}  // namespace samebits
