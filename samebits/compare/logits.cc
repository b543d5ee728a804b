#include "samebits/compare/logits.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "samebits/base/error.h"

namespace samebits {
namespace {

using Row = std::vector<double>;

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr size_t kTop = 5;

bool SameValues(const Row& x, const Row& y) {
  for (size_t i = 0; i < x.size(); ++i) {
    if (x[i] != y[i] && !(std::isnan(x[i]) && std::isnan(y[i]))) return false;
  }
  return true;
}

bool HasSoftmax(const Row& row) {
  bool above = false;
  for (const double value : row) {
    if (std::isnan(value) || value == kInfinity) return false;
    above = above || value > -kInfinity;
  }
  return above;
}

// log(sum of exp(row)), which is what log softmax subtracts.
double LogSumExp(const Row& row) {
  const double largest = *std::max_element(row.begin(), row.end());
  double sum = 0;
  for (const double value : row) sum += std::exp(value - largest);
  return largest + std::log(sum);
}

double Divergence(const Row& x, const Row& y) {
  const double norm_x = LogSumExp(x), norm_y = LogSumExp(y);
  double sum = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    if (x[i] == -kInfinity) continue;  // p = 0
    if (y[i] == -kInfinity) return kInfinity;
    const double log_p = x[i] - norm_x;
    sum += std::exp(log_p) * (log_p - (y[i] - norm_y));
  }
  return sum < 0 ? 0 : sum;  // rounding; the sum of finite terms is no NaN
}

// The ids of the largest values, the largest first; of equal values the lower id first.
std::vector<int64_t> Largest(const Row& row) {
  std::vector<int64_t> ids(row.size());
  std::iota(ids.begin(), ids.end(), 0);
  const auto end = ids.begin() + static_cast<int64_t>(std::min(kTop, ids.size()));
  std::partial_sort(ids.begin(), end, ids.end(), [&row](int64_t a, int64_t b) {
    return row[a] != row[b] ? row[a] > row[b] : a < b;
  });
  ids.erase(end, ids.end());
  return ids;
}

}  // namespace

std::optional<double> LogNormalizer(const std::vector<double>& logits) {
  if (!HasSoftmax(logits)) return std::nullopt;
  return LogSumExp(logits);
}

LogitMetrics CompareLogits(const TensorView& a, const TensorView& b,
                           const std::function<bool(int64_t)>& ignore) {
  SAMEBITS_CHECK(a.shape == b.shape && !a.shape.empty(), "logits of one shape");
  LogitMetrics m;
  const int64_t vocabulary = a.shape.back();
  if (a.elements() == 0) return m;
  const int64_t rows = a.elements() / vocabulary;
  Row x(static_cast<size_t>(vocabulary)), y(static_cast<size_t>(vocabulary));
  double sum = 0;
  for (int64_t row = 0; row < rows; ++row) {
    if (ignore && ignore(row)) continue;
    ++m.tokens;
    ToDoubles(a, row * vocabulary, vocabulary, x.data());
    ToDoubles(b, row * vocabulary, vocabulary, y.data());
    if (SameValues(x, y)) {
      ++m.same_top1;
      ++m.same_top5;
      continue;
    }
    double divergence = kInfinity;
    if (HasSoftmax(x) && HasSoftmax(y)) {
      divergence = Divergence(x, y);
      std::vector<int64_t> top_x = Largest(x), top_y = Largest(y);
      m.same_top1 += top_x[0] == top_y[0] ? 1 : 0;
      std::sort(top_x.begin(), top_x.end());
      std::sort(top_y.begin(), top_y.end());
      m.same_top5 += top_x == top_y ? 1 : 0;
    }
    sum += divergence;
    if (divergence > m.kl_max) {
      m.kl_max = divergence;
      m.kl_max_token = row;
    }
  }
  if (m.tokens > 0) m.kl_mean = sum / static_cast<double>(m.tokens);
  return m;
}

}  // namespace samebits
