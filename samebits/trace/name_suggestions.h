// What a tensor of another program may be called here: by the words of its name and by its shape.
#pragma once

#include <string>
#include <vector>

#include "samebits/trace/tensor_file.h"

namespace samebits {

struct ModelTensor {
  std::string name;
  Shape shape;
};

struct Suggestion {
  std::string name;        // in the file
  std::string suggestion;  // ours; empty: nothing is like it
  std::string why;         // "its words and its shape"
};

// For each tensor of a file whose name is not expected.
std::vector<Suggestion> SuggestNames(const std::vector<NamedTensor>& tensors,
                                     const std::vector<ModelTensor>& expected);

// A map file (docs/trace-map.md) with a rule for each suggestion, to be read and corrected.
std::string SuggestMap(const TensorFile& file, const std::vector<ModelTensor>& expected);

}  // namespace samebits
