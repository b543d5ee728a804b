// What the evaluations of single operations share (replay_*.cc): the replay, where its tensors come
// from, and the small decisions about rounding, taken once.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "samebits/base/error.h"
#include "samebits/diagnose/replay.h"
#include "samebits/tensor/convert.h"

namespace samebits {

struct ReplayContext {
  const Replay& replay;
  const ReplaySource& source;
  DType model;   // intermediate roundings
  DType stored;  // the last rounding
  RowRange rows;

  const Node& node() const { return replay.node; }
  const Attributes& attributes() const { return replay.node.attributes; }
  bool fp32() const { return model == DType::kF32; }
  TailStep Last() const { return RoundStep(stored, replay.truncate); }
  TailStep Middle() const { return RoundStep(model, replay.truncate); }
  double RoundMiddle(double v) const {
    return replay.truncate ? TruncateToDType(v, model) : RoundToDType(v, model);
  }
  const TensorView& Input(size_t index) const { return Recorded(node().inputs.at(index)); }
  const TensorView& Recorded(const std::string& name) const {
    const TensorView* view = source.tensor(name);
    SAMEBITS_CHECK(view != nullptr, "a required tensor is missing");
    return *view;
  }
  std::vector<double> InputRows(size_t index) const {
    return GatherRows(Input(index), rows, false);
  }
  // B of a sum of n terms: twice or four times as much where additions cut bits off.
  double SumBound(int64_t n, double magnitude) const {
    return exact::SumBound(n, magnitude) * (replay.truncating_sums ? 4 : 1);
  }
  // A one-dimensional weight in the model's dtype.
  std::vector<double> WeightVector(const std::string& name) const;
};

Expectation EvaluateRotary(const ReplayContext& c);
Expectation EvaluateRope(const ReplayContext& c);
Expectation EvaluateRmsNorm(const ReplayContext& c);
Expectation EvaluateLinear(const ReplayContext& c);
Expectation EvaluateScores(const ReplayContext& c);
Expectation EvaluateProbs(const ReplayContext& c);
Expectation EvaluateContext(const ReplayContext& c);
Expectation EvaluateFusedAttention(const ReplayContext& c);

// x [rows, heads, head_dim] read as if [rows, head_dim, heads] were stored.
std::vector<double> ReadHeadsMinor(const std::vector<double>& x, int64_t heads, int64_t head_dim);

// Turns y, bound and tail into outcomes (low, y, high), each passed through the cap.
void ApplySoftcap(const ReplayContext& c, Expectation& e);

}  // namespace samebits
