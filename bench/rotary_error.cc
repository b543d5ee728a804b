// The error of canonical cosines and sines: positions 0 to 131072 times the frequencies of every
// kind of rotary embedding, against the C library's long double functions of the same fp32 angle.
// Prints the largest, in steps of fp32 at the exact value.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "samebits/numerics/canonical.h"
#include "samebits/numerics/rope.h"

namespace {

struct Worst {
  double error = 0;
  int64_t values = 0, not_nearest = 0;
};

void Measure(float value, long double exact, Worst* worst) {
  int exponent = 0;
  std::frexp(static_cast<double>(exact), &exponent);
  const double step = std::ldexp(1.0, std::max(exponent, -125) - 24);
  const double error = std::fabs(static_cast<double>(value - exact)) / step;
  worst->error = std::max(worst->error, error);
  worst->not_nearest += value != static_cast<float>(exact) ? 1 : 0;
  ++worst->values;
}

}  // namespace

int main() {
  using samebits::RopeKind;
  constexpr int64_t kPositions = 131073, kHeadDim = 128, kRows = 4096;
  for (const RopeKind kind : {RopeKind::kDefault, RopeKind::kLinear, RopeKind::kDynamic,
                              RopeKind::kYarn, RopeKind::kLlama3}) {
    samebits::RopeParameters rope;
    rope.kind = kind;
    rope.theta = kind == RopeKind::kLlama3 ? 5e5 : 1e6;
    rope.factor = kind == RopeKind::kLlama3 ? 8 : 4;
    rope.original_length = kind == RopeKind::kLlama3 ? 8192 : 32768;
    rope.attention_factor = 1.0;  // the product with another one is a rounding of its own
    const std::vector<float> inv_freq = samebits::InverseFrequencies(rope, kHeadDim, kPositions);
    Worst cosines, sines;
    std::vector<float> cosine(static_cast<size_t>(kRows * kHeadDim)), sine(cosine.size());
    std::vector<int64_t> positions;
    for (int64_t first = 0; first < kPositions; first += kRows) {
      positions.clear();
      for (int64_t p = first; p < std::min(kPositions, first + kRows); ++p) positions.push_back(p);
      const auto rows = static_cast<int64_t>(positions.size());
      samebits::canonical::Rotary({samebits::DType::kF32, positions.data(), inv_freq.data(), 0, 1,
                                   cosine.data(), sine.data(), rows, kHeadDim},
                                  0, rows);
      for (int64_t t = 0; t < rows; ++t) {
        for (int64_t i = 0; i < kHeadDim / 2; ++i) {
          const float angle = static_cast<float>(positions[t]) * inv_freq[i];
          Measure(cosine[t * kHeadDim + i], std::cos(static_cast<long double>(angle)), &cosines);
          Measure(sine[t * kHeadDim + i], std::sin(static_cast<long double>(angle)), &sines);
        }
      }
    }
    fmt::print("{:<8} {} angles: cos at most {:.4f} ulp, {} not the nearest; sin {:.4f} ulp, {}\n",
               samebits::RopeKindName(kind), cosines.values, cosines.error, cosines.not_nearest,
               sines.error, sines.not_nearest);
  }
}
