// Which rotary embedding a checkpoint asks for: config.json's rope_parameters (or rope_scaling and
// rope_theta) with the defaults that transformers 5 fills in. What the numbers mean:
// numerics/rope.h. Left out: longrope, several embeddings in one model, a rotation of a part of the
// head.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace samebits {

enum class RopeKind { kDefault, kLinear, kDynamic, kYarn, kLlama3 };

std::string_view RopeKindName(RopeKind kind);                     // "llama3"
std::optional<RopeKind> RopeKindFromName(std::string_view name);  // nothing: not supported

struct RopeParameters {
  RopeKind kind = RopeKind::kDefault;
  double theta = 10000.0;
  double factor = 1;  // not for kDefault
  // The length that the model was pretrained for. kYarn, kLlama3: original_max_position_embeddings;
  // kDynamic: max_position_embeddings.
  int64_t original_length = 0;
  double low_freq_factor = 1, high_freq_factor = 4;  // kLlama3
  // kYarn
  double beta_fast = 32, beta_slow = 1;
  bool truncate = true;
  std::optional<double> attention_factor{};  // nothing: from factor, mscale and mscale_all_dim
  double mscale = 0, mscale_all_dim = 0;     // 0: not given

  bool operator==(const RopeParameters&) const = default;
};

}  // namespace samebits
