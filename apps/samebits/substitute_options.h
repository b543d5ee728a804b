// The option --substitute of `samebits trace`: tensors and weights that are taken from files.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "samebits/checkpoint/checkpoint.h"
#include "samebits/engine/runtime.h"
#include "samebits/trace/tensor_file.h"

namespace samebits {

struct OpenSubstitutes {
  Substitutes tensors;                                     // of the graph
  std::map<std::string, TensorView, std::less<>> weights;  // of the checkpoint
  std::vector<std::shared_ptr<const TensorFile>> files;    // keep them
  std::vector<std::string> taken;                          // "NAME=FILE", for the metadata
};

// Each of `asked`: PATTERN=FILE or NAME=FILE:THEIR_NAME. A pattern (model.layers.*.q_proj) takes
// every tensor of the graph, or weight of the checkpoint, that it fits and that the file holds.
// Throws Error: nothing fits, a shape, a dtype, other token ids than `ids`.
OpenSubstitutes ReadSubstitutes(const std::vector<std::string>& asked, const Graph& graph,
                                const Checkpoint& checkpoint, const std::vector<int64_t>& ids,
                                DType dtype);

}  // namespace samebits
