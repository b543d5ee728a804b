// `replay`: the bits of another framework, by the orders of a profile. What torch does around its
// sums (where transformers rounds, masks, which attention is called how) is written down here and
// in numerics/torch_ops.h and torch_flash.h; which order it adds in is looked up for every call.
// Left out: windows that a decode step has outgrown, rotary frequencies that change with the text's
// length (both are errors).
#pragma once

#include <memory>
#include <vector>

#include "samebits/engine/arithmetic.h"
#include "samebits/engine/replay_plan.h"
#include "samebits/kernels/torch_ops.h"

namespace samebits {

class ReplayArithmetic : public Arithmetic {
 public:
  ReplayArithmetic(Isa isa, int threads, std::shared_ptr<const ReplayPlan> replay)
      : Arithmetic(isa, threads), torch_(SelectTorchKernels(isa)), replay_(std::move(replay)) {}

  // Each throws Error(kBadInput) when the profile has no entry for the shape.
  void Linear(const Node& node, const LinearArgs& args) override;
  void RmsNorm(const Node& node, const RmsNormArgs& args) override;
  void Rotary(const Node& node, DType dtype, const RotaryRows& rows, void* cosine,
              void* sine) override;
  void Attention(const Node& node, std::span<const AttentionPart> parts) override;
  void Silu(const Node& node, DType dtype, const void* x, void* y, int64_t rows,
            int64_t width) override;

 private:
  // A block of rows of one sequence; `recorded`: null, or where [H, rows, keys] go.
  struct EagerBlock {
    const Node* node;
    const AttentionPart* part;
    int64_t row_begin, row_end;
    Tensor* scores;
    Tensor* probs;
    const SumRule* scores_rule;
    const SumRule* context_rule;
  };
  void Eager(const Node& node, std::span<const AttentionPart> parts);
  void EagerHead(const EagerBlock& block, int64_t head) const;
  void Sdpa(std::span<const AttentionPart> parts);

  const Profile& profile() const { return replay_->profile(); }
  const RotaryFunction& FindRotary(const Node& node) const;

  const TorchKernels& torch_;
  const std::shared_ptr<const ReplayPlan> replay_;
};

}  // namespace samebits
