#include "samebits/kernels/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <stdexcept>
#include <string>
#include <vector>

namespace samebits {
namespace {

TEST(ThreadPool, EveryPieceOnce) {
  for (int threads : {1, 2, 3, 7}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.threads(), threads);
    for (int64_t pieces : {0, 1, 2, 5, 100, 1000}) {
      std::vector<std::atomic<int>> done(static_cast<size_t>(pieces));
      pool.ParallelFor(pieces, [&](int64_t piece) { ++done[static_cast<size_t>(piece)]; });
      for (const auto& count : done) ASSERT_EQ(count.load(), 1);
    }
  }
}

// Many short regions one after the other, as in decoding: what a region wrote, the next one sees.
TEST(ThreadPool, RegionsFollowOneAnother) {
  for (int threads : {2, 3, 7}) {
    ThreadPool pool(threads);
    std::vector<int64_t> values(16, 0);
    constexpr int64_t kRegions = 3000;
    for (int64_t region = 0; region < kRegions; ++region) {
      pool.ParallelFor(16, [&](int64_t piece) {
        ASSERT_EQ(values[static_cast<size_t>(piece)], region);
        ++values[static_cast<size_t>(piece)];
      });
    }
    for (int64_t value : values) EXPECT_EQ(value, kRegions);
  }
}

TEST(ThreadPool, ThrowsTheErrorOfAPieceAndGoesOn) {
  for (int threads : {1, 2, 7}) {
    ThreadPool pool(threads);
    for (int round = 0; round < 20; ++round) {
      try {
        pool.ParallelFor(50, [](int64_t piece) {
          if (piece == 13) throw std::runtime_error("piece 13");
        });
        ADD_FAILURE() << "no exception";
      } catch (const std::runtime_error& error) {
        EXPECT_EQ(std::string(error.what()), "piece 13");
      }
      std::atomic<int64_t> sum{0};
      pool.ParallelFor(10, [&](int64_t piece) { sum += piece; });
      EXPECT_EQ(sum.load(), 45);
    }
  }
}

TEST(ThreadPool, ManyPoolsComeAndGo) {
  for (int i = 0; i < 50; ++i) {
    ThreadPool pool(3);
    std::atomic<int> count{0};
    if (i % 2 == 0) pool.ParallelFor(4, [&](int64_t) { ++count; });
    EXPECT_EQ(count.load(), i % 2 == 0 ? 4 : 0);
  }
}

TEST(ThreadPool, DefaultThreadsArePositive) { EXPECT_GE(DefaultThreads(), 1); }

}  // namespace
}  // namespace samebits
