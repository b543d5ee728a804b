// `canonical` arithmetic (numerics/canonical.h) by the fast kernels of an instruction set.
#pragma once

#include "samebits/engine/arithmetic.h"

namespace samebits {

class CanonicalArithmetic : public Arithmetic {
 public:
  CanonicalArithmetic(Isa isa, int threads) : Arithmetic(isa, threads) {}

  void Linear(const Node& node, const LinearArgs& args) override;
  void LinearLayers(std::span<const Node> nodes, std::span<const LinearArgs> layers) override;
  void RmsNorm(const Node& node, const RmsNormArgs& args) override;
  void Rotary(const Node& node, DType dtype, const RotaryRows& rows, void* cosine,
              void* sine) override;
  void Attention(const Node& node, std::span<const AttentionPart> parts) override;
  void Silu(const Node& node, DType dtype, const void* x, void* y, int64_t rows,
            int64_t width) override;
  void SiluMultiply(const Node& silu, DType dtype, const void* x, const void* b, void* activated,
                    void* y, int64_t rows, int64_t width) override;

 private:
  void AttentionRecorded(const Node& node, const AttentionPart& part);
};

}  // namespace samebits
