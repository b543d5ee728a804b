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

void BroadcastRows(Communicator& ranks, double* x, int64_t count) {
  constexpr int64_t kMost = 1 << 21;  // values at once: MPI counts bytes in int
  for (int64_t at = 0; at < count; at += kMost) {
    ranks.Broadcast(0, x + at, std::min(kMost, count - at) * int64_t{sizeof(double)});
  }
}

int64_t Bytes(const Range& outs) { return outs.size() * int64_t{sizeof(double)}; }

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
  BroadcastRows(ranks_, x.data(), args.rows * args.size);
  const std::vector<Range> shares = EvenRanges(args.outs, ranks_.size());
  ComputeSums(args, shares[0], pool);
  for (int rank = 1; rank < ranks_.size(); ++rank) {
    const Range& share = shares[static_cast<size_t>(rank)];
    for (int64_t at = share.begin; at < args.rows * args.outs; at += args.outs) {
      ranks_.Receive(rank, args.y + at, Bytes(share));
      ranks_.Receive(rank, args.magnitude + at, Bytes(share));
    }
  }
}

void SharedSums::End() {
  Job end;
  ranks_.Broadcast(0, &end, sizeof(end));
}

void SharedSums::Serve(ThreadPool& pool) {
  std::vector<double> x, y, magnitude;
  while (true) {
    Job job;
    ranks_.Broadcast(0, &job, sizeof(job));
    if (job.rows == 0) return;
    std::string name(static_cast<size_t>(job.name_size), '\0');
    ranks_.Broadcast(0, name.data(), job.name_size);
    x.resize(static_cast<size_t>(job.rows * job.size));
    BroadcastRows(ranks_, x.data(), job.rows * job.size);
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
    for (int64_t at = share.begin; at < args.rows * args.outs; at += args.outs) {
      ranks_.Send(0, args.y + at, Bytes(share));
      ranks_.Send(0, args.magnitude + at, Bytes(share));
    }
  }
}

}  // namespace samebits
