#include "samebits/kernels/thread_pool.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <optional>
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

// A thread that comes late must not take a piece of the next region, nor one twice.
TEST(ThreadPool, LateThreadsTakeNothing) {
  ThreadPool pool(7);
  std::vector<std::atomic<int>> done(64);
  for (int64_t region = 0; region < 20000; ++region) {
    const int64_t pieces = 2 + region * 7 % 61;
    pool.ParallelFor(pieces, [&](int64_t piece) { ++done[static_cast<size_t>(piece)]; });
    for (int64_t piece = 0; piece < 64; ++piece) {
      ASSERT_EQ(done[static_cast<size_t>(piece)].exchange(0), piece < pieces ? 1 : 0) << region;
    }
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

// A machine made of files.
class FakeRoot {
 public:
  FakeRoot() : path_(std::filesystem::temp_directory_path() / "samebits-XXXXXX") {
    if (mkdtemp(path_.data()) == nullptr) throw std::runtime_error(path_);
  }
  ~FakeRoot() { std::filesystem::remove_all(path_); }
  FakeRoot(const FakeRoot&) = delete;
  FakeRoot& operator=(const FakeRoot&) = delete;
  void Write(const std::string& name, const std::string& text) const {
    const std::string path = path_ + name;
    std::filesystem::create_directories(std::filesystem::path(path).parent_path());
    std::ofstream(path) << text;
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

TEST(DefaultThreads, ArePositive) { EXPECT_GE(DefaultThreads(), 1); }

TEST(DefaultThreads, OneACore) {
  const FakeRoot root;
  for (int cpu = 0; cpu < 1024; ++cpu) {
    const std::string folder = "/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/";
    root.Write(folder + "physical_package_id", "0\n");
    root.Write(folder + "core_id", "7\n");
  }
  EXPECT_EQ(DefaultThreads(root.path()), 1);
}

TEST(DefaultThreads, WithinTheQuota) {
  const FakeRoot root;
  const int cores = DefaultThreads(root.path());  // each allowed CPU is a core, there is no quota
  root.Write("/sys/fs/cgroup/cpu.max", "100000 100000\n");
  EXPECT_EQ(DefaultThreads(root.path()), 1);
  root.Write("/sys/fs/cgroup/cpu.max", "900000000 100000\n");
  EXPECT_EQ(DefaultThreads(root.path()), cores);
}

TEST(CgroupCpus, Version2) {
  const FakeRoot root;
  EXPECT_EQ(CgroupCpus(root.path()), std::nullopt);
  root.Write("/proc/self/cgroup", "0::/a/b\n");
  root.Write("/sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
  EXPECT_EQ(CgroupCpus(root.path()), std::nullopt);
  root.Write("/sys/fs/cgroup/a/b/cpu.max", "400000 100000\n");
  EXPECT_EQ(CgroupCpus(root.path()), 4);
  root.Write("/sys/fs/cgroup/a/cpu.max", "250000 100000\n");  // the group around it: down to 2
  EXPECT_EQ(CgroupCpus(root.path()), 2);
  root.Write("/sys/fs/cgroup/cpu.max", "50000 100000\n");  // half a CPU is one thread
  EXPECT_EQ(CgroupCpus(root.path()), 1);
}

TEST(CgroupCpus, Version1) {
  const FakeRoot root;
  root.Write("/proc/self/cgroup", "5:cpuset:/x\n4:cpu,cpuacct:/docker/1\n0::/\n");
  root.Write("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
  root.Write("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(CgroupCpus(root.path()), std::nullopt);
  root.Write("/sys/fs/cgroup/cpu,cpuacct/docker/1/cpu.cfs_quota_us", "300000\n");
  root.Write("/sys/fs/cgroup/cpu,cpuacct/docker/1/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(CgroupCpus(root.path()), 3);
  root.Write("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "200000\n");
  EXPECT_EQ(CgroupCpus(root.path()), 2);
}

// Other contents than a kernel writes must not matter.
TEST(CgroupCpus, NoSense) {
  const FakeRoot root;
  for (const char* text : {"", "max", "-5 100000", "1e400 1", "x y", "100000 0", "100000 -1"}) {
    root.Write("/proc/self/cgroup", "0::/../..\n:::\nnonsense\n");
    root.Write("/sys/fs/cgroup/cpu.max", text);
    EXPECT_GE(CgroupCpus(root.path()).value_or(1), 1) << text;
  }
}

}  // namespace
}  // namespace samebits
