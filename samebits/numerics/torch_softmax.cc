#include "samebits/numerics/torch_softmax.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "samebits/base/error.h"

namespace samebits {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr int kMaxLanes = 16;

// The sum of e: lane by lane, then the lanes as a tree, l + (l ^ d) for d = lanes/2, ..., 1.
float LaneSum(std::span<const float> e, int lanes) {
  const size_t n = e.size(), width = static_cast<size_t>(lanes);
  if (n < width) {
    float sum = e[0];
    for (size_t i = 1; i < n; ++i) sum += e[i];
    return sum;
  }
  float sums[kMaxLanes];
  std::copy_n(e.begin(), width, sums);
  for (size_t i = width; i < n; ++i) sums[i % width] += e[i];  // the last vector may be partial
  for (size_t half = width / 2; half > 0; half /= 2) {
    for (size_t l = 0; l < half; ++l) sums[l] += sums[l + half];
  }
  return sums[0];
}

}  // namespace

float TorchExp(float x) {
  if (std::isnan(x)) return x;
  if (x < -104.0F) return 0.0F;
  if (x > 100.0F) return kInfinity;
  constexpr float kMagic = 0x1.8p23F;  // adding it rounds to an integer, ties to even
  const float shifted = x * 0x1.715476p+0F + kMagic;  // two roundings, as in Sleef
  const float n = shifted - kMagic;
  float r = std::fma(n, -0.693145751953125F, x);
  r = std::fma(n, -1.428606765330187045e-06F, r);
  float p = 0.000198527617612853646278381F;
  p = std::fma(p, r, 0.00139304355252534151077271F);
  p = std::fma(p, r, 0.00833336077630519866943359F);
  p = std::fma(p, r, 0.0416664853692054748535156F);
  p = std::fma(p, r, 0.166666671633720397949219F);
  p = std::fma(p, r, 0.5F);
  p = 1.0F + std::fma(r * r, p, r);
  // Times 2^n in two steps: each power is a normal number.
  const int32_t k = std::bit_cast<int32_t>(shifted) - std::bit_cast<int32_t>(kMagic);
  const int32_t half = k >> 1;
  return p * std::bit_cast<float>((half + 127) << 23) *
         std::bit_cast<float>((k - half + 127) << 23);
}

void TorchSoftmax(std::span<const float> x, int lanes, std::span<float> y) {
  SAMEBITS_CHECK(lanes == 8 || lanes == 16, "PyTorch has kernels of 8 and of 16 lanes");
  SAMEBITS_CHECK(!x.empty() && x.size() == y.size(), "softmax of a row into one as long");
  float largest = -kInfinity;  // a NaN need not be found here: it reaches the sum
  for (const float value : x) largest = value > largest ? value : largest;
  for (size_t i = 0; i < x.size(); ++i) y[i] = TorchExp(x[i] - largest);
  const float inverse = 1.0F / LaneSum(y, lanes);
  for (float& value : y) value *= inverse;  // round: fp32, a product and not a quotient
}

}  // namespace samebits
