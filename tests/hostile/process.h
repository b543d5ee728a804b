// Runs a program to its end under limits, and says how it ended.
#pragma once

#include <string>
#include <vector>

namespace samebits {

struct Ended {
  int code = -1;         // exit code, or -1 when a signal ended it
  int signal = 0;        // SIGALRM: it was still running after `seconds`
  std::string out, err;  // what it printed
  double megabytes = 0;  // peak resident memory
};

// `arguments` starts with the program. Output goes through files in `folder`. Address space is
// limited to `address_space_mb` when that is not 0.
Ended RunProcess(const std::vector<std::string>& arguments, const std::string& folder,
                 unsigned seconds, long address_space_mb);

}  // namespace samebits
