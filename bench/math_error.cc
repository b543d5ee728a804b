// The error of Exp for every float32 in [-104, 89], against the C library's exp in fp64 (whose own
// error is 2^-29 of what is measured). Prints the largest, in steps of fp32 at the exact value.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <thread>
#include <vector>

#include "samebits/numerics/math.h"

namespace {

struct Worst {
  double error = 0, denormal_error = 0;
  float at = 0, denormal_at = 0;
  int64_t count = 0, above_half = 0;
};

void Measure(uint32_t first, uint32_t last, Worst* worst) {
  for (uint32_t bits = first; bits <= last; ++bits) {
    const auto x = std::bit_cast<float>(bits);
    const double exact = std::exp(static_cast<double>(x));
    const double value = samebits::Exp(x);
    ++worst->count;
    if (exact > 0x1.ffffffp127) {
      if (!std::isinf(value)) worst->error = INFINITY;
      continue;
    }
    const int64_t exponent = static_cast<int64_t>(std::bit_cast<uint64_t>(exact) >> 52) - 1023;
    const bool denormal = exponent < -126;
    const auto step = std::bit_cast<double>(
        static_cast<uint64_t>(std::max<int64_t>(exponent, -126) - 23 + 1023) << 52);
    const double error = std::fabs(value - exact) / step;
    if (error > 0.5) ++worst->above_half;
    double& most = denormal ? worst->denormal_error : worst->error;
    if (!(error <= most)) {
      most = error;
      (denormal ? worst->denormal_at : worst->at) = x;
    }
  }
}

}  // namespace

int main() {
  // +0 .. 89 and -0 .. -104, as bit patterns.
  const std::pair<uint32_t, uint32_t> ranges[] = {{0, 0x42b20000U}, {0x80000000U, 0xc2d00000U}};
  const auto threads = std::max(1U, std::thread::hardware_concurrency());
  std::vector<Worst> parts(2 * threads);
  std::vector<std::thread> workers;
  for (unsigned t = 0; t < threads; ++t) {
    workers.emplace_back([&, t] {
      for (size_t r = 0; r < 2; ++r) {
        const auto [first, last] = ranges[r];
        const uint64_t n = uint64_t{last} - first + 1;
        Measure(first + static_cast<uint32_t>(n * t / threads),
                first + static_cast<uint32_t>(n * (t + 1) / threads - 1), &parts[2 * t + r]);
      }
    });
  }
  for (std::thread& worker : workers) worker.join();
  Worst all;
  for (const Worst& part : parts) {
    all.count += part.count;
    all.above_half += part.above_half;
    if (!(part.error <= all.error)) {
      all.error = part.error;
      all.at = part.at;
    }
    if (!(part.denormal_error <= all.denormal_error)) {
      all.denormal_error = part.denormal_error;
      all.denormal_at = part.denormal_at;
    }
  }
  fmt::print(
      "Exp: {} values; at most {:.4f} ulp (x = {:a}); denormal results {:.4f} ulp (x = {:a})\n",
      all.count, all.error, all.at, all.denormal_error, all.denormal_at);
  fmt::print("     {:.2f} % of the values are not the nearest\n",
             100.0 * static_cast<double>(all.above_half) / static_cast<double>(all.count));
}
