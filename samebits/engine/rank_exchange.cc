#include "samebits/engine/rank_exchange.h"

#include <array>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <numeric>
#include <string>
#include <thread>
#include <utility>

#include "samebits/base/error.h"

namespace samebits {
namespace {

constexpr size_t kMaxRank = 3;  // [H, rows, keys]

// In front of a recorded tensor's name and bytes; part -1: no more.
struct RecordHeader {
  int64_t part = -1, name_size = 0, dtype = 0, first_token = 0, rank = 0;
  std::array<int64_t, kMaxRank> shape = {};
};

// Outputs of attention with a row for each head, not for each token.
bool RowsAreHeads(std::string_view name) {
  return name.ends_with(".scores") || name.ends_with(".probs");
}

// Of each rank, of `rows` rows with elements of `size` bytes.
std::vector<int64_t> ShareBytes(const Split& split, int64_t rows, int64_t size) {
  std::vector<int64_t> bytes;
  for (const Range& range : split.ranges) bytes.push_back(rows * range.size() * split.unit * size);
  return bytes;
}

// shares: [rows, share] of each rank, one behind the other; all: [rows, whole].
void PlaceShares(const Split& split, int64_t rows, int64_t size, const std::byte* shares,
                 std::byte* all) {
  const int64_t unit = split.unit * size;
  for (const Range& range : split.ranges) {
    const int64_t share = range.size() * unit;
    for (int64_t row = 0; row < rows; ++row, shares += share) {
      std::memcpy(all + row * split.whole * unit + range.begin * unit, shares,
                  static_cast<size_t>(share));
    }
  }
}

}  // namespace

// A thread that begins the gathers it is given at once, so that one does not wait for what another
// has to say first, and takes them as they arrive, in order.
class RankExchange::Background {
 public:
  explicit Background(Communicator& ranks) : ranks_(ranks), thread_([this] { Work(); }) {}
  ~Background() {
    {
      const std::lock_guard lock(mutex_);
      ending_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }

  struct Gather {
    int first;
    const std::byte* own;
    std::vector<int64_t> bytes;
    std::function<void(const std::byte* shares)> take;
    std::vector<std::byte> staging = {};
    int64_t exchange = 0;
  };

  int64_t Begin(Gather gather) {
    const std::lock_guard lock(mutex_);
    new_.push_back(std::move(gather));
    changed_.notify_all();
    return ++begun_;
  }

  void Wait(int64_t number) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return done_ >= number || error_ != nullptr; });
    if (error_ != nullptr) std::rethrow_exception(error_);
  }

 private:
  void Work() {
    std::deque<Gather> moving;
    int polls = 0;  // since something happened
    std::unique_lock lock(mutex_);
    while (true) {
      if (moving.empty()) changed_.wait(lock, [&] { return ending_ || !new_.empty(); });
      if (ending_) return;
      std::deque<Gather> fresh = std::move(new_);
      new_.clear();
      lock.unlock();
      bool arrived = false;
      std::exception_ptr error;
      try {
        for (Gather& gather : fresh) {
          gather.staging.resize(static_cast<size_t>(
              std::accumulate(gather.bytes.begin(), gather.bytes.end(), int64_t{0})));
          gather.exchange =
              ranks_.BeginAllGather(gather.first, gather.own, gather.bytes, gather.staging.data());
          moving.push_back(std::move(gather));
        }
        arrived = ranks_.Arrived(moving.front().exchange);
        if (arrived) {
          moving.front().take(moving.front().staging.data());
          moving.pop_front();
        }
      } catch (...) {
        error = std::current_exception();
      }
      polls = arrived || !fresh.empty() ? 0 : polls + 1;
      if (polls > 0) Pause(polls);
      lock.lock();
      if (arrived) ++done_;
      if (error != nullptr) error_ = error;
      if (arrived || error != nullptr) changed_.notify_all();
      if (error_ != nullptr) return;
    }
  }

  // What takes long leaves the core to those who compute.
  static void Pause(int polls) {
    if (polls < 100) return std::this_thread::yield();
    std::this_thread::sleep_for(std::chrono::microseconds(20));
  }

  Communicator& ranks_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Gather> new_;
  int64_t begun_ = 0, done_ = 0;
  bool ending_ = false;
  std::exception_ptr error_;
  std::thread thread_;  // last: it reads the others
};

RankExchange::RankExchange(Communicator& ranks, const ParallelPlan& plan)
    : ranks_(ranks), plan_(plan) {
  SAMEBITS_CHECK(ranks.size() == plan.ranks(), "as many ranks as the plan has");
}

RankExchange::~RankExchange() = default;

void RankExchange::Gather(const Split& split, const TensorView& own, const TensorView& all) {
  GatherRows(split, own.shape[0], DTypeSize(own.dtype), own.data, const_cast<std::byte*>(all.data));
}

int64_t RankExchange::BeginGather(const Split& split, const Range& rows, const TensorView& own,
                                  const TensorView& all) {
  if (background_ == nullptr) background_ = std::make_unique<Background>(ranks_);
  const int64_t own_row = own.bytes() / own.shape[0], row = all.bytes() / all.shape[0];
  return background_->Begin(
      {stage() * plan_.tp, own.data + rows.begin * own_row,
       ShareBytes(split, rows.size(), DTypeSize(own.dtype)),
       [&split, rows, size = DTypeSize(own.dtype),
        to = const_cast<std::byte*>(all.data) + rows.begin * row](const std::byte* shares) {
         PlaceShares(split, rows.size(), size, shares, to);
       }});
}

void RankExchange::Wait(int64_t number) { background_->Wait(number); }

void RankExchange::GatherRows(const Split& split, int64_t rows, int64_t size, const std::byte* own,
                              std::byte* all) {
  const std::vector<int64_t> bytes = ShareBytes(split, rows, size);
  int64_t total = 0;
  bool in_place = rows == 1;  // one row's shares lie one behind the other
  for (size_t i = 0; i < bytes.size(); total += bytes[i++]) {
    in_place = in_place && split.ranges[i].begin * split.unit * size == total;
  }
  const int first = stage() * plan_.tp;
  if (in_place) return ranks_.AllGather(first, own, bytes, all);
  staging_.resize(static_cast<size_t>(total));
  ranks_.AllGather(first, own, bytes, staging_.data());
  PlaceShares(split, rows, size, staging_.data(), all);
}

void RankExchange::ShareLogits(std::byte* data, int64_t bytes) {
  if (plan_.pp > 1) ranks_.Broadcast((plan_.pp - 1) * plan_.tp, data, bytes);
}

void RankExchange::Record(size_t part, Recorder& recorder, const Split& split,
                          std::string_view name, const TensorView& rows, int64_t first_token) {
  TensorView whole = rows;
  if (split) {
    const int64_t size = DTypeSize(rows.dtype);
    if (RowsAreHeads(name)) {
      Split heads = split;
      heads.unit = rows.shape[1] * rows.shape[2];
      whole.shape[0] = split.whole;
      recorded_.resize(static_cast<size_t>(whole.bytes()));
      GatherRows(heads, 1, size, rows.data, recorded_.data());
    } else {
      // [T, columns] or [T, heads, D]
      whole.shape[1] = split.whole * (rows.shape.size() == 2 ? split.unit : 1);
      recorded_.resize(static_cast<size_t>(whole.bytes()));
      GatherRows(split, rows.shape[0], size, rows.data, recorded_.data());
    }
    whole.data = recorded_.data();
  }
  if (ranks_.rank() == 0) return recorder.Record(name, whole, first_token);
  if (ranks_.rank() % plan_.tp == 0) SendRecord(part, name, whole, first_token);
}

void RankExchange::SendRecord(size_t part, std::string_view name, const TensorView& rows,
                              int64_t first_token) {
  SAMEBITS_CHECK(rows.shape.size() <= kMaxRank, "a tensor of a trace");
  RecordHeader header{static_cast<int64_t>(part),
                      static_cast<int64_t>(name.size()),
                      static_cast<int64_t>(rows.dtype),
                      first_token,
                      static_cast<int64_t>(rows.shape.size()),
                      {}};
  std::copy(rows.shape.begin(), rows.shape.end(), header.shape.begin());
  ranks_.Send(0, &header, sizeof(header));
  ranks_.Send(0, name.data(), header.name_size);
  ranks_.Send(0, rows.data, rows.bytes());
}

bool RankExchange::TakeRecord(int from, std::span<Recorder* const> recorders) {
  RecordHeader header;
  ranks_.Receive(from, &header, sizeof(header));
  if (header.part < 0) return false;
  std::string name(static_cast<size_t>(header.name_size), '\0');
  ranks_.Receive(from, name.data(), header.name_size);
  TensorView view;
  view.dtype = static_cast<DType>(header.dtype);
  view.shape.assign(header.shape.begin(), header.shape.begin() + header.rank);
  recorded_.resize(static_cast<size_t>(view.bytes()));
  view.data = recorded_.data();
  ranks_.Receive(from, recorded_.data(), view.bytes());
  recorders[static_cast<size_t>(header.part)]->Record(name, view, header.first_token);
  return true;
}

void RankExchange::FinishRecords(std::span<Recorder* const> recorders) {
  if (ranks_.rank() != 0) {
    const RecordHeader end;
    if (ranks_.rank() % plan_.tp == 0) ranks_.Send(0, &end, sizeof(end));
    return;
  }
  for (int stage = 1; stage < plan_.pp; ++stage) {
    while (TakeRecord(stage * plan_.tp, recorders)) {
    }
  }
}

}  // namespace samebits
