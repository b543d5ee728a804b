// The options --map and --suggest-map of the commands that read other programs' traces.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "samebits/graph/graph.h"
#include "samebits/trace/name_suggestions.h"
#include "samebits/trace/trace.h"

namespace samebits {

// A trace, adapted by the map of this path unless that is empty. Throws Error.
Trace OpenMapped(const std::string& trace, const std::string& map);

// The tensors that a trace of `tokens` tokens may hold.
std::vector<ModelTensor> ModelTensors(const Graph& graph, int64_t tokens);

// Names of the trace that are not the model's, with what they may be. Throws Error(kBadInput) when
// no name is the model's: nothing could be judged.
std::vector<Suggestion> FindUnmatched(const std::string& path, const std::string& map,
                                      const Graph& graph, const Trace& trace);

// A guess at a map for the file, printed on stdout.
void PrintSuggestedMap(const std::string& path, const Graph& graph);

}  // namespace samebits
