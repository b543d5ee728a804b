// What the invariance tests share: models with random weights, prompts, comparisons that count.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "samebits/checkpoint/checkpoint.h"
#include "samebits/graph/graph.h"
#include "samebits/tensor/bits_testing.h"
#include "tests/invariance/random_checkpoint.h"
#include "tests/invariance/runs.h"

namespace samebits {

constexpr Isa kIsas[] = {Isa::kPortable, Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Bf16};
constexpr int kThreads[] = {1, 2, 3, 7};
constexpr DType kDTypes[] = {DType::kF32, DType::kBF16, DType::kF16};

inline std::vector<Isa> SupportedIsas() {
  std::vector<Isa> isas;
  for (Isa isa : kIsas) {
    if (IsaSupported(isa)) isas.push_back(isa);
  }
  return isas;
}

inline std::vector<int64_t> Prompt(int64_t tokens, int64_t vocab_size, int64_t variant = 0) {
  std::vector<int64_t> ids;
  for (int64_t i = 0; i < tokens; ++i) {
    ids.push_back((i * i * 7 + (13 + 2 * variant) * i + 5 + variant) % vocab_size);
  }
  return ids;
}

// A checkpoint on disk, opened.
struct Opened {
  explicit Opened(const CheckpointSpec& spec)
      : checkpoint((WriteRandomCheckpoint(spec, folder.path()), Checkpoint::Open(folder.path()))),
        graph(BuildGraph(checkpoint.config())) {}
  Subject In(DType dtype) const { return {graph, checkpoint, dtype}; }
  TemporaryFolder folder;
  Checkpoint checkpoint;
  Graph graph;
};

// Compares the tokens from `first` on; returns how many values were compared.
inline int64_t ExpectSameTensors(const Outcome& expected, const Outcome& actual,
                                 int64_t first = 0) {
  int64_t compared = 0;
  EXPECT_EQ(expected.tensors.size(), actual.tensors.size());
  for (const auto& [name, tensor] : expected.tensors) {
    const Tensor& other = actual.tensors.at(name);
    const int64_t size = DTypeSize(tensor.dtype());
    EXPECT_EQ(tensor.shape(), other.shape()) << name;
    ForVisible(name, tensor, first,
               [&, &name = name, &tensor = tensor](int64_t offset, int64_t count) {
                 EXPECT_BITS_EQ(tensor.dtype(), tensor.data() + offset * size,
                                other.data() + offset * size, count)
                     << name << " from element " << offset;
                 compared += count;
               });
  }
  return compared;
}

using LogitsList = std::vector<std::vector<std::byte>>;

inline int64_t ExpectSameLogits(const LogitsList& expected, const LogitsList& actual, DType dtype) {
  int64_t compared = 0;
  EXPECT_EQ(expected.size(), actual.size());
  for (size_t i = 0; i < std::min(expected.size(), actual.size()); ++i) {
    EXPECT_EQ(expected[i].size(), actual[i].size());
    const auto count = static_cast<int64_t>(expected[i].size()) / DTypeSize(dtype);
    EXPECT_BITS_EQ(dtype, expected[i].data(), actual[i].data(), count)
        << "logits behind step " << i;
    compared += count;
  }
  return compared;
}

}  // namespace samebits
