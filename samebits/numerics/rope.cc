#include "samebits/numerics/rope.h"

#include <algorithm>
#include <cmath>
#include <tuple>
#include <utility>

#include "samebits/numerics/bounds.h"
#include "samebits/numerics/math.h"

namespace samebits {
namespace {

constexpr double kPi = 0x1.921fb54442d18p+1;

// The factor inside dynamic's theta.
double Stretch(const RopeParameters& rope, int64_t length) {
  const auto original = static_cast<double>(rope.original_length);
  const double now = std::max(static_cast<double>(length), original);
  return rope.factor * now / original - (rope.factor - 1);
}

double DynamicTheta(const RopeParameters& rope, int64_t head_dim, int64_t length) {
  const auto d = static_cast<double>(head_dim);
  return rope.theta * Power(Stretch(rope, length), d / (d - 2));
}

// Where yarn's ramp begins and ends.
std::pair<double, double> YarnRange(const RopeParameters& rope, int64_t head_dim) {
  const auto place = [&](double beta) {
    const double turns = static_cast<double>(rope.original_length) / (beta * 2 * kPi);
    return static_cast<double>(head_dim) * NaturalLog(turns) / (2 * NaturalLog(rope.theta));
  };
  double low = place(rope.beta_fast), high = place(rope.beta_slow);
  if (rope.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(head_dim - 1));
  if (low == high) high += 0.001;
  return {low, high};
}

float Llama3(const RopeParameters& rope, float f) {
  const auto n = static_cast<double>(rope.original_length);
  const float wavelength = static_cast<float>(2 * kPi) / f;
  const auto factor = static_cast<float>(rope.factor);
  if (wavelength > n / rope.low_freq_factor) return f / factor;
  if (wavelength < n / rope.high_freq_factor) return f;
  const auto low = static_cast<float>(rope.low_freq_factor);
  const auto width = static_cast<float>(rope.high_freq_factor - rope.low_freq_factor);
  const float s = (static_cast<float>(n) / wavelength - low) / width;
  const float slow = (1.0F - s) * f / factor;
  return slow + s * f;
}

float Yarn(const RopeParameters& rope, int64_t i, float power, double low, double high) {
  const float ramp =
      std::clamp((static_cast<float>(i) - static_cast<float>(low)) / static_cast<float>(high - low),
                 0.0F, 1.0F);
  const float kept = 1.0F - ramp;
  const float slow = 1.0F / (static_cast<float>(rope.factor) * power);
  const float fast = 1.0F / power;
  return slow * (1.0F - kept) + fast * kept;
}

double YarnAttentionFactor(const RopeParameters& rope) {
  if (rope.attention_factor) return *rope.attention_factor;
  const auto scale = [&](double mscale) {
    return rope.factor <= 1 ? 1.0 : 0.1 * mscale * NaturalLog(rope.factor) + 1.0;
  };
  if (rope.mscale != 0 && rope.mscale_all_dim != 0) {
    return scale(rope.mscale) / scale(rope.mscale_all_dim);
  }
  return scale(1);
}

}  // namespace

std::vector<float> InverseFrequencies(const RopeParameters& rope, int64_t head_dim,
                                      int64_t length) {
  const double theta =
      rope.kind == RopeKind::kDynamic ? DynamicTheta(rope, head_dim, length) : rope.theta;
  double low = 0, high = 0;
  if (rope.kind == RopeKind::kYarn) std::tie(low, high) = YarnRange(rope, head_dim);
  std::vector<float> result;
  result.reserve(static_cast<size_t>(head_dim / 2));
  for (int64_t i = 0; i < head_dim / 2; ++i) {
    // round: the exponent, the power and the inverse are fp32 each, as in Hugging Face; at position
    // 30000 one ulp of the frequency is an angle of 0.002
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(head_dim);
    const auto power = static_cast<float>(Power(theta, static_cast<double>(exponent)));
    float f = 1.0F / power;
    if (rope.kind == RopeKind::kLinear) f = f / static_cast<float>(rope.factor);
    if (rope.kind == RopeKind::kLlama3) f = Llama3(rope, f);
    if (rope.kind == RopeKind::kYarn) f = Yarn(rope, i, power, low, high);
    result.push_back(f);
  }
  return result;
}

float RotaryScaling(const RopeParameters& rope) {
  return rope.kind == RopeKind::kYarn ? static_cast<float>(YarnAttentionFactor(rope)) : 1.0F;
}

bool RopeDependsOnLength(const RopeParameters& rope, int64_t length) {
  return rope.kind == RopeKind::kDynamic && length > rope.original_length;
}

int64_t RopeLength(int64_t position, int64_t prompt_length) {
  return std::max(position + 1, prompt_length);
}

RotaryTable MakeRotaryTable(const RopeParameters& rope, int64_t head_dim,
                            std::span<const int64_t> lengths) {
  RotaryTable table;
  table.scaling = RotaryScaling(rope);
  const bool alike = std::all_of(lengths.begin(), lengths.end(), [&](int64_t length) {
    return length == lengths[0] ||
           (!RopeDependsOnLength(rope, length) && !RopeDependsOnLength(rope, lengths[0]));
  });
  if (alike) {
    table.inv_freq = InverseFrequencies(rope, head_dim, lengths.empty() ? 0 : lengths[0]);
    return table;
  }
  table.row_stride = head_dim / 2;
  table.inv_freq.reserve(lengths.size() * static_cast<size_t>(head_dim / 2));
  for (size_t t = 0; t < lengths.size(); ++t) {
    if (t > 0 && lengths[t] == lengths[t - 1]) {  // the row before, again
      const std::vector<float> row(table.inv_freq.end() - head_dim / 2, table.inv_freq.end());
      table.inv_freq.insert(table.inv_freq.end(), row.begin(), row.end());
      continue;
    }
    const std::vector<float> row = InverseFrequencies(rope, head_dim, lengths[t]);
    table.inv_freq.insert(table.inv_freq.end(), row.begin(), row.end());
  }
  return table;
}

namespace exact {
namespace {

constexpr double u = kUnitRoundoff;

// Relative error of theta in fp32 tensors; transformers computes dynamic's in them once the text is
// longer than M, where a large factor loses bits to the subtraction.
double ThetaError(const RopeParameters& rope, int64_t head_dim, int64_t length) {
  if (!RopeDependsOnLength(rope, length)) return 0;
  const auto original = static_cast<double>(rope.original_length);
  const double product = rope.factor * static_cast<double>(length) / original;
  const double stretch = product - (rope.factor - 1);
  const auto d = static_cast<double>(head_dim);
  const double error = u * (3 * product + rope.factor) / stretch + u;
  return (error + u * std::fabs(std::log(stretch))) * d / (d - 2) + 3 * u;
}

// f under the ramp of llama3, and its error; `relative`: of f.
Frequency Llama3(const RopeParameters& rope, Frequency f) {
  const auto n = static_cast<double>(rope.original_length);
  const double width = rope.high_freq_factor - rope.low_freq_factor;
  const double turns = n * f.value / (2 * M_PI);
  const double s = std::clamp((turns - rope.low_freq_factor) / width, 0.0, 1.0);
  // n / w has the error of f and five roundings; low and width one each, the quotient two.
  const double error =
      ((f.relative + 5 * u) * turns + u * rope.low_freq_factor) / width + 3 * u * s;
  const bool near = turns * (1 + 2 * f.relative + 12 * u) >= rope.low_freq_factor &&
                    turns * (1 - 2 * f.relative - 12 * u) <= rope.high_freq_factor;
  const double value = f.value * ((1 - s) / rope.factor + s);
  const double moved = near ? (error + u) * f.value * (1 - 1 / rope.factor) : 0;
  return {value, f.relative + 6 * u + moved / value};
}

Frequency Yarn(const RopeParameters& rope, int64_t i, Frequency f, double low, double high) {
  const double width = high - low, place = static_cast<double>(i);
  const double ramp = std::clamp((place - low) / width, 0.0, 1.0);
  // low and the differences are rounded, then the quotient; 1 - ramp and 1 - (1 - ramp), too.
  double error = 0;
  if (ramp > 0 && ramp < 1) error = u * low / std::fabs(width) + 4 * u * ramp + 2 * u;
  const double value = f.value * (ramp / rope.factor + 1 - ramp);
  return {value, f.relative + 6 * u + error * f.value * (1 - 1 / rope.factor) / value};
}

}  // namespace

std::vector<Frequency> InverseFrequencies(const RopeParameters& rope, int64_t head_dim,
                                          int64_t length) {
  const auto d = static_cast<double>(head_dim);
  double theta = rope.theta;
  if (rope.kind == RopeKind::kDynamic) {
    theta *= std::pow(Stretch(rope, length), d / (d - 2));
  }
  const double theta_error =
      rope.kind == RopeKind::kDynamic ? ThetaError(rope, head_dim, length) : 0;
  double low = 0, high = 0;
  if (rope.kind == RopeKind::kYarn) std::tie(low, high) = YarnRange(rope, head_dim);
  std::vector<Frequency> result;
  result.reserve(static_cast<size_t>(head_dim / 2));
  for (int64_t i = 0; i < head_dim / 2; ++i) {
    const double exponent = static_cast<double>(2 * i) / d;
    const double rounded = static_cast<double>(static_cast<float>(exponent));
    Frequency f{std::pow(theta, -exponent), 0};
    // theta in fp32, the power (2 u, measured for torch's), the inverse
    f.relative = 4 * u + exponent * theta_error + std::fabs(rounded - exponent) * std::log(theta);
    if (rope.kind == RopeKind::kLinear) f = {f.value / rope.factor, f.relative + 2 * u};
    if (rope.kind == RopeKind::kLlama3) f = Llama3(rope, f);
    if (rope.kind == RopeKind::kYarn) f = Yarn(rope, i, f, low, high);
    result.push_back(f);
  }
  return result;
}

double RotaryScaling(const RopeParameters& rope) {
  return rope.kind == RopeKind::kYarn ? YarnAttentionFactor(rope) : 1.0;
}

}  // namespace exact
}  // namespace samebits
