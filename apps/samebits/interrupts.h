// Ctrl-C as a flag that long work looks at.
#pragma once

#include <atomic>
#include <csignal>

namespace samebits {

inline std::atomic<bool> interrupted{false};
static_assert(std::atomic<bool>::is_always_lock_free, "set in a signal handler");

// While it lives, Ctrl-C sets the flag and does not end the program.
class CatchInterrupts {
 public:
  CatchInterrupts() {
    struct sigaction action {};
    action.sa_handler = [](int) { interrupted.store(true); };
    sigaction(SIGINT, &action, &before_);  // no SA_RESTART: reading a line ends, too
  }
  ~CatchInterrupts() { sigaction(SIGINT, &before_, nullptr); }
  CatchInterrupts(const CatchInterrupts&) = delete;
  CatchInterrupts& operator=(const CatchInterrupts&) = delete;

 private:
  struct sigaction before_ {};
};

}  // namespace samebits
