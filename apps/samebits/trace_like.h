// `trace --like REF`: what a run takes from another trace so that the two can be compared value by
// value. Never a tensor's values.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "samebits/checkpoint/checkpoint.h"
#include "samebits/graph/graph.h"
#include "samebits/trace/trace.h"

namespace samebits {

struct LikeRun {
  TraceInfo info;                  // ids, positions, mask, batch, chunks, dtype, metadata
  std::vector<int64_t> padding;    // of each sequence: hidden tokens on the left
  std::vector<std::string> names;  // tensors, in the graph's order

  std::string attention() const;  // "eager" unless the trace says otherwise
};

// Throws Error: names that the graph does not have, another checkpoint's digest, ids outside the
// vocabulary, a mask that hides anything but tokens on the left.
LikeRun ReadLike(const std::string& path, const Graph& graph, const std::string& digest);

// Throw Error where the run of the trace `path` has no meaning without a profile (padding), or none
// under one (an attention that is not replayed, tensors that it does not have).
void CheckCanonical(const LikeRun& run, const std::string& path);
void CheckReplayable(const LikeRun& run, const std::string& path);

// What the new trace says of itself: REF's keys that say how it was run, and nothing of who ran it.
std::map<std::string, std::string> LikeMetadata(const LikeRun& run);

}  // namespace samebits
