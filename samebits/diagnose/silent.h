// Systematic effects that no single value proves: an edit that moves so few values, or moves them
// by so little, that nothing is outside its interval. Decided over all nodes of a group together.
#pragma once

#include <vector>

#include "samebits/diagnose/group_search.h"

namespace samebits {

// Adds the hypothesis that explains `items` better than the graph does, if one does so beyond what
// rounding can fake. Nothing of `result` may be outside.
void FindSilent(const std::vector<Item>& items, const ReplaySource& source, GroupResult& result);

// Names an accumulator that is not IEEE fp32 where every value is inside the bounds all the same:
// products that lose bits, by the strength of their effect; sums that cut bits off, by errors that
// point towards zero. Adds a chain to `result`.
void NameAccumulator(const std::vector<Item>& items, const ReplaySource& source,
                     GroupResult& result);

}  // namespace samebits
