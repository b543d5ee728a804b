#include "apps/samebits/trace_like.h"

#include <algorithm>
#include <set>

#include "samebits/base/error.h"
#include "samebits/base/json.h"
#include "samebits/engine/runtime.h"

namespace samebits {
namespace {

std::vector<std::string> Names(const Trace& trace, const Graph& graph) {
  std::set<std::string, std::less<>> wanted;
  for (const NamedTensor& tensor : trace.tensors()) wanted.insert(tensor.name);
  std::vector<std::string> names;
  for (const Node& node : graph.nodes) {
    for (const std::string& name : node.outputs) {
      if (wanted.erase(name) > 0) names.push_back(name);
    }
  }
  if (!wanted.empty()) {
    Fail(ErrorCode::kBadInput, "{}: tensor {}: this model has no such node; another checkpoint's?",
         trace.path(), Excerpt(Json(*wanted.begin())));
  }
  if (names.empty()) Fail(ErrorCode::kBadInput, "{}: no tensors", trace.path());
  return names;
}

// Hidden tokens on the left of a sequence.
int64_t Padding(const Trace& trace, size_t sequence) {
  const auto tokens = static_cast<size_t>(trace.tokens());
  const auto begin = trace.info().attention_mask.begin() + static_cast<int64_t>(sequence * tokens);
  const auto end = begin + static_cast<int64_t>(tokens);
  const auto first = std::find(begin, end, 1);
  if (std::find(first, end, 0) != end || first == end) {
    Fail(ErrorCode::kUnsupported,
         "{}: __metadata__ 'attention_mask' of sequence {}: expected padding on the left and a "
         "token behind it",
         trace.path(), sequence);
  }
  return first - begin;
}

// As CheckIds, naming the trace.
void CheckIdsOf(const Trace& trace, std::span<const int64_t> ids, const ModelConfig& config) {
  try {
    CheckIds(ids, config);
  } catch (const Error& error) {
    Fail(ErrorCode::kBadInput, "{}: {}", trace.path(), error.what());
  }
}

}  // namespace

std::string LikeRun::attention() const {
  const auto found = info.metadata.find("attention");
  return found == info.metadata.end() ? "eager" : found->second;
}

LikeRun ReadLike(const std::string& path, const Graph& graph, const std::string& digest) {
  const Trace trace = Trace::Open(path);
  LikeRun run;
  run.info = trace.info();
  const auto known = run.info.metadata.find("checkpoint_digest");
  if (known != run.info.metadata.end() && known->second != digest) {
    Fail(ErrorCode::kBadInput,
         "{}: made with another checkpoint: its digest is {}, this one's is {}", path,
         Excerpt(Json(known->second)), digest);
  }
  run.names = Names(trace, graph);
  const auto sequences = static_cast<size_t>(std::max<int64_t>(1, run.info.batch));
  const auto tokens = static_cast<size_t>(trace.tokens());
  for (size_t i = 0; i < sequences; ++i) {
    CheckIdsOf(trace, std::span(run.info.input_ids).subspan(i * tokens, tokens), graph.config);
    run.padding.push_back(Padding(trace, i));
  }
  return run;
}

void CheckCanonical(const LikeRun& run, const std::string& path) {
  const auto padded = [](int64_t padding) { return padding > 0; };
  if (run.info.batch == 0 && std::none_of(run.padding.begin(), run.padding.end(), padded)) return;
  Fail(ErrorCode::kUsage,
       "{}: a padded batch has a meaning under a profile alone; give --profile FILE (python -m "
       "samebits probe makes it)",
       path);
}

void CheckReplayable(const LikeRun& run, const std::string& path) {
  const std::string attention = run.attention();
  if (attention != "eager" && attention != "sdpa") {
    Fail(ErrorCode::kUnsupported, "{}: __metadata__ 'attention': expected eager or sdpa, found {}",
         path, Excerpt(Json(attention)));
  }
  for (const std::string& name : run.names) {
    if (attention == "sdpa" && (name.ends_with(".scores") || name.ends_with(".probs"))) {
      Fail(ErrorCode::kBadInput, "{}: tensor {}: __metadata__ 'attention' is sdpa, which has none",
           path, Excerpt(Json(name)));
    }
  }
}

std::map<std::string, std::string> LikeMetadata(const LikeRun& run) {
  std::map<std::string, std::string> metadata = {{"framework", "samebits"}};
  for (const char* key : {"format", "input_ids", "positions", "attention_mask", "chunks", "dtype",
                          "attention", "absent", "prompt"}) {
    const auto found = run.info.metadata.find(key);
    if (found != run.info.metadata.end()) metadata.insert(*found);
  }
  return metadata;
}

}  // namespace samebits
