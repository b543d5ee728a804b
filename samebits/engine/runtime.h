// Runs a graph: node after node over the new tokens of one sequence or of several, with a KV cache
// each. It knows operations, no architectures. In `canonical` arithmetic how a prompt is cut into
// chunks, how many threads there are and what other sequences are computed beside it changes no bit
// of a sequence; in a replay the chunks and the batch are those of the reference.
#pragma once

#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "samebits/checkpoint/checkpoint.h"
#include "samebits/engine/communicator.h"
#include "samebits/engine/recorder.h"
#include "samebits/engine/replay_plan.h"
#include "samebits/engine/sequence.h"
#include "samebits/graph/graph.h"
#include "samebits/graph/parallel.h"
#include "samebits/kernels/kernels.h"
#include "samebits/tensor/tensor.h"

namespace samebits {

// Tensors that take the place of computed ones, by the graph's names: [T, ...] in the model's
// dtype, row t for position t of the sequence. Scores and probs are inside of the attention kernel
// and can not be replaced.
using Substitutes = std::map<std::string, TensorView, std::less<>>;

// What the calls of a node took, added up.
struct NodeCost {
  double seconds = 0;
  Traffic traffic;
};

struct RuntimeOptions {
  DType dtype = DType::kF32;  // weights are rounded or widened to it where they are used
  Isa isa = Isa::kPortable;
  int threads = 1;
  std::shared_ptr<const ReplayPlan> replay = nullptr;  // instead of `canonical`
  // Weights that take the place of the checkpoint's, by their names there; must outlive the
  // runtime.
  std::map<std::string, TensorView, std::less<>> weights = {};
  // Gets one for each node of Runtime::graph(); must outlive the runtime.
  std::vector<NodeCost>* node_costs = nullptr;
  // This process is one of several ranks that all make the same calls, and runs its share of the
  // graph by `parallel`. Recorders must want the same tensors on all ranks; those of rank 0 get
  // them. Must outlive the runtime.
  Communicator* ranks = nullptr;
  ParallelPlan parallel = {};
  // Where more rows than these are gathered in front of a linear layer and behind it, they travel
  // in pieces of so many, while this rank computes with those that are there.
  int64_t exchange_rows = 128;
};

// New tokens of one sequence.
struct Part {
  Sequence* sequence = nullptr;
  std::span<const int64_t> ids;
  Recorder* recorder = nullptr;
  std::span<const int64_t> positions = {};  // one an id; empty: counted from the sequence's first
  const Substitutes* substitutes = nullptr;
};

class Runtime {
 public:
  // `checkpoint` and `graph` must outlive the runtime. Throws Error when the CPU lacks the isa.
  Runtime(const Graph& graph, const Checkpoint& checkpoint, const RuntimeOptions& options);
  ~Runtime();
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;

  // The one that is run: with ranks this rank's share.
  const Graph& graph() const;

  // An empty one. It must not outlive the graph, with ranks not the runtime.
  Sequence NewSequence() const;

  // Appends each part's tokens to its sequence; no sequence may be given twice. Returns the logits
  // of each part's last token, [parts, V] in the dtype, valid until the next call. Throws as
  // CheckIds does, and then nothing has changed.
  // With a recorder that wants the logits, those of all rows are computed; without any, what
  // reaches nothing but the logits is computed for these tokens alone (not in a replay).
  const TensorView& Forward(std::span<const Part> parts);
  const TensorView& Forward(Sequence& sequence, std::span<const int64_t> ids,
                            Recorder* recorder = nullptr);
  // Appends tokens of a prompt that goes on: no logits are made, what they alone need is left out.
  void Read(Sequence& sequence, std::span<const int64_t> ids);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace samebits
