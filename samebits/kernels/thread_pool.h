// Threads that share out pieces of work. Which thread does a piece never matters for a result.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

namespace samebits {

// One a physical core, within the CPUs (affinity, cgroup) that the process may use. `root` is what
// stands before /proc and /sys: tests have their own.
int DefaultThreads(const std::string& root = "");

// Whole CPUs that the quota of the process's cgroup (version 1 or 2, and those around it) pays for,
// at least one; nothing: no quota.
std::optional<int> CgroupCpus(const std::string& root = "");

class ThreadPool {
 public:
  explicit ThreadPool(int threads);  // the caller counts as one
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const;
  // Calls fn(piece) once for each piece in [0, pieces), pieces taken up as threads come free, and
  // returns when all are done. The first exception of a piece is thrown here. Not reentrant.
  void ParallelFor(int64_t pieces, const std::function<void(int64_t)>& fn);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace samebits
