// The only file that knows MPI.
#include "apps/samebits/ranks.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <thread>

#include "apps/samebits/rank_watch.h"
#include "samebits/base/error.h"

#ifdef SAMEBITS_MPI
#define OMPI_SKIP_MPICXX
#include <mpi.h>
#endif

namespace samebits {
namespace {

// What the launchers tell their processes: Open MPI, MPICH and Slurm.
int FromLauncher(std::initializer_list<const char*> names) {
  for (const char* name : names) {
    const char* value = std::getenv(name);
    if (value == nullptr) continue;
    int number = 1;
    const std::string_view text(value);
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error == std::errc() && end == text.data() + text.size()) return std::max(1, number);
  }
  return 1;
}

}  // namespace

int LocalRanks() { return FromLauncher({"OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS"}); }

#ifdef SAMEBITS_MPI

namespace {

class MpiRanks : public Communicator {
 public:
  MpiRanks() {
    MPI_Comm_rank(MPI_COMM_WORLD, &rank_);
    MPI_Comm_size(MPI_COMM_WORLD, &size_);
  }
  int rank() const override { return rank_; }
  int size() const override { return size_; }

  void AllGather(int first, const void* own, std::span<const int64_t> bytes, void* all) override {
    const int64_t exchange = BeginAllGather(first, own, bytes, all);
    while (!Arrived(exchange)) std::this_thread::yield();
  }
  int64_t BeginAllGather(int first, const void* own, std::span<const int64_t> bytes,
                         void* all) override {
    // MPI reads counts and places until the end.
    Moving& moving = moving_[next_];
    int64_t at = 0;
    for (const int64_t count : bytes) {
      moving.counts.push_back(Fitting(count));
      moving.places.push_back(Fitting(at));
      at += count;
    }
    const auto own_place = static_cast<size_t>(rank_ - first);
    Count(at - bytes[own_place]);
    moving.earliest += std::chrono::duration_cast<Clock::duration>(delay);
    MPI_Iallgatherv(own, moving.counts[own_place], MPI_BYTE, all, moving.counts.data(),
                    moving.places.data(), MPI_BYTE, Group(first, static_cast<int>(bytes.size())),
                    &moving.request);
    return next_++;
  }
  bool Arrived(int64_t exchange) override {
    Moving& moving = moving_.at(exchange);
    int done = 0;
    MPI_Test(&moving.request, &done, MPI_STATUS_IGNORE);
    if (done == 0 || Clock::now() < moving.earliest) return false;
    moving_.erase(exchange);
    return true;
  }
  void Send(int to, const void* data, int64_t bytes) override {
    Begin(0);
    MPI_Send(data, Fitting(bytes), MPI_BYTE, to, 0, MPI_COMM_WORLD);
  }
  void Receive(int from, void* data, int64_t bytes) override {
    Begin(bytes);
    MPI_Recv(data, Fitting(bytes), MPI_BYTE, from, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
  }
  void Broadcast(int root, void* data, int64_t bytes) override {
    Begin(rank_ == root ? 0 : bytes);
    MPI_Bcast(data, Fitting(bytes), MPI_BYTE, root, MPI_COMM_WORLD);
  }

  std::chrono::duration<double> delay{0};

 private:
  using Clock = std::chrono::steady_clock;
  struct Moving {
    MPI_Request request = MPI_REQUEST_NULL;
    std::vector<int> counts, places;
    Clock::time_point earliest = Clock::now();  // that it may be there
  };

  void Begin(int64_t received) {
    Count(received);
    if (delay.count() > 0) std::this_thread::sleep_for(delay);
  }

  // MPI counts in int; tensors of a call stay far below, or are asked for in smaller chunks.
  static int Fitting(int64_t bytes) {
    if (bytes > INT32_MAX) {
      Fail(ErrorCode::kUnsupported, "an exchange of {} bytes: at most {}; take a smaller --chunk",
           bytes, INT32_MAX);
    }
    return static_cast<int>(bytes);
  }

  MPI_Comm Group(int first, int count) {
    if (count == size_) return MPI_COMM_WORLD;
    const auto known = groups_.find({first, count});
    if (known != groups_.end()) return known->second;
    MPI_Group world = MPI_GROUP_NULL, group = MPI_GROUP_NULL;
    MPI_Comm_group(MPI_COMM_WORLD, &world);
    int range[1][3] = {{first, first + count - 1, 1}};
    MPI_Group_range_incl(world, 1, range, &group);
    MPI_Comm comm = MPI_COMM_NULL;
    MPI_Comm_create_group(MPI_COMM_WORLD, group, first, &comm);
    MPI_Group_free(&group);
    MPI_Group_free(&world);
    return groups_[{first, count}] = comm;
  }

  int rank_ = 0, size_ = 1;
  std::map<std::pair<int, int>, MPI_Comm> groups_;
  std::map<int64_t, Moving> moving_;
  int64_t next_ = 0;
};

std::unique_ptr<MpiRanks> process_ranks;
std::unique_ptr<RankWatch> watch;

void LeadNowhere(int descriptor) {
  const int nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);
  if (nowhere < 0) return;
  dup2(nowhere, descriptor);
  close(nowhere);
}

}  // namespace

void StartRanks() {
  if (FromLauncher({"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_NTASKS"}) == 1) return;
  int provided = 0;
  MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &provided);
  if (provided < MPI_THREAD_SERIALIZED) {
    Fail(ErrorCode::kUnsupported, "this MPI wants one thread alone (level {}, {} is needed)",
         provided, MPI_THREAD_SERIALIZED);
  }
  process_ranks = std::make_unique<MpiRanks>();
  if (process_ranks->size() == 1) {
    process_ranks.reset();
    MPI_Finalize();
    return;
  }
  const int errors = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
  std::string root;
  if (IsRootRank()) {
    watch = RankWatch::Root(process_ranks->size(), errors);
    root = watch->address();
  }
  root = FromRoot(root);
  if (IsRootRank()) {
    watch->Begin();
  } else {
    watch = RankWatch::Other(process_ranks->rank(), process_ranks->size(), root, errors);
    LeadNowhere(STDOUT_FILENO);
    LeadNowhere(STDERR_FILENO);
  }
}

Communicator* ProcessRanks() { return process_ranks.get(); }

void DelayExchanges(std::chrono::duration<double> delay) {
  prctl(PR_SET_TIMERSLACK, 1UL);  // or sleeping takes 0.05 ms more
  if (process_ranks != nullptr) process_ranks->delay = delay;
}

bool IsRootRank() { return process_ranks == nullptr || process_ranks->rank() == 0; }

void FailRank(const std::string& message) {
  if (watch != nullptr) watch->Fail(message);
  fmt::print(stderr, "samebits: {}\n", message);
}

void EndRanks() {
  if (process_ranks == nullptr) return;
  // Not MPI_Barrier, which keeps a core busy: a command may run on rank 0 alone.
  MPI_Request request = MPI_REQUEST_NULL;
  MPI_Ibarrier(MPI_COMM_WORLD, &request);
  for (int done = 0; done == 0;) {
    MPI_Test(&request, &done, MPI_STATUS_IGNORE);
    if (done == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  watch->Done();
  process_ranks.reset();
  MPI_Finalize();
  watch.reset();
}

#else  // without MPI

void StartRanks() {
  const int size = FromLauncher({"OMPI_COMM_WORLD_SIZE", "PMI_SIZE"});
  if (size > 1) {
    Fail(ErrorCode::kUnsupported,
         "{} ranks: this build has no MPI; install libopenmpi-dev and build again", size);
  }
}
Communicator* ProcessRanks() { return nullptr; }
void DelayExchanges(std::chrono::duration<double>) {}
bool IsRootRank() { return true; }
void FailRank(const std::string& message) { fmt::print(stderr, "samebits: {}\n", message); }
void EndRanks() {}

#endif

std::string FromRoot(std::string text) {
  Communicator* ranks = ProcessRanks();
  if (ranks == nullptr) return text;
  auto size = static_cast<int64_t>(text.size());
  ranks->Broadcast(0, &size, sizeof(size));
  text.resize(static_cast<size_t>(size));
  if (size > 0) ranks->Broadcast(0, text.data(), size);
  return text;
}

void AgreeOn(const std::vector<std::pair<std::string, std::string>>& facts) {
  Communicator* ranks = ProcessRanks();
  if (ranks == nullptr) return;
  for (const auto& [name, own] : facts) {
    const std::string expected = FromRoot(own);
    const char same = own == expected ? 1 : 0;
    std::string all(static_cast<size_t>(ranks->size()), '\0');
    ranks->AllGather(0, &same, std::vector<int64_t>(all.size(), 1), all.data());
    const size_t other = all.find('\0');
    if (other == std::string::npos) continue;
    Fail(ErrorCode::kUsage, "rank {} of {} has another {} than rank 0 ({})", other, ranks->size(),
         name, expected);
  }
}

}  // namespace samebits
