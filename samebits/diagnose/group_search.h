// One group of nodes (those whose code a port shares): finds the form that holds for all of them,
// and the cause of what no form explains.
#pragma once

#include <set>
#include <string>
#include <utility>
#include <vector>

#include "samebits/diagnose/forms.h"
#include "samebits/diagnose/hypotheses.h"
#include "samebits/diagnose/judge.h"
#include "samebits/diagnose/scan.h"

namespace samebits {

// A tensor to be judged.
struct Item {
  size_t index = 0;  // into CheckResult::nodes
  Replay replay;     // as Hugging Face
  const TensorView* candidate = nullptr;
};

struct Explanation {
  Judgement graph;  // as the graph says, under the group's harmless chains
  std::vector<Hypothesis>
      hypotheses;   // empty: nothing to explain, or no explanation; two: together
  Judgement cause;  // under the last one (which includes the others)
};

struct GroupResult {
  Form form;
  std::vector<Explanation> items;  // parallel to the group's items
  // Causes that change values here, by too little for their effect to stand out from the rounding.
  std::set<std::string> drowned;
};

GroupResult SearchGroup(const std::vector<Item>& items, const ReplaySource& source);

// The range of a searched scalar's values that fit all of these items as well as the one found.
ValueRange RangeOf(const std::vector<std::pair<const Item*, const Hypothesis*>>& items,
                   const ReplaySource& source);

}  // namespace samebits
