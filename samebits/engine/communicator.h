// How the ranks of a run exchange tensors. Each rank calls the same functions in the same order,
// one at a time, from any thread; all but BeginAllGather block until the exchange is done.
// Implementations: MPI (apps/samebits), threads of one process (tests/invariance/local_ranks.h).
#pragma once

#include <atomic>
#include <cstdint>
#include <span>

namespace samebits {

// What this rank has taken part in.
struct Traffic {
  int64_t exchanges = 0;
  int64_t received = 0;  // bytes that came from other ranks

  Traffic operator-(const Traffic& o) const {
    return {exchanges - o.exchanges, received - o.received};
  }
  Traffic& operator+=(const Traffic& o) {
    exchanges += o.exchanges;
    received += o.received;
    return *this;
  }
};

class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;

  // Among the ranks [first, first + bytes.size()), of which this is one: rank first + i gives
  // bytes[i] bytes; `all` gets them one behind the other.
  virtual void AllGather(int first, const void* own, std::span<const int64_t> bytes, void* all) = 0;
  // The same, which goes on while this rank does something else; several may be on their way. `own`
  // and `all` must live until Arrived, to be called again and again, says true, once.
  virtual int64_t BeginAllGather(int first, const void* own, std::span<const int64_t> bytes,
                                 void* all) = 0;
  virtual bool Arrived(int64_t exchange) = 0;
  virtual void Send(int to, const void* data, int64_t bytes) = 0;
  virtual void Receive(int from, void* data, int64_t bytes) = 0;
  // From rank `root` to all ranks.
  virtual void Broadcast(int root, void* data, int64_t bytes) = 0;

  Traffic traffic() const { return {exchanges_, received_}; }

 protected:
  void Count(int64_t received) {
    ++exchanges_;
    received_ += received;
  }

 private:
  std::atomic<int64_t> exchanges_ = 0, received_ = 0;
};

}  // namespace samebits
