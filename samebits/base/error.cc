#include "samebits/base/error.h"

#include <cstdio>
#include <cstdlib>

namespace samebits {

void CheckFailed(const char* file, int line, const char* condition, const std::string& message) {
  fmt::print(stderr, "samebits: internal error at {}:{}: {} ({})\n", file, line, message,
             condition);
  std::abort();
}

}  // namespace samebits
