// The whole model replayed from its token ids with exact sums and the rounding of given forms: what
// would a port with just these habits have computed?
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "samebits/diagnose/forms.h"
#include "samebits/diagnose/replay.h"

namespace samebits {

// Rough cost: multiplications of one run.
double WholeRunCost(const Graph& graph, int64_t tokens);

// A model and ids that nothing was recorded of, for runs from the beginning. Throws
// Error(kUnsupported) when a run is too long in fp64; `place` starts the message.
ReplaySource SourceOfIds(const Graph& graph, const Checkpoint& checkpoint, ThreadPool& pool,
                         DType dtype, const std::vector<int64_t>& ids, const std::string& place);

// Calls `visit` with every tensor in the order of execution. `forms`: by group name, those of other
// groups are Hugging Face's. `like` gives ids, positions, dtype, pool.
// `noise`: every uncertain stage is moved within a typical rounding error, by random numbers of
// this seed.
void RunWhole(const ReplaySource& like, const std::map<std::string, Form>& forms,
              const std::function<void(const std::string& name, const TensorView&)>& visit,
              std::optional<uint64_t> noise = std::nullopt);

// The same, with what a legitimate implementation may have made of each tensor from its inputs.
void RunWholeJudged(
    const ReplaySource& like, const std::map<std::string, Form>& forms,
    const std::function<void(const Replay& replay, const TensorView&, const Expectation&)>& visit,
    std::optional<uint64_t> noise = std::nullopt);

}  // namespace samebits
