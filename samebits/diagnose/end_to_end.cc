#include <algorithm>

#include "samebits/compare/metrics.h"
#include "samebits/diagnose/checker.h"
#include "samebits/diagnose/whole_run.h"
#include "samebits/tensor/convert.h"

namespace samebits {

void Checker::RunEndToEnd() {
  const TensorView* candidate = trace_.Find("lm_head");
  constexpr double kAffordable = 4e10;  // multiplications a run: some ten seconds
  if (candidate == nullptr || !options_.end_to_end ||
      WholeRunCost(graph_, trace_.tokens()) > kAffordable) {
    return;
  }
  EndToEnd end;
  end.values = candidate->elements();
  end.tokens = trace_.tokens();
  const std::vector<double> theirs = ToDoubles(*candidate);
  const int64_t vocab = graph_.config.vocab_size;
  const auto run = [&](const std::map<std::string, Form>& forms, bool reference) {
    EndToEnd::Run one;
    for (const auto& [group, form] : forms) {
      one.chains.insert(one.chains.end(), form.chains.begin(), form.chains.end());
    }
    RunWhole(source_, forms, [&](const std::string& name, const TensorView& ours) {
      const TensorView* recorded = trace_.Find(name);
      if (recorded == nullptr || recorded->shape != ours.shape) return;
      if (reference && !name.ends_with(".scores")) {
        for (NodeResult& node : result_.nodes) {
          if (node.name == name) node.propagated = CompareTensors(ours, *recorded).max_abs;
        }
      }
      if (name != "lm_head") return;
      const Metrics metrics = CompareTensors(ours, *recorded);
      one.max_abs = metrics.max_abs;
      one.differing = metrics.differing;
      if (!reference) return;
      const std::vector<double> logits = ToDoubles(ours);
      for (int64_t t = 0; t < end.tokens; ++t) {
        const auto top = [&](const std::vector<double>& v) {
          return std::max_element(v.begin() + t * vocab, v.begin() + (t + 1) * vocab) - v.begin();
        };
        end.same_argmax += top(logits) == top(theirs) ? 1 : 0;
      }
    });
    end.runs.push_back(std::move(one));
  };
  run({}, true);
  const bool bugs = !result_.findings.empty();
  if (!bugs && forms_.size() > 1) {
    for (const auto& [group, form] : forms_) run({{group, form}}, false);
  }
  if (!bugs && !forms_.empty()) run(forms_, false);
  result_.end_to_end = std::move(end);
}

}  // namespace samebits
