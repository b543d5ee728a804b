#include "samebits/diagnose/low_precision.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "samebits/base/error.h"
#include "samebits/numerics/bounds.h"
#include "samebits/tensor/convert.h"

namespace samebits {
namespace {

// Relative error allowed to one fp32 exponential, division or root before it is rounded.
constexpr double kStep = 4 * kUnitRoundoff;

double Silu(LowPrecisionForm form, double x, double slack, DType dtype) {
  const auto rn = [dtype](double v) { return RoundToDType(v, dtype); };
  if (form == 3) return rn(x * rn((1 - slack) / (1 + std::exp(-x))));
  const double e = rn(std::exp(-x) * (1 + slack));
  const double d = rn(1 + e);
  return form == 1 ? rn(x * rn(1 / d)) : rn(x / d);
}

}  // namespace

Outcomes SiluLowPrecision(LowPrecisionForm form, double x, DType dtype) {
  const double a = Silu(form, x, -kStep, dtype);
  const double b = Silu(form, x, kStep, dtype);
  return {std::min(a, b), Silu(form, x, 0, dtype), std::max(a, b)};
}

void SoftmaxLowPrecision(LowPrecisionForm form, const double* s, const uint8_t* visible,
                         int64_t keys, DType dtype, Outcomes* outcomes) {
  const auto rn = [dtype](double v) { return RoundToDType(v, dtype); };
  double top = -std::numeric_limits<double>::infinity();
  for (int64_t j = 0; j < keys; ++j) {
    if (visible[j]) top = std::max(top, rn(s[j]));  // the scores may have been kept in fp32
  }
  std::vector<Outcomes> e(static_cast<size_t>(keys));
  Outcomes exact{0, 0, 0}, chain{0, 0, 0};
  int64_t count = 0;
  for (int64_t j = 0; j < keys; ++j) {
    if (!visible[j]) continue;
    ++count;
    const double value = std::exp(rn(rn(s[j]) - top));
    e[j] = {rn(value * (1 - kStep)), rn(value), rn(value * (1 + kStep))};
    exact = {exact.low + e[j].low, exact.middle + e[j].middle, exact.high + e[j].high};
    chain = {rn(chain.low + e[j].low), rn(chain.middle + e[j].middle), rn(chain.high + e[j].high)};
  }
  const double spread = Gamma(static_cast<double>(count));
  Outcomes sum{rn(exact.low * (1 - spread)), rn(exact.middle), rn(exact.high * (1 + spread))};
  if (form == 2 || form == 4) sum = chain;
  if (form == 5) {
    const double u = std::ldexp(1.0, -SignificandBits(dtype));
    const double relative = std::min(0.5, static_cast<double>(count) * u);
    sum = {exact.low * (1 - relative), exact.middle, exact.high * (1 + relative)};
  }
  for (int64_t j = 0; j < keys; ++j) {
    if (!visible[j]) {
      outcomes[j] = {0, 0, 0};
    } else if (form == 3 || form == 4) {
      outcomes[j] = {rn(e[j].low * rn(1 / sum.high)), rn(e[j].middle * rn(1 / sum.middle)),
                     rn(e[j].high * rn(1 / sum.low))};
    } else {
      outcomes[j] = {rn(e[j].low / sum.high), rn(e[j].middle / sum.middle),
                     rn(e[j].high / sum.low)};
    }
  }
}

void RmsNormLowPrecision(const NormPrecision& precision, const double* x, int64_t size, double eps,
                         DType dtype, Outcomes* outcomes) {
  const auto rn = [dtype](double v) { return RoundToDType(v, dtype); };
  double squares = 0;
  for (int64_t k = 0; k < size; ++k) {
    const double square = x[k] * x[k];
    squares += precision.squares_rounded ? rn(square) : square;
  }
  const double mean = squares / static_cast<double>(size);
  const double spread = Gamma(static_cast<double>(size) + 2);
  // The three means, the largest first: the larger the mean, the smaller the result.
  const double means[3] = {rn(mean * (1 + spread)), rn(mean), rn(mean * (1 - spread))};
  for (int64_t k = 0; k < size; ++k) {
    double ends[3] = {};
    for (int i = 0; i < 3; ++i) {
      const double slack = (i - 1) * kStep;
      switch (precision.finish) {
        case NormPrecision::Finish::kFloat32:
          ends[i] = rn(x[k] / std::sqrt(means[i] + eps) * (1 + slack));
          break;
        case NormPrecision::Finish::kRsqrt:
          ends[i] = rn(x[k] * rn((1 + slack) / std::sqrt(rn(means[i] + eps))));
          break;
        case NormPrecision::Finish::kSqrtDivide:
          ends[i] = rn(x[k] / rn(std::sqrt(rn(means[i] + eps)) * (1 - slack)));
          break;
      }
    }
    outcomes[k] = {std::min(ends[0], ends[2]), ends[1], std::max(ends[0], ends[2])};
  }
}

}  // namespace samebits
