// For tests only: the clock of tests/live/template_oracle.py.
#pragma once

#include <ctime>

namespace samebits::jinja {

inline std::tm FixedTime() {
  std::tm time{};
  time.tm_year = 126;
  time.tm_mon = 10;
  time.tm_mday = 24;
  time.tm_hour = 18;
  time.tm_min = 5;
  time.tm_sec = 9;
  time.tm_wday = 2;
  time.tm_yday = 327;
  return time;
}

}  // namespace samebits::jinja
