// Two tensors of logits, token by token, as distributions over the vocabulary. In fp64, from the
// logits as they are stored. Of what has no softmax (NaN, +infinity, or nothing above -infinity)
// nothing looks small: such a token has an infinite divergence and agrees in nothing, unless both
// sides have the same values, NaN being NaN.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "samebits/tensor/tensor.h"

namespace samebits {

struct LogitMetrics {
  int64_t tokens = 0;  // compared
  // Kullback-Leibler divergence of softmax(b) from softmax(a) in nats: sum of p (log p - log q).
  double kl_mean = 0, kl_max = 0;
  int64_t kl_max_token = -1;  // the row of the first largest, when it is not 0
  int64_t same_top1 = 0;  // tokens with the same likeliest id; of equal logits the lower id wins
  int64_t same_top5 = 0;  // tokens whose five likeliest ids are the same set
};

// log(sum of exp(logits)), which is what log softmax subtracts; nothing for what has no softmax.
std::optional<double> LogNormalizer(const std::vector<double>& logits);

// [..., V] of one shape, in dtypes that are compared as numbers (metrics.h); rows are counted
// through all leading axes. `ignore(row)`: tokens that are left out; may be empty.
LogitMetrics CompareLogits(const TensorView& a, const TensorView& b,
                           const std::function<bool(int64_t)>& ignore = {});

}  // namespace samebits
