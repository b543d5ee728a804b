#include <algorithm>

#include "samebits/diagnose/checker.h"
#include "samebits/tensor/convert.h"

namespace samebits {

void Checker::ListInvisible() {
  const int64_t tokens = trace_.tokens();
  std::vector<std::string>& list = result_.not_visible;
  if (tokens == 1) {
    list.push_back(
        "one token: mask, rope-theta, rope-interleaved, rope-rotation-direction and softmax errors "
        "can not show");
  } else if (tokens < 16) {
    list.push_back(fmt::format(
        "{} tokens: rope-theta and norm-eps show little; 16 tokens or more tell them apart",
        tokens));
  }
  if (tokens < 64 && source_.dtype != DType::kF32) {
    list.push_back("fewer than 64 tokens: a small norm-eps error may stay inside the rounding");
  }
  if (source_.dtype == DType::kF32) {
    list.push_back(
        "float32: cast-truncation and steps in the model's dtype have no effect; check a bfloat16 "
        "trace for them");
  }
  const ModelConfig& config = graph_.config;
  const auto narrow = [&](int64_t window) { return window > 0 && window < tokens; };
  const bool windows = std::any_of(config.layer_windows.begin(), config.layer_windows.end(),
                                   [](int64_t window) { return window > 0; });
  if (windows && std::none_of(config.layer_windows.begin(), config.layer_windows.end(), narrow)) {
    list.push_back(
        "no more tokens than the sliding window holds: errors of the window can not show");
  }
  if (config.rope.kind == RopeKind::kDynamic && tokens <= config.rope.original_length) {
    list.push_back(
        fmt::format("dynamic rope scaling begins behind {} tokens: a missing one can not show",
                    config.rope.original_length));
  }
  list.push_back("one sequence without padding: padding and batch errors can not show");
  if (trace_.info().chunks.size() == 1) {
    list.push_back("one prefill: errors of the KV cache can not show");
  }
  ListInvisibleWeights();
}

// bfloat16 weights that were rounded through float16 on the way: too few change, by too little, to
// show in a run in bfloat16.
void Checker::ListInvisibleWeights() {
  if (drowned_.contains("weight-dtype-chain")) {
    result_.not_visible.push_back(
        "weights that went through float16 or bfloat16: in some of the linear layers what it "
        "changes "
        "drowns in the rounding of the sums");
  }
  if (source_.dtype == DType::kF32) return;
  int64_t changed = 0, weights = 0;
  for (const Node& node : graph_.nodes) {
    for (const std::string& name : node.weights) {
      const TensorView& weight = source_.checkpoint->Get(name);
      if (weight.dtype != DType::kBF16) return;
      // A sample: the first rows of each tensor.
      constexpr int64_t kMost = 1 << 16;
      const int64_t count = std::min(kMost, weight.elements());
      std::vector<double> values(static_cast<size_t>(count));
      ToDoubles(weight, 0, count, values.data());
      weights += count;
      for (const double v : values) changed += RoundToDType(v, DType::kF16) != v ? 1 : 0;
    }
  }
  if (changed == 0) return;
  result_.not_visible.push_back(
      fmt::format("weights that went through float16: it changes {} of {} that were looked at, too "
                  "few and too little for a run in {}; check a float32 trace for it",
                  changed, weights, ModelDTypeName(source_.dtype)));
}

}  // namespace samebits
