#include "samebits/engine/rank_exchange.h"

#include <array>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
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

}  // namespace

// A thread that runs what it is given, one after the other.
class RankExchange::Background {
 public:
  Background() : thread_([this] { Work(); }) {}
  ~Background() {
    {
      const std::lock_guard lock(mutex_);
      ending_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }

  int64_t Begin(std::function<void()> task) {
    const std::lock_guard lock(mutex_);
    tasks_.push_back(std::move(task));
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
    std::unique_lock lock(mutex_);
    while (true) {
      changed_.wait(lock, [&] { return ending_ || !tasks_.empty(); });
      if (ending_) return;
      const std::function<void()> task = std::move(tasks_.front());
      tasks_.pop_front();
      if (error_ != nullptr) continue;
      lock.unlock();
      std::exception_ptr error;
      try {
        task();
      } catch (...) {
        error = std::current_exception();
      }
      lock.lock();
      error_ = error;
      ++done_;
      changed_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> tasks_;
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
  if (background_ == nullptr) background_ = std::make_unique<Background>();
  const int64_t own_row = own.bytes() / own.shape[0], row = all.bytes() / all.shape[0];
  return background_->Begin([this, &split, rows, size = DTypeSize(own.dtype),
                             from = own.data + rows.begin * own_row,
                             to = const_cast<std::byte*>(all.data) + rows.begin * row] {
    GatherRows(split, rows.size(), size, from, to);
  });
}

void RankExchange::Wait(int64_t number) { background_->Wait(number); }

void RankExchange::GatherRows(const Split& split, int64_t rows, int64_t size, const std::byte* own,
                              std::byte* all) {
  const int64_t unit = split.unit * size;
  std::vector<int64_t> bytes;
  int64_t total = 0;
  bool in_place = rows == 1;  // one row's shares lie one behind the other
  for (const Range& range : split.ranges) {
    in_place = in_place && range.begin * unit == total;
    bytes.push_back(rows * range.size() * unit);
    total += bytes.back();
  }
  const int first = stage() * plan_.tp;
  if (in_place) return ranks_.AllGather(first, own, bytes, all);
  staging_.resize(static_cast<size_t>(total));
  ranks_.AllGather(first, own, bytes, staging_.data());
  const std::byte* from = staging_.data();
  for (const Range& range : split.ranges) {
    const int64_t share = range.size() * unit;
    for (int64_t row = 0; row < rows; ++row, from += share) {
      std::memcpy(all + row * split.whole * unit + range.begin * unit, from,
                  static_cast<size_t>(share));
    }
  }
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
