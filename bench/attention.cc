// Attention alone, cut into pieces as the engine does: the rows of a prompt (bound by arithmetic)
// as a share of the peak, of the products that the mask leaves, softmax included; one row
// (decoding) as a share of the read bandwidth. Limits and kernels are measured in turns.
#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <vector>

#include "bench/shares.h"
#include "samebits/base/error.h"
#include "samebits/kernels/limits.h"
#include "samebits/kernels/thread_pool.h"
#include "samebits/numerics/element.h"

namespace samebits {
namespace {

struct Options {
  std::string cpu = "native", dtype = "bfloat16";
  int threads = DefaultThreads();
  int64_t heads = 14, kv_heads = 2, head_dim = 64, rows = 512, before = 0, layers = 8;
  int rounds = 7;
};

// Ordinary numbers; the speed does not depend on which.
void Fill(const PagedBuffer& buffer, DType dtype) {
  uint32_t state = 1;
  const size_t count = buffer.size() / static_cast<size_t>(DTypeSize(dtype));
  for (size_t i = 0; i < count; ++i) {
    state = state * 1664525 + 1013904223;
    const float value = static_cast<float>(static_cast<int>(state >> 8) % 255 - 127) / 128;
    StoreElement(dtype, buffer.data(), static_cast<int64_t>(i), value);
  }
}

struct Piece {
  int64_t head_begin, head_end, row_begin, row_end;
};

// Heads that share keys and values, so many rows that it pays to lay those out; of one row groups
// that are left over when all threads had as many are cut into heads.
std::vector<Piece> CutIntoPieces(const Options& o) {
  const int64_t group = o.heads / o.kv_heads, rows = (256 / group + 15) / 16 * 16;
  const int64_t whole = o.kv_heads * ((o.rows + rows - 1) / rows) / o.threads * o.threads;
  std::vector<Piece> pieces;
  int64_t seen = 0;
  for (int64_t kv = 0; kv < o.kv_heads; ++kv) {
    for (int64_t row = 0; row < o.rows; row += rows, ++seen) {
      const int64_t step = seen < whole ? group : 1;
      for (int64_t head = 0; head < group; head += step) {
        pieces.push_back(
            {kv * group + head, kv * group + head + step, row, std::min(o.rows, row + rows)});
      }
    }
  }
  std::reverse(pieces.begin(), pieces.end());
  return pieces;
}

void Run(const Options& o) {
  const auto dtype = ModelDTypeFromName(o.dtype);
  const auto isa = IsaFromName(o.cpu);
  if (!dtype || !isa || o.kv_heads < 1 || o.heads < 1 || o.heads % o.kv_heads != 0 ||
      o.head_dim < 2 || o.rows < 1 || o.before < 0 || o.layers < 1 || o.rounds < 1 ||
      o.threads < 1) {
    Fail(ErrorCode::kUsage, "no such dtype, cpu, heads, head_dim, rows, layers or rounds");
  }
  const int64_t size = DTypeSize(*dtype), keys = o.before + o.rows;
  const int64_t cache = o.kv_heads * keys * o.head_dim;  // elements of a layer's keys
  const auto bytes_of = [size](int64_t n) { return static_cast<size_t>(n * size); };
  PagedBuffer caches(bytes_of(2 * o.layers * cache));
  PagedBuffer q(bytes_of(o.rows * o.heads * o.head_dim));
  PagedBuffer context(bytes_of(o.rows * o.heads * o.head_dim));
  PagedBuffer scratch(size_t{1} << 30);
  Fill(caches, *dtype);
  Fill(q, *dtype);
  ThreadPool pool(o.threads);
  const Kernels& kernels = SelectKernels(*isa);
  const std::vector<Piece> pieces = CutIntoPieces(o);
  const auto pass = [&] {
    for (int64_t layer = 0; layer < o.layers; ++layer) {
      const std::byte* k = caches.data() + 2 * layer * cache * size;
      const AttentionArgs args = {
          *dtype,     q.data(),       k,          k + cache * size, keys * o.head_dim,
          o.head_dim, context.data(), nullptr,    nullptr,          o.rows,
          o.heads,    o.kv_heads,     o.head_dim, o.before + 1,     0.125F,
          0};
      pool.ParallelFor(static_cast<int64_t>(pieces.size()), [&](int64_t i) {
        const Piece& piece = pieces[static_cast<size_t>(i)];
        kernels.attention(args, piece.head_begin, piece.head_end, piece.row_begin, piece.row_end);
      });
    }
  };
  const auto rows = static_cast<double>(o.rows), before = static_cast<double>(o.before);
  const double products = static_cast<double>(o.heads * o.head_dim) * rows *
                          (before + (rows + 1) / 2);  // of queries and keys that they see
  const double work = static_cast<double>(o.layers) *
                      (o.rows == 1 ? 2.0 * static_cast<double>(cache * size) : 4 * products);
  pass();
  const double start = Now();
  pass();
  const int passes = std::max(1, static_cast<int>(0.2 / (Now() - start)));
  Shares shares;
  const auto measure_limit = [&] {
    return o.rows == 1 ? ReadBandwidth(scratch, pool)
                       : PeakFlops(*isa, *dtype == DType::kBF16, pool);
  };
  for (int round = 0; round < o.rounds; ++round) {
    const double first = measure_limit(), begin = Now();
    for (int i = 0; i < passes; ++i) pass();
    const double speed = work * passes / (Now() - begin);
    shares.Add(speed, std::max(first, measure_limit()));
  }
  fmt::print(
      "{} {}, {} heads, {} of keys, head_dim {}, threads {}, {} rows behind {}: {:.1f} {} of "
      "{:.1f}; {}\n",
      o.dtype, IsaName(*isa), o.heads, o.kv_heads, o.head_dim, o.threads, o.rows, o.before,
      shares.speed() / 1e9, o.rows == 1 ? "GB/s" : "GFLOP/s", shares.limit() / 1e9, shares.Text());
}

}  // namespace
}  // namespace samebits

int main(int argc, char** argv) {
  CLI::App app("Attention alone against this machine's limits");
  samebits::Options options;
  app.add_option("--heads", options.heads, "of queries");
  app.add_option("--kv-heads", options.kv_heads, "of keys and values");
  app.add_option("--head-dim", options.head_dim);
  app.add_option("--rows", options.rows, "tokens of a prompt; 1: decoding");
  app.add_option("--before", options.before, "tokens in the cache before them");
  app.add_option("--layers", options.layers, "caches, read in turn");
  app.add_option("--cpu", options.cpu, "native, avx512bf16, avx512, avx2, portable");
  app.add_option("--dtype", options.dtype, "bfloat16, float16, float32");
  app.add_option("--threads", options.threads, "threads");
  app.add_option("--rounds", options.rounds, "measurements; the median is printed");
  return samebits::RunProgram(app, argc, argv, "attention", [&] { samebits::Run(options); });
}
