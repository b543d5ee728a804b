// Two checkpoints, tensor by tensor: bytes, and for a pair that differs how one came from the
// other.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "samebits/checkpoint/safetensors.h"
#include "samebits/compare/metrics.h"
#include "samebits/compare/relations.h"

namespace samebits {

struct TensorDifference {
  std::string name;
  Difference difference = Difference::kNone;  // kValues also for NaNs of other bits
  DType dtype_a = DType::kF32, dtype_b = DType::kF32;
  Shape shape_a, shape_b;
  Metrics metrics;                 // of tensors that differ; elements is 0 of those that do not
  std::vector<Relation> relation;  // empty: none that is known
  std::string same_as_a;           // a tensor of a under another name that has b's bytes
};

// A tensor of one checkpoint only.
struct LoneTensor {
  std::string name;
  DType dtype = DType::kF32;
  Shape shape;
  std::string same_as;  // a tensor of the other checkpoint with the same bytes; empty: none
};

struct CheckpointDifference {
  std::vector<TensorDifference> tensors;  // in both, by name
  std::vector<LoneTensor> only_a, only_b;

  bool same() const;
};

struct CheckpointOptions {
  int64_t head_dim = 0;                                       // 0: heads are not looked for
  std::function<void(int64_t done, int64_t total)> progress;  // bytes of a; may be empty
};

// The tensors lie where they are mapped; nothing is copied. A name must not be in two files of one
// side. Tensors that consist of one value repeated are not looked for under other names.
CheckpointDifference CompareCheckpoints(const std::vector<SafetensorsFile>& a,
                                        const std::vector<SafetensorsFile>& b,
                                        const CheckpointOptions& options);

}  // namespace samebits
