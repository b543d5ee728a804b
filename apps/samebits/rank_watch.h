// Sees to it that no rank waits for ever: a thread of each rank, and a connection of each to rank 0
// beside MPI. A rank that dies closes its connection, one that stalls sends no sign of life, one
// that fails says why; rank 0 prints one message that names the rank, and all end with exit code 2.
// When it is rank 0 that is lost, rank 1 prints.
#pragma once

#include <memory>
#include <string>

namespace samebits {

class RankWatch {
 public:
  // Addresses under which rank 0 is reached: "HOST_NAME ADDRESS ADDRESS ... PORT".
  // `errors`: the file descriptor that messages go to.
  static std::unique_ptr<RankWatch> Root(int size, int errors);
  // Throws Error(kIo) when rank 0 does not answer.
  static std::unique_ptr<RankWatch> Other(int rank, int size, const std::string& root, int errors);
  ~RankWatch();
  RankWatch(const RankWatch&) = delete;
  RankWatch& operator=(const RankWatch&) = delete;

  std::string address() const;
  // Rank 0: takes the connections of the others and begins to watch. Throws Error(kIo).
  void Begin();
  [[noreturn]] void Fail(const std::string& message);
  // This rank ends well: that it is gone from now on is no fault.
  void Done();

 private:
  struct Impl;
  explicit RankWatch(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace samebits
