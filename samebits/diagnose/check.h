// samebits check: judges every tensor of a trace, names what is wrong and why.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "samebits/diagnose/evidence.h"
#include "samebits/diagnose/judge.h"
#include "samebits/diagnose/segments.h"
#include "samebits/engine/replay_plan.h"
#include "samebits/trace/trace.h"

namespace samebits {

enum class Grade { kIdentical, kRounding, kBug, kUnknown };
std::string_view GradeName(Grade grade);

struct NodeResult {
  std::string name;
  Grade grade = Grade::kUnknown;
  std::string why_unknown;  // "not in the trace"
  Judgement base;           // under the group's harmless form
  // "replay", "canonical" or "rounded" (the correctly rounded result); or empty
  std::string identical_to;
  std::optional<int64_t> replay_differing;  // values; nothing where it was not replayed
  // Not in the trace, but on the way to this tensor, which was replayed from what is in it with
  // not one value differing.
  std::string inside;
  std::string cause;  // of a bug
  // Judged together with others, as a part of a segment between recorded tensors: compared with the
  // noise of legitimate arithmetic, not with a proven interval.
  bool measured = false;
  // Largest distance to our own run of the whole model with Hugging Face's rounding, or nothing
  // where that run was left out.
  std::optional<double> propagated;
  // Largest distance between two such runs of ours: what legitimate arithmetic alone gives here.
  std::optional<double> noise;
};

// What a finding in a sparse trace rests on, over all segments that show it.
struct MeasuredEvidence {
  SegmentDistance with_graph, with_cause;
  double noise = 0;  // relative rms of legitimate arithmetic
};

struct Finding {
  std::string cause;
  std::string detail;
  std::vector<std::string> nodes;  // in the order of execution; the first is where it shows first
  bool confirmed = false;          // the replay leaves no value outside
  Judgement with_graph;            // over all nodes, computed as the graph says
  Judgement with_cause;            // ... and as the hypothesis says
  std::optional<double> value, expected;        // of a searched scalar
  std::optional<double> value_low, value_high;  // all scanned values in between fit
  std::string fix;
  std::optional<MeasuredEvidence> measured;
  std::optional<Evidence> evidence;  // of the first node, where it was judged by itself
};

struct ChainResult {
  std::string chain;
  std::vector<std::string> nodes;
  std::string what, advice;
};

// The logits of our own replays of the whole model against the candidate's.
struct EndToEnd {
  struct Run {
    std::vector<std::string> chains;  // of the port that were switched on
    double max_abs = 0;
    int64_t differing = 0;
  };
  // The likeliest tokens of both sides where they differ most, and at the last position.
  struct Token {
    int64_t id;
    double logit, log_probability;
  };
  struct Position {
    int64_t position;
    double max_abs;
    std::vector<Token> ours, theirs;
  };
  std::vector<Position> positions;
  int64_t values = 0, tokens = 0;
  int64_t same_argmax = 0;  // tokens with the same likeliest next token, Hugging Face's rounding
  std::vector<Run> runs;    // the first: Hugging Face's rounding
};

// The first tensor, in the order of execution, with a NaN or an infinity.
struct NonFinite {
  std::string node;
  int64_t count = 0, elements = 0, first = -1;  // first: index
};

struct CheckResult {
  Grade verdict = Grade::kUnknown;
  std::string first_divergence;  // the first node that is wrong
  // The last tensor that was judged, when what comes behind it is not in the trace.
  std::string judged_up_to;
  DType dtype = DType::kF32;
  int64_t tokens = 0;
  std::vector<NodeResult> nodes;
  std::vector<Finding> findings;
  std::vector<ChainResult> chains;
  std::vector<std::string> not_visible;
  std::optional<EndToEnd> end_to_end;
  std::optional<NonFinite> non_finite;
};

struct CheckOptions {
  int threads = 1;
  // The candidate's framework: each node is replayed in its order as well. Null: not.
  std::shared_ptr<const ReplayPlan> replay = nullptr;
  bool end_to_end = true;
  SharedSums* shared_sums = nullptr;  // of the ranks; null: this process is alone
  std::function<void(int64_t done, int64_t total)> progress;
};

// Throws Error when the trace does not belong to the checkpoint (shapes, ids out of range).
CheckResult Check(const Graph& graph, const Checkpoint& checkpoint, const Trace& trace,
                  const CheckOptions& options);

}  // namespace samebits
