#include "samebits/diagnose/shared_sums.h"

#include <algorithm>
#include <vector>

#include "samebits/graph/parallel.h"

namespace samebits {
namespace {

// What rank 0 tells the others, in front of the weight's name and x. No rows: the end.
struct Job {
  int64_t rows = 0, size = 0, outs = 0, name_size = 0;
  int64_t dtype = 0, through = -1, products = 0;
  int64_t transposed = 0, truncate = 0;
};

// Calls exchange(data, bytes) for all values: MPI counts bytes in int.
template <typename Exchange>
void InPieces(std::vector<double>& values, const Exchange& exchange) {
  constexpr size_t kMost = size_t{1} << 24;
  for (size_t at = 0; at < values.size(); at += kMost) {
    const size_t count = std::min(kMost, values.size() - at);
    exchange(values.data() + at, static_cast<int64_t>(count * sizeof(double)));
  }
}

// A rank's columns of y and magnitude of all rows, as they travel: each exchange waits for the
// other side, so there is one and not one a row.
void Pack(const exact::DotArgs& args, Range share, std::vector<double>& packed) {
  packed.clear();
  for (int64_t row = 0; row < args.rows; ++row) {
    const int64_t at = row * args.outs + share.begin;
    packed.insert(packed.end(), args.y + at, args.y + at + share.size());
    packed.insert(packed.end(), args.magnitude + at, args.magnitude + at + share.size());
  }
}

void Unpack(const std::vector<double>& packed, Range share, const exact::DotArgs& args) {
  auto from = packed.begin();
  for (int64_t row = 0; row < args.rows; ++row) {
    const int64_t at = row * args.outs + share.begin;
    std::copy_n(from, share.size(), args.y + at);
    std::copy_n(from + share.size(), share.size(), args.magnitude + at);
    from += 2 * share.size();
  }
}

}  // namespace

void ComputeSums(const exact::DotArgs& args, Range outs, ThreadPool& pool) {
  constexpr int64_t kPiece = 64;
  pool.ParallelFor((outs.size() + kPiece - 1) / kPiece, [&](int64_t piece) {
    const int64_t begin = outs.begin + piece * kPiece;
    exact::Dots(args, begin, std::min(outs.end, begin + kPiece));
  });
}

void SharedSums::Compute(const std::string& weight, const exact::DotArgs& args, ThreadPool& pool) {
  constexpr int64_t kWorthIt = 1 << 20;  // multiplications: some hundred microseconds
  if (args.rows * args.size * args.outs < kWorthIt) {
    return ComputeSums(args, {0, args.outs}, pool);
  }
  Job job;
  job.rows = args.rows;
  job.size = args.size;
  job.outs = args.outs;
  job.name_size = static_cast<int64_t>(weight.size());
  job.dtype = static_cast<int64_t>(args.dtype);
  if (args.through) job.through = static_cast<int64_t>(*args.through);
  job.products = static_cast<int64_t>(args.products);
  job.transposed = args.transposed ? 1 : 0;
  job.truncate = args.truncate ? 1 : 0;
  std::string name = weight;
  std::vector<double> x(args.x, args.x + args.rows * args.size);
  ranks_.Broadcast(0, &job, sizeof(job));
  ranks_.Broadcast(0, name.data(), job.name_size);
  InPieces(x, [&](double* data, int64_t bytes) { ranks_.Broadcast(0, data, bytes); });
  const std::vector<Range> shares = EvenRanges(args.outs, ranks_.size());
  ComputeSums(args, shares[0], pool);
  std::vector<double> packed;
  for (int rank = 1; rank < ranks_.size(); ++rank) {
    const Range& share = shares[static_cast<size_t>(rank)];
    packed.resize(static_cast<size_t>(2 * args.rows * share.size()));
    InPieces(packed, [&](double* data, int64_t bytes) { ranks_.Receive(rank, data, bytes); });
    Unpack(packed, share, args);
  }
}

void SharedSums::End() {
  Job end;
  ranks_.Broadcast(0, &end, sizeof(end));
}

void SharedSums::Serve(ThreadPool& pool) {
  std::vector<double> x, y, magnitude, packed;
  while (true) {
    Job job;
    ranks_.Broadcast(0, &job, sizeof(job));
    if (job.rows == 0) return;
    std::string name(static_cast<size_t>(job.name_size), '\0');
    ranks_.Broadcast(0, name.data(), job.name_size);
    x.resize(static_cast<size_t>(job.rows * job.size));
    InPieces(x, [&](double* data, int64_t bytes) { ranks_.Broadcast(0, data, bytes); });
    y.resize(static_cast<size_t>(job.rows * job.outs));
    magnitude.resize(y.size());
    exact::DotArgs args{};
    args.x = x.data();
    args.w = checkpoint_.Get(name);
    args.dtype = static_cast<DType>(job.dtype);
    args.transposed = job.transposed != 0;
    args.truncate = job.truncate != 0;
    args.rows = job.rows;
    args.size = job.size;
    args.outs = job.outs;
    args.y = y.data();
    args.magnitude = magnitude.data();
    if (job.through >= 0) args.through = static_cast<DType>(job.through);
    args.products = static_cast<exact::Products>(job.products);
    const Range share = EvenRanges(args.outs, ranks_.size())[static_cast<size_t>(ranks_.rank())];
    ComputeSums(args, share, pool);
    Pack(args, share, packed);
    InPieces(packed, [&](double* data, int64_t bytes) { ranks_.Send(0, data, bytes); });
  }
}

}  // namespace samebits
