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
  std::vector<std::thread> workers;
  std::mutex mutex;
  std::condition_variable wake, done;
  std::atomic<uint64_t> generation{0};  // counts the calls of ParallelFor
  std::atomic<int64_t> next{0};
  std::atomic<int> busy{0};  // workers that have not finished this generation
  int64_t pieces = 0;
  const std::function<void(int64_t)>* fn = nullptr;
  std::exception_ptr error;
  std::atomic<bool> stop{false};

  void RunPieces() {
    for (;;) {
      const int64_t piece = next.fetch_add(1);
      if (piece >= pieces) return;
      try {
        (*fn)(piece);
      } catch (...) {
        const std::scoped_lock lock(mutex);
        if (!error) error = std::current_exception();
        next.store(pieces);
      }
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
      RunPieces();
      if (busy.fetch_sub(1) == 1) {
        const std::scoped_lock lock(mutex);
        done.notify_one();
      }
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
  Impl& impl = *impl_;
  {
    const std::scoped_lock lock(impl.mutex);
    impl.pieces = pieces;
    impl.fn = &fn;
    impl.error = nullptr;
    impl.next.store(0);
    impl.busy.store(static_cast<int>(impl.workers.size()));
    impl.generation.fetch_add(1);
  }
  impl.wake.notify_all();
  impl.RunPieces();
  for (int i = 0; i < kSpins && impl.busy.load() != 0; ++i) __builtin_ia32_pause();
  std::unique_lock lock(impl.mutex);
  impl.done.wait(lock, [&] { return impl.busy.load() == 0; });
  if (impl.error) std::rethrow_exception(impl.error);
}

}  // namespace samebits
