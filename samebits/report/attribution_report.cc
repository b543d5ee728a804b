#include "samebits/report/attribution_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace samebits {

Json AttributionToJson(const Attribution& attribution) {
  const auto number = [](double v) { return std::isfinite(v) ? Json(v) : Json("nan"); };
  Json nodes = Json::array();
  for (const NodeShare& node : attribution.nodes) {
    nodes.push_back({{"node", node.node},
                     {"share", number(node.share)},
                     {"logits_rms", number(node.logits_rms)},
                     {"logits_max", number(node.logits_max)}});
  }
  return {{"total_rms", number(attribution.total_rms)},
          {"total_max", number(attribution.total_max)},
          {"nodes", nodes}};
}

std::string AttributionToText(const Attribution& attribution) {
  std::string text = fmt::format(
      "last logits: {:.3g} from ours on average (rms), {:.3g} at most; where that comes from:\n",
      attribution.total_rms, attribution.total_max);
  std::vector<const NodeShare*> order;
  for (const NodeShare& node : attribution.nodes) order.push_back(&node);
  std::stable_sort(order.begin(), order.end(), [](const NodeShare* a, const NodeShare* b) {
    return std::fabs(a->share) > std::fabs(b->share);
  });
  constexpr size_t kShown = 10;
  double shown = 0;
  for (size_t i = 0; i < std::min(kShown, order.size()); ++i) {
    shown += order[i]->share;
    text += fmt::format("  {:6.1f} %  {} (moves them by {:.3g})\n", 100 * order[i]->share,
                        order[i]->node, order[i]->logits_rms);
  }
  if (order.size() > kShown) {
    text += fmt::format("  {:6.1f} %  the other {} operations\n", 100 * (1 - shown),
                        order.size() - kShown);
  }
  return text;
}

}  // namespace samebits
