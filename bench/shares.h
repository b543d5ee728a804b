// What the programs that hold kernels against a limit of this machine have in common: the clock
// and speeds as shares of the limit that was measured in the same round.
#pragma once

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "samebits/base/error.h"

namespace samebits {

inline double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

class Shares {
 public:
  void Add(double speed, double limit) {
    speeds_.push_back(speed);
    limits_.push_back(limit);
    shares_.push_back(speed / limit);
  }
  double speed() const { return Median(speeds_); }
  double limit() const { return Median(limits_); }
  std::string Text() const {
    const auto [low, high] = std::minmax_element(shares_.begin(), shares_.end());
    return fmt::format("share {:.0f} % ({:.0f} to {:.0f}, {} rounds)", 100 * Median(shares_),
                       100 * *low, 100 * *high, shares_.size());
  }

 private:
  static double Median(std::vector<double> v) {
    std::sort(v.begin(), v.end());
    return v[v.size() / 2];
  }

  std::vector<double> speeds_, limits_, shares_;
};

// The rest of main: parses, runs, reports errors under the program's name.
inline int RunProgram(CLI::App& app, int argc, char** argv, const std::string& name,
                      const std::function<void()>& run) {
  CLI11_PARSE(app, argc, argv);
  try {
    run();
  } catch (const Error& error) {
    fmt::print(stderr, "{}: {}\n", name, error.what());
    return 2;
  }
  return 0;
}

}  // namespace samebits
