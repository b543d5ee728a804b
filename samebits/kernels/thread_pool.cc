#include "samebits/kernels/thread_pool.h"

#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "samebits/base/error.h"

namespace samebits {
namespace {

// Waits this many turns for new work before it sleeps: some microseconds, less than a wake-up
// costs.
constexpr int kSpins = 2000;

}  // namespace

struct ThreadPool::Impl {
  using Function = const std::function<void(int64_t)>;

  std::vector<std::thread> workers;
  std::mutex mutex;
  std::condition_variable wake, done;
  std::atomic<uint64_t> generation{0};  // counts the calls of ParallelFor; set last
  std::atomic<bool> stop{false};

  // Of the current call. The ticket holds its generation's low 32 bits and the next piece: who
  // comes late takes nothing, so that no call waits for a thread that has not come yet.
  std::atomic<uint64_t> ticket{kClosed};
  std::atomic<int64_t> pieces{0}, finished{0};
  std::atomic<Function*> fn{nullptr};
  std::atomic<bool> failed{false};
  std::exception_ptr error;

  static constexpr uint64_t kClosed = 0xffffffff;  // as the next piece: there is none

  void Open(int64_t count, Function& function) {
    const uint64_t next = generation.load() + 1;
    ticket.store(next << 32 | kClosed);  // before the rest: no old ticket meets the new pieces
    pieces.store(count);
    fn.store(&function);
    finished.store(0);
    failed.store(false);
    error = nullptr;
    ticket.store(next << 32);
    const std::scoped_lock lock(mutex);
    generation.store(next);
  }

  void RunPieces(uint64_t current) {
    for (;;) {
      uint64_t taken = ticket.load();
      if (taken >> 32 != (current & 0xffffffff)) return;
      const int64_t piece = static_cast<int64_t>(taken & 0xffffffff), count = pieces.load();
      Function* function = fn.load();
      if (piece >= count) return;
      if (!ticket.compare_exchange_weak(taken, taken + 1)) continue;
      Run(*function, piece);
      if (finished.fetch_add(1) + 1 == count) {
        const std::scoped_lock lock(mutex);
        done.notify_one();
      }
    }
  }

  // Behind an exception the other pieces are left out.
  void Run(Function& function, int64_t piece) {
    if (failed.load()) return;
    try {
      function(piece);
    } catch (...) {
      const std::scoped_lock lock(mutex);
      if (!error) error = std::current_exception();
      failed.store(true);
    }
  }

  void Work() {
    uint64_t seen = 0;
    for (;;) {
      for (int i = 0; i < kSpins && generation.load() == seen; ++i) __builtin_ia32_pause();
      if (generation.load() == seen) {
        std::unique_lock lock(mutex);
        wake.wait(lock, [&] { return generation.load() != seen; });
      }
      seen = generation.load();
      if (stop.load()) return;
      RunPieces(seen);
    }
  }
};

ThreadPool::ThreadPool(int threads) : impl_(std::make_unique<Impl>()) {
  SAMEBITS_CHECK(threads >= 1, "threads");
  for (int i = 1; i < threads; ++i) impl_->workers.emplace_back([this] { impl_->Work(); });
}

ThreadPool::~ThreadPool() {
  {
    const std::scoped_lock lock(impl_->mutex);
    impl_->stop.store(true);
    impl_->generation.fetch_add(1);
  }
  impl_->wake.notify_all();
  for (std::thread& worker : impl_->workers) worker.join();
}

int ThreadPool::threads() const { return static_cast<int>(impl_->workers.size()) + 1; }

void ThreadPool::ParallelFor(int64_t pieces, const std::function<void(int64_t)>& fn) {
  if (pieces <= 0) return;
  if (impl_->workers.empty() || pieces == 1) {
    for (int64_t piece = 0; piece < pieces; ++piece) fn(piece);
    return;
  }
  SAMEBITS_CHECK(pieces < static_cast<int64_t>(Impl::kClosed), "pieces");
  Impl& impl = *impl_;
  impl.Open(pieces, fn);
  impl.wake.notify_all();
  impl.RunPieces(impl.generation.load());
  const auto all = [&] { return impl.finished.load() == pieces; };
  for (int i = 0; i < kSpins && !all(); ++i) __builtin_ia32_pause();
  if (!all()) {
    std::unique_lock lock(impl.mutex);
    impl.done.wait(lock, all);
  }
  if (impl.error) std::rethrow_exception(impl.error);
}

}  // namespace samebits
