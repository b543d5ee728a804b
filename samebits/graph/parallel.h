// The share of a graph that one of several ranks runs. Outputs are split, reductions never: a
// linear layer gives each rank some rows of its weight, attention some heads, and what the others
// need whole is gathered. So each value is computed by the same operations in the same order as on
// one rank, and no bit depends on how many there are. Left out: how tensors travel
// (engine/communicator.h).
#pragma once

#include <string>
#include <vector>

#include "samebits/graph/graph.h"

namespace samebits {

// What a rank computes of attention: some heads, or, where an arithmetic depends on all heads of a
// call, all of them from gathered q, k and v.
enum class AttentionSplit { kHeads, kWhole };

// Rank = stage * tp + its place in the stage.
struct ParallelPlan {
  int tp = 1;  // ranks that share each layer: tensor parallelism
  int pp = 1;  // stages of consecutive layers: pipeline parallelism

  int ranks() const { return tp * pp; }
  bool operator==(const ParallelPlan&) const = default;
};

// "tp=2,pp=2"; a part left out counts as 1. Throws Error(kUsage).
ParallelPlan ParseParallelPlan(const std::string& text);

// The nodes of `rank`, with its rows of the weights (Node::split) and the exchanges between. The
// names of tensors stay; a gathered tensor is "NAME.whole", and the last node of the last stage
// makes "lm_head.whole". Throws Error(kUsage): more stages than layers, more ranks in a stage than
// heads.
Graph SplitGraph(const Graph& graph, const ParallelPlan& plan, int rank,
                 AttentionSplit attention = AttentionSplit::kHeads);

// The stage that computes a node of the whole graph; nodes that read positions alone are in all.
int StageOf(const Graph& graph, const ParallelPlan& plan, const Node& node);

// `parts` ranges of [0, whole), as even as can be; the first are the longer ones.
std::vector<Range> EvenRanges(int64_t whole, int parts);

}  // namespace samebits
