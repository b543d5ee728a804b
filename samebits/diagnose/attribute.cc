#include "samebits/diagnose/attribute.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "samebits/base/error.h"
#include "samebits/engine/runtime.h"
#include "samebits/kernels/kernels.h"

namespace samebits {
namespace {

class Attributor {
 public:
  Attributor(const Graph& graph, const Checkpoint& checkpoint, const Trace& trace, int threads)
      : graph_(graph), trace_(trace), runtime_(graph, checkpoint, Options(trace, threads)) {}

  Attribution Run(const std::function<void(int64_t, int64_t)>& progress) {
    const TensorView* logits = trace_.Find("lm_head");
    if (logits == nullptr || logits->dtype != trace_.info().dtype) {
      Fail(ErrorCode::kBadInput, "{}: no lm_head in {}: there is no difference to attribute",
           trace_.path(), ModelDTypeName(trace_.info().dtype));
    }
    if (trace_.info().batch > 1) {
      Fail(ErrorCode::kUnsupported, "{}: a batch of {}; attributed is one sequence", trace_.path(),
           trace_.info().batch);
    }
    CollectSteps();
    const auto total = static_cast<int64_t>(steps_.size());
    std::vector<double> before = std::move(Variants(0, 1)[0]);
    std::vector<std::vector<double>> moves;
    // A few variants in one forward pass read the weights once.
    constexpr int64_t kBatch = 8;
    for (int64_t begin = 1; begin <= total; begin += kBatch) {
      if (progress) progress(begin - 1, total);
      for (std::vector<double>& now : Variants(begin, std::min(total + 1, begin + kBatch))) {
        moves.push_back(Minus(now, before));
        before = std::move(now);
      }
    }
    TensorView row = *logits;
    row.data += (trace_.tokens() - 1) * row.shape[1] * DTypeSize(row.dtype);
    row.shape[0] = 1;
    moves.push_back(Minus(ToDoubles(row), before));  // lm_head itself
    steps_.emplace_back("lm_head");
    return Shares(moves);
  }

 private:
  static RuntimeOptions Options(const Trace& trace, int threads) {
    RuntimeOptions options;
    options.dtype = trace.info().dtype;
    options.isa = BestIsa();
    options.threads = threads;
    return options;
  }

  // Recorded outputs in the order of execution; tensors in another dtype are left to the next.
  void CollectSteps() {
    for (const Node& node : graph_.nodes) {
      if (&node == &graph_.nodes.back()) break;
      for (size_t i = 0; i < node.outputs.size(); ++i) {
        if (node.kind == OpKind::kAttention && i < 2) continue;  // inside of the kernel
        const TensorView* view = trace_.Find(node.outputs[i]);
        if (view == nullptr || view->dtype != trace_.info().dtype ||
            view->shape != OutputShape(graph_, node, node.outputs[i], trace_.tokens())) {
          continue;
        }
        steps_.push_back(node.outputs[i]);
      }
    }
  }

  // The last logits of the runs in which the first n steps are the candidate's, n in [begin, end).
  std::vector<std::vector<double>> Variants(int64_t begin, int64_t end) {
    const auto count = static_cast<size_t>(end - begin);
    std::vector<Substitutes> substitutes(count);
    std::vector<Sequence> sequences;
    std::vector<Part> parts;
    for (size_t i = 0; i < count; ++i) {
      for (int64_t n = 0; n < begin + static_cast<int64_t>(i); ++n) {
        const std::string& name = steps_[static_cast<size_t>(n)];
        substitutes[i].emplace(name, *trace_.Find(name));
      }
      sequences.push_back(runtime_.NewSequence());
    }
    for (size_t i = 0; i < count; ++i) {
      Part part{&sequences[i], trace_.info().input_ids};
      part.positions = trace_.info().positions;
      part.substitutes = &substitutes[i];
      parts.push_back(part);
    }
    const TensorView& logits = runtime_.Forward(parts);
    const std::vector<double> all = ToDoubles(logits);
    std::vector<std::vector<double>> rows;
    const auto width = static_cast<std::ptrdiff_t>(logits.shape[1]);
    for (size_t i = 0; i < count; ++i) {
      const auto row = all.begin() + static_cast<std::ptrdiff_t>(i) * width;
      rows.emplace_back(row, row + width);
    }
    return rows;
  }

  static std::vector<double> Minus(const std::vector<double>& a, const std::vector<double>& b) {
    std::vector<double> difference(a.size());
    for (size_t i = 0; i < a.size(); ++i) difference[i] = a[i] - b[i];
    return difference;
  }

  Attribution Shares(const std::vector<std::vector<double>>& moves) const {
    std::vector<double> whole(moves.front().size());
    for (const auto& move : moves) {
      for (size_t i = 0; i < whole.size(); ++i) whole[i] += move[i];
    }
    Attribution result;
    double squares = 0;
    for (const double v : whole) {
      squares += v * v;
      result.total_max = std::max(result.total_max, std::fabs(v));
    }
    result.total_rms = std::sqrt(squares / static_cast<double>(whole.size()));
    for (size_t n = 0; n < moves.size(); ++n) {
      NodeShare share{steps_[n], 0, 0, 0};
      double own = 0, along = 0;
      for (size_t i = 0; i < whole.size(); ++i) {
        own += moves[n][i] * moves[n][i];
        along += moves[n][i] * whole[i];
        share.logits_max = std::max(share.logits_max, std::fabs(moves[n][i]));
      }
      share.logits_rms = std::sqrt(own / static_cast<double>(whole.size()));
      share.share = squares > 0 ? along / squares : 0;
      result.nodes.push_back(std::move(share));
    }
    return result;
  }

  const Graph& graph_;
  const Trace& trace_;
  Runtime runtime_;
  std::vector<std::string> steps_;
};

}  // namespace

Attribution Attribute(const Graph& graph, const Checkpoint& checkpoint, const Trace& trace,
                      int threads,
                      const std::function<void(int64_t done, int64_t total)>& progress) {
  return Attributor(graph, checkpoint, trace, threads).Run(progress);
}

}  // namespace samebits
