// samebits diff: what its two forms share. Each prints and gives the exit code.
#pragma once

#include <string>

#include "samebits/base/json.h"
#include "samebits/checkpoint/safetensors.h"
#include "samebits/compare/metrics.h"

namespace samebits {

struct DiffOptions {
  std::string a, b;
  std::string only;      // part of a name; what is listed, not what is compared
  int64_t head_dim = 0;  // of checkpoints; 0: from config.json
  bool json = false, all = false;
};

int DiffTraces(const DiffOptions& options);
int DiffCheckpoints(const DiffOptions& options);

// A pair of tensors as far as both forms tell it: dtypes, shapes, metrics.
Json PairJson(Difference difference, DType dtype_a, DType dtype_b, const Shape& shape_a,
              const Shape& shape_b, const Metrics& metrics);

// JSON has no infinities and no NaN: they become the strings "inf" and "nan".
Json NumberJson(double value);

// A name can be anything: no control characters on a terminal, no column of megabytes.
std::string ShownName(const std::string& name);

// "BF16 [4, 8]", or for a pair that differs in them "BF16 [4, 8] against F32 [8, 4]".
std::string ShownPair(DType dtype_a, DType dtype_b, const Shape& shape_a, const Shape& shape_b);

}  // namespace samebits
