#include "samebits/numerics/torch_random.h"

#include "samebits/base/error.h"
#include "samebits/numerics/math.h"

namespace samebits {

float TorchExponential(double u) {
  return static_cast<float>(0.0 - NaturalLog(1.0 - u));  // +0 for u = 0, as PyTorch has it
}

int64_t TorchMultinomial(std::span<const float> p, std::span<const double> u) {
  SAMEBITS_CHECK(!p.empty() && p.size() == u.size(), "one number for each probability");
  int64_t best = -1;
  float best_ratio = -1;
  for (size_t i = 0; i < p.size(); ++i) {
    // q is at least u less one rounding, so p / q is below best_ratio here, or rounds to it, and
    // the first one wins. Spares most logarithms.
    if (u[i] > 0 && p[i] <= best_ratio * u[i] * (1 - 0x1p-22)) continue;
    const float ratio = p[i] / TorchExponential(u[i]);
    if (std::isnan(ratio)) return static_cast<int64_t>(i);  // 0 / 0: a NaN is PyTorch's maximum
    if (ratio > best_ratio) {
      best = static_cast<int64_t>(i);
      best_ratio = ratio;
    }
  }
  return best;
}

}  // namespace samebits
