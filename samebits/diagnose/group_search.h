// One group of nodes (those whose code a port shares): finds the form that holds for all of them,
// and the cause of what no form explains.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "samebits/diagnose/forms.h"
#include "samebits/diagnose/hypotheses.h"
#include "samebits/diagnose/judge.h"

namespace samebits {

// A tensor to be judged.
struct Item {
  size_t index = 0;  // into CheckResult::nodes
  Replay replay;     // as Hugging Face
  const TensorView* candidate = nullptr;
};

struct Explanation {
  Judgement graph;  // as the graph says, under the group's harmless chains
  std::optional<Hypothesis> hypothesis;
  Judgement cause;  // under the hypothesis
};

struct GroupResult {
  Form form;
  std::vector<Explanation> items;  // parallel to the group's items
};

GroupResult SearchGroup(const std::vector<Item>& items, const ReplaySource& source);

// All values of a searched scalar that leave nothing outside on the items: the range around
// `value`.
struct ValueRange {
  double low, high;
};
ValueRange ScanEps(const std::vector<const Item*>& items, const Form& form,
                   const ReplaySource& source, double value);

}  // namespace samebits
