// The work of Check, in one place: the members are in check.cc (nodes and findings), check_input.cc
// (what a trace may be), measurement.cc (when the trace itself is wrong), check_bits.cc (whose bits
// a node has), end_to_end.cc and visibility.cc.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "samebits/base/error.h"
#include "samebits/diagnose/check.h"
#include "samebits/diagnose/group_search.h"
#include "samebits/diagnose/segment_search.h"
#include "samebits/engine/arithmetic.h"

namespace samebits {

// Throws Error: traces that the judge does not know (batches, padding), ids beyond the vocabulary,
// shapes that no hypothesis explains.
void CheckKind(const Graph& graph, const Trace& trace);
void CheckShapes(const Graph& graph, const Trace& trace,
                 const std::function<bool(const std::string&)>& explained);

class Checker {
 public:
  Checker(const Graph& graph, const Checkpoint& checkpoint, const Trace& trace,
          const CheckOptions& options)
      : graph_(graph), trace_(trace), options_(options), pool_(options.threads) {
    source_.graph = &graph;
    source_.checkpoint = &checkpoint;
    source_.pool = &pool_;
    source_.shared_sums = options.shared_sums;
    source_.dtype = trace.info().dtype;
    source_.input_ids = trace.info().input_ids;
    source_.positions = trace.info().positions;
    source_.chunks = trace.info().chunks;
    source_.dots = std::make_shared<DotCache>();
    source_.tensor = [this](std::string_view name) -> const TensorView* {
      return misrecorded_.contains(name) ? nullptr : trace_.Find(name);
    };
  }

  CheckResult Run();

 private:
  struct Misrecorded {
    std::string cause, detail;
    Judgement graph;  // of what is recorded
  };

  void FindOtherHeadDim();
  void CheckStatedDType();
  void CheckStatedInputs();
  void CheckStatedPositions();
  void AddTraceFinding(const std::string& cause, const std::string& detail,
                       std::vector<std::string> nodes, const Judgement& graph = {});
  std::shared_ptr<Tensor> Recompute(const Item& item) const;
  bool UsedAnother(const Item& item, const std::shared_ptr<Tensor>& right);
  bool FindMisrecorded();
  Misrecorded DescribeMisrecorded(const Item& item, const NodeResult& node) const;
  void FindCastTrace();

  void CollectItems();
  void JudgeGroups();
  void FindNonFinite();
  void AddChain(ChainResult chain);
  void Interpret(const std::vector<Item>& items, const GroupResult& group);
  Finding& AddFinding(const Item& item, const Explanation& e, const std::string& cause,
                      const std::string& detail);
  void AddRanges(const std::vector<Item>& items, const GroupResult& group);
  NodeResult& ResultOf(const std::string& name);
  NodeResult* Healthy(const std::string& name);
  void JudgeSegments();
  void AddSegment(const SegmentResult& one);
  Finding& MeasuredFinding(const std::string& cause, const std::string& detail,
                           const SegmentResult& one);
  void FindCanonical();
  void FindReplayed();
  void SetReplayed(const std::string& name);
  void FindHiddenEps(Arithmetic& replay);
  void RunEndToEnd();
  void CompareLogits(const TensorView& candidate, const TensorView& reference);
  void AddEvidence();
  void Conclude();
  void ListInvisible();
  void ListInvisibleWeights();

  const Graph& graph_;
  const Trace& trace_;
  const CheckOptions& options_;
  ThreadPool pool_;
  ReplaySource source_;
  CheckResult result_;
  std::map<std::string, std::vector<Item>> groups_;
  std::map<std::string, Form> forms_;
  std::set<std::string> drowned_;  // of all groups
  // The first node of each finding, computed as the graph says and as the cause says.
  struct Replays {
    std::string node;
    const TensorView* candidate;
    Replay graph;
    std::optional<Replay> cause;
  };
  std::map<std::string, Replays> replays_;      // by cause
  std::map<std::string, std::string> details_;  // of the first cause that was found in a node
  // Tensors that the trace does not hold as the port used them: as good as missing.
  std::map<std::string, Misrecorded, std::less<>> misrecorded_;
  std::vector<Finding> trace_findings_;
};

}  // namespace samebits
