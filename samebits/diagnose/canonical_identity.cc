#include "samebits/diagnose/canonical_identity.h"

#include <algorithm>
#include <cstring>

#include "samebits/compare/metrics.h"
#include "samebits/numerics/rope.h"

namespace samebits {
namespace {

// Computes nodes from recorded inputs with the kernels.
class Canonical {
 public:
  Canonical(const Node& node, const ReplaySource& source, const Kernels& kernels)
      : node_(node), source_(source), kernels_(kernels) {}

  // False when something is missing or stored in another dtype, or when there is nothing to compare
  // with: a small trace of many tokens must not cost the memory of what it leaves out.
  bool Ready() const {
    const auto recorded = [this](const std::string& name) {
      const TensorView* view = source_.tensor(name);
      return view != nullptr && view->dtype == source_.dtype;
    };
    const bool chained = node_.kind == OpKind::kAttention;  // nothing is told without the scores
    if (chained ? !recorded(node_.outputs[0])
                : std::none_of(node_.outputs.begin(), node_.outputs.end(), recorded)) {
      return false;
    }
    for (const std::string& name : node_.inputs) {
      if (name == kInputIds || name == kPositions) continue;
      const TensorView* view = source_.tensor(name);
      if (view == nullptr || view->dtype != source_.dtype) return false;
    }
    return true;
  }

  std::vector<std::string> Compare() {
    for (const std::string& name : node_.outputs) {
      outputs_.emplace_back(source_.dtype,
                            OutputShape(*source_.graph, node_, name, source_.tokens()));
    }
    Compute();
    std::vector<std::string> same;
    for (size_t i = 0; i < outputs_.size(); ++i) {
      const TensorView* recorded = source_.tensor(node_.outputs[i]);
      const bool chained = node_.kind == OpKind::kAttention;  // each needs the one before
      if (chained && same.size() != i) break;
      if (recorded == nullptr || recorded->dtype != source_.dtype) continue;
      std::function<bool(int64_t)> masked;
      if (chained && i == 0) {
        const int64_t keys = source_.tokens();
        const int64_t window = node_.attributes.window;
        masked = [keys, window](int64_t at) {
          const int64_t key = at % keys, token = at / keys % keys;
          return key > token || (window > 0 && key <= token - window);
        };
      }
      if (CompareTensors(outputs_[i].view(), *recorded, masked).same()) {
        same.push_back(node_.outputs[i]);
      }
    }
    return same;
  }

 private:
  const std::byte* Input(size_t index) const { return source_.tensor(node_.inputs[index])->data; }
  const TensorView& Weight(size_t index) const {
    return source_.checkpoint->Get(node_.weights[index]);
  }

  void Compute() {
    const int64_t rows = source_.tokens();
    const Attributes& a = node_.attributes;
    const DType dtype = source_.dtype;
    std::byte* y = outputs_[0].data();
    switch (node_.kind) {
      case OpKind::kEmbedding:
        return ComputeEmbedding();
      case OpKind::kRotary:
        return ComputeRotary();
      case OpKind::kRmsNorm:
        return ComputeRmsNorm();
      case OpKind::kLinear: {
        const LinearArgs args{dtype,
                              Weight(0).dtype,
                              Input(0),
                              Weight(0).data,
                              node_.weights.size() > 1 ? Weight(1).data : nullptr,
                              y,
                              rows,
                              a.in_features,
                              a.out_features};
        constexpr int64_t kPiece = 96;
        return source_.pool->ParallelFor((a.out_features + kPiece - 1) / kPiece, [&](int64_t i) {
          kernels_.linear(args, 0, rows, i * kPiece, std::min(a.out_features, (i + 1) * kPiece));
        });
      }
      case OpKind::kRope:
        return kernels_.rope({dtype, Input(0), Input(1), Input(2), y, rows, a.heads, a.head_dim}, 0,
                             rows);
      case OpKind::kAttention:
        return ComputeAttention();
      case OpKind::kAdd:
        return kernels_.add(dtype, Input(0), Input(1), y, outputs_[0].elements());
      case OpKind::kMultiply:
        return kernels_.multiply(dtype, Input(0), Input(1), y, outputs_[0].elements());
      case OpKind::kActivation:
        return kernels_.silu(dtype, Input(0), y, outputs_[0].elements());
    }
  }

  void ComputeRotary() {
    const int64_t rows = source_.tokens(), head_dim = node_.attributes.head_dim;
    const std::vector<int64_t> lengths(static_cast<size_t>(rows), source_.length());
    const RotaryTable table = MakeRotaryTable(node_.attributes.rope, head_dim, lengths);
    kernels_.rotary(
        {source_.dtype, source_.positions.data(), table.inv_freq.data(), table.row_stride,
         table.scaling, outputs_[0].data(), outputs_[1].data(), rows, head_dim},
        0, rows);
  }

  void ComputeRmsNorm() {
    const Attributes& a = node_.attributes;
    const int64_t rows = source_.tokens() * std::max<int64_t>(1, a.heads);
    kernels_.rms_norm({source_.dtype, Weight(0).dtype, Input(0), Weight(0).data, outputs_[0].data(),
                       rows, a.in_features, static_cast<float>(a.eps)},
                      0, rows);
  }

  void ComputeEmbedding() {
    Replay replay;
    replay.node = node_;
    // A row of the embedding, rounded once: deterministic, so any way of writing it will do.
    const Expectation e = Evaluate(replay, source_, source_.dtype, {0, source_.tokens()});
    for (size_t i = 0; i < e.y.size(); ++i) {
      StoreValue(outputs_[0], static_cast<int64_t>(i), e.y[i]);
    }
  }

  void ComputeAttention() {
    const Attributes& a = node_.attributes;
    AttentionArgs args{};
    args.dtype = source_.dtype;
    args.q = Input(0);
    args.k = Input(1);
    args.v = Input(2);
    args.kv_head_stride = a.head_dim;
    args.kv_row_stride = a.kv_heads * a.head_dim;
    args.scores = outputs_[0].data();
    args.probs = outputs_[1].data();
    args.context = outputs_[2].data();
    args.rows = source_.tokens();
    args.heads = a.heads;
    args.kv_heads = a.kv_heads;
    args.head_dim = a.head_dim;
    args.first_key_count = 1;
    args.window = a.window;
    args.scale = a.scale;
    source_.pool->ParallelFor(
        a.heads, [&](int64_t head) { kernels_.attention(args, head, head + 1, 0, args.rows); });
  }

  const Node& node_;
  const ReplaySource& source_;
  const Kernels& kernels_;
  std::vector<Tensor> outputs_;
};

}  // namespace

std::vector<std::string> CanonicalOutputs(const Node& node, const ReplaySource& source,
                                          const Kernels& kernels) {
  Canonical canonical(node, source, kernels);
  return canonical.Ready() ? canonical.Compare() : std::vector<std::string>{};
}

}  // namespace samebits
