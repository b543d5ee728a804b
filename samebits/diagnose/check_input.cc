#include <fmt/format.h>

#include <algorithm>

#include "samebits/base/error.h"
#include "samebits/diagnose/checker.h"

namespace samebits {

// What a trace may be and the judge does not know.
void CheckKind(const Graph& graph, const Trace& trace) {
  const TraceInfo& info = trace.info();
  if (info.batch > 1) {
    Fail(ErrorCode::kUnsupported,
         "{}: __metadata__ 'input_ids': a batch of {} sequences; supported is one", trace.path(),
         info.batch);
  }
  if (std::count(info.attention_mask.begin(), info.attention_mask.end(), 0) > 0) {
    Fail(ErrorCode::kUnsupported,
         "{}: __metadata__ 'attention_mask': padding; supported are sequences without",
         trace.path());
  }
  // Its frequencies go by the length of the text at each forward pass.
  const RopeParameters& rope = graph.config.rope;
  if (rope.kind == RopeKind::kDynamic && info.chunks.size() > 1 &&
      *std::max_element(info.positions.begin(), info.positions.end()) >= rope.original_length) {
    Fail(ErrorCode::kUnsupported,
         "{}: __metadata__ 'chunks': {} forward passes that go beyond {} tokens, where dynamic "
         "rope scaling begins; supported is one pass there",
         trace.path(), info.chunks.size(), rope.original_length);
  }
}

void CheckShapes(const Graph& graph, const Trace& trace,
                 const std::function<bool(const std::string&)>& explained) {
  const TraceInfo& info = trace.info();
  for (int64_t id : info.input_ids) {
    if (id >= graph.config.vocab_size) {
      Fail(ErrorCode::kBadInput, "{}: input_ids: token id {}: the checkpoint has {} (vocab_size)",
           trace.path(), id, graph.config.vocab_size);
    }
  }
  for (const Node& node : graph.nodes) {
    for (const std::string& name : node.outputs) {
      const TensorView* view = trace.Find(name);
      if (view == nullptr || explained(name)) continue;
      const Shape expected = OutputShape(graph, node, name, trace.tokens());
      // A rotation of a part of the head: a bug that is named, no unreadable trace.
      const bool partial = node.kind == OpKind::kRotary && view->shape.size() == 2 &&
                           view->shape[0] == expected[0] && view->shape[1] < expected[1] &&
                           view->shape[1] >= 2 && view->shape[1] % 2 == 0;
      if (view->shape != expected && !partial) {
        Fail(ErrorCode::kBadInput,
             "{}: tensor '{}': shape {}, expected {} from config.json and {} input_ids",
             trace.path(), name, ShapeToString(view->shape), ShapeToString(expected),
             trace.tokens());
      }
      if (view->dtype != DType::kF32 && view->dtype != DType::kBF16 && view->dtype != DType::kF16) {
        Fail(ErrorCode::kBadInput, "{}: tensor '{}': dtype {}, expected F32, BF16 or F16",
             trace.path(), name, DTypeName(view->dtype));
      }
    }
  }
}

// Heads of hidden_size / num_attention_heads where config.json gives another head_dim: shows by the
// shapes, and nothing with such a shape can be judged.
void Checker::FindOtherHeadDim() {
  ModelConfig config = graph_.config;
  const int64_t assumed = config.hidden_size / config.num_attention_heads;
  if (assumed == config.head_dim || assumed < 2 || assumed % 2 != 0) return;
  config.head_dim = assumed;
  const Graph other = BuildGraph(config);
  const std::string detail =
      fmt::format("has heads of {} (hidden_size / num_attention_heads) instead of {}", assumed,
                  graph_.config.head_dim);
  for (size_t n = 0; n < graph_.nodes.size(); ++n) {
    for (const std::string& name : graph_.nodes[n].outputs) {
      const TensorView* view = trace_.Find(name);
      if (view == nullptr) continue;
      const Shape right = OutputShape(graph_, graph_.nodes[n], name, trace_.tokens());
      const Shape wrong = OutputShape(other, other.nodes[n], name, trace_.tokens());
      if (view->shape != right && view->shape == wrong)
        misrecorded_[name] = {"head-dim", detail, {}};
    }
  }
}

}  // namespace samebits
