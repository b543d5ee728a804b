#include "tests/invariance/local_ranks.h"

#include <condition_variable>
#include <cstring>
#include <deque>
#include <exception>
#include <map>
#include <mutex>
#include <numeric>
#include <thread>
#include <utility>
#include <vector>

#include "samebits/base/error.h"

namespace samebits {
namespace {

using Message = std::vector<std::byte>;

class Mailboxes {
 public:
  void Put(int from, int to, const void* data, int64_t bytes) {
    Message message(static_cast<size_t>(bytes));
    if (bytes > 0) std::memcpy(message.data(), data, message.size());
    const std::lock_guard lock(mutex_);
    boxes_[{from, to}].push_back(std::move(message));
    arrived_.notify_all();
  }

  void Take(int from, int to, void* data, int64_t bytes) {
    std::unique_lock lock(mutex_);
    std::deque<Message>& box = boxes_[{from, to}];
    arrived_.wait(lock, [&] { return !box.empty(); });
    SAMEBITS_CHECK(static_cast<int64_t>(box.front().size()) == bytes, "both sides name one size");
    if (bytes > 0) std::memcpy(data, box.front().data(), box.front().size());
    box.pop_front();
  }

 private:
  std::mutex mutex_;
  std::condition_variable arrived_;
  std::map<std::pair<int, int>, std::deque<Message>> boxes_;
};

class LocalRank : public Communicator {
 public:
  LocalRank(Mailboxes& boxes, int rank, int size) : boxes_(boxes), rank_(rank), size_(size) {}
  int rank() const override { return rank_; }
  int size() const override { return size_; }

  void AllGather(int first, const void* own, std::span<const int64_t> bytes, void* all) override {
    BeginAllGather(first, own, bytes, all);
    Arrived(next_ - 1);
  }
  int64_t BeginAllGather(int first, const void* own, std::span<const int64_t> bytes,
                         void* all) override {
    const auto count = static_cast<int>(bytes.size());
    Count(std::accumulate(bytes.begin(), bytes.end(), int64_t{0}) -
          bytes[static_cast<size_t>(rank_ - first)]);
    for (int i = 0; i < count; ++i) {
      boxes_.Put(rank_, first + i, own, bytes[static_cast<size_t>(rank_ - first)]);
    }
    begun_.push_back({first, {bytes.begin(), bytes.end()}, static_cast<std::byte*>(all)});
    return next_++;
  }
  bool Arrived(int64_t exchange) override {
    SAMEBITS_CHECK(exchange == next_ - static_cast<int64_t>(begun_.size()), "in order");
    Begun begun = std::move(begun_.front());
    begun_.pop_front();
    for (const int64_t count : begun.bytes) {
      boxes_.Take(begun.first++, rank_, begun.all, count);
      begun.all += count;
    }
    return true;
  }
  void Send(int to, const void* data, int64_t bytes) override {
    Count(0);
    boxes_.Put(rank_, to, data, bytes);
  }
  void Receive(int from, void* data, int64_t bytes) override {
    Count(bytes);
    boxes_.Take(from, rank_, data, bytes);
  }
  void Broadcast(int root, void* data, int64_t bytes) override {
    Count(rank_ == root ? 0 : bytes);
    if (rank_ != root) return boxes_.Take(root, rank_, data, bytes);
    for (int to = 0; to < size_; ++to) {
      if (to != root) boxes_.Put(root, to, data, bytes);
    }
  }

 private:
  struct Begun {
    int first;
    std::vector<int64_t> bytes;
    std::byte* all;
  };

  Mailboxes& boxes_;
  const int rank_, size_;
  std::deque<Begun> begun_;
  int64_t next_ = 0;
};

}  // namespace

void RunLocalRanks(int size, const std::function<void(Communicator&)>& fn) {
  Mailboxes boxes;
  std::vector<std::exception_ptr> errors(static_cast<size_t>(size));
  std::vector<std::thread> threads;
  threads.reserve(static_cast<size_t>(size));
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      LocalRank communicator(boxes, rank, size);
      try {
        fn(communicator);
      } catch (...) {
        errors[static_cast<size_t>(rank)] = std::current_exception();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::exception_ptr& error : errors) {
    if (error != nullptr) std::rethrow_exception(error);
  }
}

}  // namespace samebits
