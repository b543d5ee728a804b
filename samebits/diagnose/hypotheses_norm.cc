// Hypotheses of RMSNorm.
#include <fmt/format.h>

#include <set>

#include "samebits/diagnose/hypotheses.h"
#include "samebits/diagnose/scan.h"

namespace samebits {
namespace {

void HeadNormHypotheses(const Replay& base, Hypotheses& list) {
  Replay skipped = base;
  skipped.norm_skipped = skipped.weight_left_out = true;
  AddHypothesis(list, "qk-norm", "does not normalise the heads", skipped);
  Replay minor = base;
  minor.heads_minor = true;
  AddHypothesis(list, "head-layout", "reads [head_dim, heads] where [heads, head_dim] stands",
                minor);
  Replay whole = base;
  whole.norm_whole_row = true;
  AddHypothesis(list, "qk-norm", "normalises all heads together instead of each", whole);
  Replay late = base;
  std::string& input = late.node.inputs[0];
  input.replace(input.size() - 4, 4, "rope");  // q_proj: q_rope
  AddHypothesis(list, "qk-norm", "normalises the heads after they are rotated", late);
}

}  // namespace

void NormHypotheses(const Replay& base, const ReplaySource& source, Hypotheses& list) {
  const Node& node = base.node;
  for (const OffsetPlace place :
       {OffsetPlace::kFloat32, OffsetPlace::kModel, OffsetPlace::kStored}) {
    Replay r = base;
    r.weight_offset = 1;
    r.offset_place = place;
    AddHypothesis(list, "norm-weight-plus-one", "multiplies by 1 + weight", r);
  }
  if (node.attributes.heads > 0) HeadNormHypotheses(base, list);
  Replay skipped = base;
  skipped.norm_skipped = true;
  AddHypothesis(list, "norm-missing", "multiplies by the weight without normalising", skipped);
  skipped.weight_left_out = true;
  if (node.attributes.heads == 0) {
    AddHypothesis(list, "norm-missing", "does not normalise", skipped);
  }
  Replay bare = base;
  bare.weight_left_out = true;
  AddHypothesis(list, "norm-weight-plus-one", "leaves the weight out, as if it were 1", bare);
  Replay centred = base;
  centred.mean_subtracted = true;
  AddHypothesis(list, "norm-mean-subtracted", "subtracts the mean (LayerNorm)", centred);
  std::set<std::string> others;
  for (const Node& other : source.graph->nodes) {
    const bool near = other.layer == node.layer || other.layer < 0;
    const bool fits = other.kind == OpKind::kRmsNorm &&
                      other.attributes.in_features == node.attributes.in_features &&
                      (other.attributes.heads > 0) == (node.attributes.heads > 0);
    if (near && fits) others.insert(other.weights[0]);
  }
  others.erase(node.weights[0]);
  for (const std::string& other : others) {
    Replay r = base;
    r.node.weights[0] = other;
    AddHypothesis(list, "weights-swapped", fmt::format("uses {}", other), r);
  }
  for (double eps : EpsCandidates(base, source)) {
    list.push_back(WithValue({"norm-eps", "", base, {}, node.attributes.eps}, eps));
  }
  WeightHypotheses(base, source, list);
  if (source.dtype == DType::kF32) return;
  using Finish = NormPrecision::Finish;
  for (Finish finish : {Finish::kFloat32, Finish::kRsqrt, Finish::kSqrtDivide}) {
    for (bool squares : {false, true}) {
      Replay r = base;
      r.norm_precision = {true, squares, finish};
      AddHypothesis(list, "norm-low-precision", "takes the mean of squares in the model's dtype",
                    r);
    }
  }
}

}  // namespace samebits
