// samebits trace: runs a prompt and records its nodes.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <fnmatch.h>

#include <algorithm>
#include <optional>
#include <set>

#include "apps/samebits/commands.h"
#include "apps/samebits/model_options.h"
#include "apps/samebits/profile_options.h"
#include "apps/samebits/progress.h"
#include "apps/samebits/prompt_options.h"
#include "apps/samebits/ranks.h"
#include "apps/samebits/substitute_options.h"
#include "apps/samebits/trace_like.h"
#include "samebits/base/error.h"
#include "samebits/base/json.h"
#include "samebits/checkpoint/digest.h"
#include "samebits/checkpoint/hub_cache.h"
#include "samebits/engine/trace_recorder.h"

namespace samebits {
namespace {

struct TraceOptions {
  ModelOptions model;
  PromptOptions prompt;
  std::string output;
  std::vector<std::string> nodes;
  std::string like;
  std::vector<std::string> substitutes;
  ProfileOptions profile;
};

// Names of tensors that match one of the patterns; without patterns all do. Throws when a pattern
// matches nothing: a trace that lacks what was asked for is found too late.
std::vector<std::string> Chosen(const Graph& graph, const std::vector<std::string>& patterns) {
  std::vector<std::string> chosen;
  std::vector<bool> used(patterns.size());
  for (const Node& node : graph.nodes) {
    for (const std::string& name : node.outputs) {
      bool wanted = patterns.empty();
      for (size_t i = 0; i < patterns.size(); ++i) {
        if (fnmatch(patterns[i].c_str(), name.c_str(), 0) != 0) continue;
        wanted = used[i] = true;
      }
      if (wanted) chosen.push_back(name);
    }
  }
  for (size_t i = 0; i < patterns.size(); ++i) {
    if (used[i]) continue;
    Fail(ErrorCode::kUsage,
         "--nodes '{}': no tensor has such a name; there are model.embed_tokens, "
         "model.layers.0.self_attn.q_proj, ..., lm_head (docs/trace-format.md)",
         patterns[i]);
  }
  return chosen;
}

// How a trace is made: whole, or in the chunks of another.
struct Plan {
  std::vector<int64_t> ids, positions;  // [B, T]; no positions: counted
  int64_t batch = 0;
  std::vector<int64_t> chunks, padding;
  std::vector<std::string> names;
  std::map<std::string, std::string> metadata;

  int64_t sequences() const { return std::max<int64_t>(1, batch); }
  int64_t tokens() const { return static_cast<int64_t>(ids.size()) / sequences(); }
};

Plan PlanPrompt(const TraceOptions& options, const std::string& folder, const Graph& graph,
                const RuntimeOptions& how) {
  Plan plan;
  plan.names = Chosen(graph, options.nodes);
  std::optional<Tokenizer> tokenizer;
  const Prompt prompt = ReadPrompt(options.prompt, folder, graph.config, tokenizer);
  plan.ids = prompt.ids;
  plan.metadata = TraceMetadata(how.dtype, prompt.ids);
  if (!prompt.text.empty()) plan.metadata["prompt"] = prompt.text;
  plan.padding = {0};
  if (how.replay != nullptr && how.replay->attention() == AttentionKind::kSdpa) {
    plan.metadata["attention"] = "sdpa";  // whose kernel has no scores and no probs
    std::erase_if(plan.names, [](const std::string& name) {
      return name.ends_with(".scores") || name.ends_with(".probs");
    });
  }
  // The bits of `canonical` do not depend on the chunks, those of a replay do.
  const int64_t whole = how.replay != nullptr ? plan.tokens() : options.model.chunk;
  for (int64_t left = plan.tokens(); left > 0; left -= plan.chunks.back()) {
    plan.chunks.push_back(std::min(left, whole));
  }
  return plan;
}

Plan PlanLike(const LikeRun& like) {
  Plan plan;
  plan.names = like.names;
  plan.ids = like.info.input_ids;
  plan.positions = like.info.positions;
  plan.batch = like.info.batch;
  plan.chunks = like.info.chunks;
  plan.padding = like.padding;
  plan.metadata = LikeMetadata(like);
  return plan;
}

// What a rank other than 0 says it records: the same tensors, which rank 0 gets.
class Wanted : public Recorder {
 public:
  explicit Wanted(const std::vector<std::string>& names) : names_(names.begin(), names.end()) {}
  bool Wants(std::string_view name) const override { return names_.contains(name); }
  void Record(std::string_view, const TensorView&, int64_t) override {}

 private:
  std::set<std::string, std::less<>> names_;
};

void Execute(Runtime& runtime, const Plan& plan, const Substitutes& substitutes,
             const std::vector<Recorder*>& recorders) {
  const int64_t tokens = plan.tokens();
  std::vector<Sequence> sequences;
  for (int64_t i = 0; i < plan.sequences(); ++i) {
    sequences.push_back(runtime.NewSequence());
    sequences.back().SetPadding(plan.padding[static_cast<size_t>(i)]);
    sequences.back().Plan(plan.chunks.front());
  }
  ProgressLine progress;
  int64_t at = 0;
  for (int64_t count : plan.chunks) {
    if (tokens > 512) progress.Show(at, tokens, "tokens");
    std::vector<Part> parts;
    for (int64_t i = 0; i < plan.sequences(); ++i) {
      const auto place = static_cast<size_t>(i * tokens + at), n = static_cast<size_t>(count);
      Part part{&sequences[static_cast<size_t>(i)], std::span(plan.ids).subspan(place, n),
                recorders[static_cast<size_t>(i)]};
      part.substitutes = &substitutes;
      if (!plan.positions.empty()) part.positions = std::span(plan.positions).subspan(place, n);
      parts.push_back(part);
    }
    runtime.Forward(parts);
    at += count;
  }
  progress.Clear();
}

void RunTrace(const TraceOptions& options) {
  const std::string folder = ResolveModel(options.model.model);
  const Checkpoint checkpoint = Checkpoint::Open(folder);
  const Graph graph = BuildGraph(checkpoint.config());
  const std::string digest = CheckpointDigest(checkpoint);
  RuntimeOptions how = ChosenRuntime(options.model, checkpoint.config());
  Plan plan;
  if (options.like.empty()) {
    how.replay = OpenReplay(options.profile);
    plan = PlanPrompt(options, folder, graph, how);
  } else {
    const LikeRun like = ReadLike(options.like, graph, digest);
    if (!options.model.dtype.empty() && how.dtype != like.info.dtype) {
      Fail(ErrorCode::kUsage, "--dtype {}: {} was made in {}", options.model.dtype, options.like,
           ModelDTypeName(like.info.dtype));
    }
    how.dtype = like.info.dtype;
    if (options.profile.path.empty()) {
      CheckCanonical(like, options.like);
    } else {
      CheckReplayable(like, options.like);
    }
    ProfileOptions profile = options.profile;
    profile.attention = like.attention();
    how.replay = OpenReplay(profile, &like.info.metadata, options.like);
    plan = PlanLike(like);
  }
  plan.metadata["framework_version"] = SAMEBITS_VERSION;
  plan.metadata["cpu"] = IsaName(how.isa);
  plan.metadata["threads"] = fmt::format("{}", how.threads);
  plan.metadata["checkpoint_digest"] = digest;
  if (how.replay != nullptr) plan.metadata["profile"] = how.replay->profile().digest();
  if (!options.substitutes.empty() && plan.batch > 0) {
    Fail(ErrorCode::kUnsupported, "--substitute: {} is a batch; supported is one sequence",
         options.like);
  }
  const OpenSubstitutes substitutes =
      ReadSubstitutes(options.substitutes, graph, checkpoint, plan.ids, how.dtype);
  if (!substitutes.taken.empty()) plan.metadata["substituted"] = Json(substitutes.taken).dump();
  how.weights = substitutes.weights;
  if (ProcessRanks() != nullptr && !options.substitutes.empty()) {
    Fail(ErrorCode::kUnsupported, "--substitute: one rank only");
  }
  JoinRanks(options.model, checkpoint,
            fmt::format("{} {} {} {}", fmt::join(plan.ids, ","), fmt::join(plan.positions, ","),
                        fmt::join(plan.chunks, ","), fmt::join(plan.names, ",")),
            how);
  Runtime runtime(graph, checkpoint, how);
  std::optional<TraceRecorder> recorder;
  std::vector<Recorder*> recorders;
  Wanted wanted(plan.names);
  if (IsRootRank()) {
    recorder.emplace(options.output, graph, how.dtype,
                     TraceRecorder::Layout{plan.batch, plan.tokens()}, plan.metadata, plan.names);
  }
  for (int64_t i = 0; i < plan.sequences(); ++i) {
    recorders.push_back(recorder ? recorder->sequence(i) : &wanted);
  }
  ProgressLine progress;
  PageIn(checkpoint, progress);
  progress.Clear();
  Execute(runtime, plan, substitutes.tensors, recorders);
  if (recorder) recorder->Finish();
  fmt::print(stderr, "{}: {} tokens, {} tensors, {}\n", options.output, plan.tokens(),
             plan.names.size(), ModelDTypeName(how.dtype));
}

}  // namespace

void RegisterTrace(CLI::App& app, int&) {
  auto options = std::make_shared<TraceOptions>();
  CLI::App* command = app.add_subcommand("trace", "run a prompt and record its nodes");
  command->footer("Example: samebits trace models/nano \"What is 17 + 25?\" -o nano.safetensors");
  AddModelOptions(*command, options->model);
  AddPromptOptions(*command, options->prompt);
  command->add_option("-o,--output", options->output, "the trace file")->required();
  command
      ->add_option("--nodes", options->nodes,
                   "only tensors with such names: 'model.layers.0.*', '*.q_proj', lm_head; can "
                   "be given more than once")
      ->allow_extra_args(false);
  CLI::Option* like = command->add_option(
      "--like", options->like,
      "another trace: the same ids, positions, chunks, dtype and tensors; none of its values");
  for (const char* other : {"PROMPT", "--ids", "--chat", "--system", "--raw", "--nodes"}) {
    like->excludes(command->get_option(other));
  }
  command
      ->add_option("--substitute", options->substitutes,
                   "NAME=FILE[:THEIR_NAME]: take a tensor, or a weight, from a file instead of "
                   "computing or loading it; * fits several; can be given more than once")
      ->allow_extra_args(false);
  AddProfileOptions(*command, options->profile);
  like->excludes(command->get_option("--attention"));
  command->callback([options] { RunTrace(*options); });
}

}  // namespace samebits
