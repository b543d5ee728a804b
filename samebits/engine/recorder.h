// Who gets the tensors of a run as they are computed.
#pragma once

#include <cstdint>
#include <string_view>

#include "samebits/tensor/tensor.h"

namespace samebits {

// Gets the tensors of a chunk as they are computed.
class Recorder {
 public:
  virtual ~Recorder() = default;
  // Whether Record is to be called for this tensor. Attention makes scores and probs only then.
  virtual bool Wants(std::string_view /*name*/) const { return true; }
  // `rows` holds the tokens from `first_token` on. Tensors [T, ...]: their rows. Tensors [H, T, S]:
  // [H, rows, keys] with keys = all tokens up to the last of these rows; a chunk comes in several
  // calls when it is long.
  virtual void Record(std::string_view name, const TensorView& rows, int64_t first_token) = 0;
};

}  // namespace samebits
