// The exact sums of linear layers, shared by ranks. They are most of what a check computes, whether
// it judges a node, tries a cause or runs the whole model, so this is where its work is shared:
// rank 0 checks as it would alone, and every rank has some rows of each weight. The others need no
// trace. A sum is computed whole by one rank, so no bit depends on how many there are.
#pragma once

#include <string>

#include "samebits/checkpoint/checkpoint.h"
#include "samebits/engine/communicator.h"
#include "samebits/graph/graph.h"
#include "samebits/kernels/thread_pool.h"
#include "samebits/numerics/exact.h"

namespace samebits {

// Columns `outs` of args.y and args.magnitude.
void ComputeSums(const exact::DotArgs& args, Range outs, ThreadPool& pool);

class SharedSums {
 public:
  // All ranks: with the same checkpoint. Both must outlive this.
  SharedSums(Communicator& ranks, const Checkpoint& checkpoint)
      : ranks_(ranks), checkpoint_(checkpoint) {}

  // Rank 0: all columns. args.w is the checkpoint's `weight`.
  void Compute(const std::string& weight, const exact::DotArgs& args, ThreadPool& pool);
  // Rank 0: there is no more to compute.
  void End();
  // The other ranks: computes their shares until rank 0 ends.
  void Serve(ThreadPool& pool);

 private:
  Communicator& ranks_;
  const Checkpoint& checkpoint_;
};

}  // namespace samebits
