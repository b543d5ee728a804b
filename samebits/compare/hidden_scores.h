// The places of `scores` that a token does not see, which may hold anything (docs/trace-format.md):
// keys that come later, keys that are padding, and keys behind a sliding window. The window is no
// part of a trace: it is the narrowest one that holds every probability of the layer that is not 0
// in either trace, if both have them; where no window hides anything, all keys have some.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "samebits/trace/trace.h"

namespace samebits {

class HiddenScores {
 public:
  // `name` ends with ".self_attn.scores", and both traces have it in one shape: [H, T, S] or
  // [B, H, T, S], S - T keys lying before the first row. The traces must outlive this.
  HiddenScores(const Trace& a, const Trace& b, const std::string& name);

  // Whether element `index` of the scores is hidden.
  bool operator()(int64_t index) const;

 private:
  struct Place {
    int64_t sequence, row, key;
  };
  Place PlaceOf(int64_t index) const;
  bool IsPadding(int64_t sequence, int64_t key) const;
  void FindWindow(const TensorView& a, const TensorView& b);

  int64_t rows_ = 0, keys_ = 0, elements_of_sequence_ = 0;
  std::vector<bool> padding_;  // [B, S]; empty: none
  int64_t window_ = 0;         // keys that a row sees; 0: all
};

}  // namespace samebits
