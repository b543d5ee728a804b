#include "samebits/diagnose/segment_edits.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <set>

namespace samebits {
namespace {

using Variants = std::map<std::string, std::vector<std::pair<size_t, Hypothesis>>>;

std::string ModuleOf(const std::string& name) { return name.substr(name.rfind('.') + 1); }

SegmentEdit MakeEdit(const std::string& key,
                     const std::vector<std::pair<size_t, Hypothesis>>& steps) {
  SegmentEdit edit{key, steps.front().second, {}};
  for (const auto& [step, hypothesis] : steps) edit.steps.emplace_back(step, hypothesis.replay);
  return edit;
}

// Mistakes that show in more than one operation.
bool SpansOperations(const std::string& cause) {
  return cause == "gqa-head-order" || cause == "head-layout" || cause == "rope-interleaved" ||
         cause == "qk-norm" || cause == "layer-order" || cause == "weight-dtype-chain" ||
         cause == "rope-partial" || cause == "cache-low-precision";
}

void AddSpanning(const std::map<std::string, Variants>& by_group, std::vector<SegmentEdit>& edits) {
  std::set<std::string> causes;
  for (const auto& [group, variants] : by_group) {
    for (const auto& [key, steps] : variants) {
      if (SpansOperations(steps[0].second.cause)) causes.insert(steps[0].second.cause);
    }
  }
  for (const std::string& cause : causes) {
    // One variant of each group, in every combination.
    std::vector<std::vector<std::pair<size_t, Hypothesis>>> combinations = {{}};
    std::vector<std::string> names = {cause};
    for (const auto& [group, variants] : by_group) {
      std::vector<std::vector<std::pair<size_t, Hypothesis>>> longer;
      std::vector<std::string> longer_names;
      for (const auto& [key, steps] : variants) {
        if (steps[0].second.cause != cause) continue;
        for (size_t i = 0; i < combinations.size(); ++i) {
          longer.push_back(combinations[i]);
          longer.back().insert(longer.back().end(), steps.begin(), steps.end());
          longer_names.push_back(fmt::format("{}+{}:{}", names[i], group, key));
        }
      }
      constexpr size_t kMost = 32;
      if (longer.empty() || longer.size() > kMost) continue;
      combinations = std::move(longer);
      names = std::move(longer_names);
    }
    for (size_t i = 0; i < combinations.size(); ++i) {
      if (!combinations[i].empty()) edits.push_back(MakeEdit(names[i], combinations[i]));
    }
  }
}

}  // namespace

std::vector<SegmentEdit> EditsOf(const Segment& segment, const std::vector<Replay>& base,
                                 const ReplaySource& source) {
  std::map<std::string, Variants> by_group;
  std::vector<std::string> groups;  // in the order of execution
  for (size_t i = 0; i < base.size(); ++i) {
    std::map<std::string, int> ordinals;
    std::string group = GroupName(base[i]);
    if (base[i].node.kind == OpKind::kRotary) group = "rotary";  // cos and sin share their angles
    if (base[i].node.kind == OpKind::kLinear) group = "linear";  // one way of loading
    if (!by_group.contains(group)) groups.push_back(group);
    for (Hypothesis& h : HypothesesFor(base[i], source)) {
      // Names of layers and of weights differ from step to step: count instead.
      const std::string key = fmt::format("{}/{}", h.cause, ordinals[h.cause]++);
      by_group[group][key].emplace_back(i, std::move(h));
    }
  }
  // The width of tables that are not recorded does not show.
  for (size_t i = 0; i + 1 < base.size(); ++i) {
    if (base[i].node.kind != OpKind::kRotary) continue;
    const int64_t d = base[i].node.attributes.head_dim;
    for (const int64_t part : {d / 2, d / 4}) {
      for (const double denominator : {0.0, static_cast<double>(d)}) {
        if (part < 2 || part % 2 != 0) continue;
        Hypothesis h{"rope-partial",
                     fmt::format("rotates {} of {} dimensions of a head", part, d),
                     base[i],
                     {},
                     {}};
        h.replay.rotary_dim = part;
        h.replay.frequency_dim = denominator;
        by_group["rotary"][fmt::format("partial {} {}", part, denominator)].emplace_back(
            i, std::move(h));
      }
    }
  }
  // Nor do windows in probs that are not recorded: all sizes, then.
  for (size_t i = 0; i + 1 < base.size(); ++i) {
    if (base[i].node.kind != OpKind::kAttention || base[i].output != 1) continue;
    const int64_t own = base[i].node.attributes.window;
    for (int64_t window = 2; window < std::min<int64_t>(source.tokens(), 64); ++window) {
      if (std::abs(window - own) <= 1) continue;
      Hypothesis h{
          "sliding-window", fmt::format("has a sliding window of {}", window), base[i], {}, {}};
      h.replay.node.attributes.window = window;
      by_group[GroupName(base[i])][fmt::format("window {}", window)].emplace_back(i, std::move(h));
    }
  }
  std::vector<SegmentEdit> edits;
  for (const std::string& group : groups) {
    for (const auto& [key, steps] : by_group[group]) {
      edits.push_back(MakeEdit(fmt::format("{}:{}", group, key), steps));
      std::map<std::string, std::vector<std::pair<size_t, Hypothesis>>> modules;
      for (const auto& step : steps) modules[ModuleOf(segment.NameOf(step.first))].push_back(step);
      if (modules.size() < 2) continue;
      for (const auto& [module, some] : modules) {
        edits.push_back(MakeEdit(fmt::format("{}:{}@{}", group, key, module), some));
      }
    }
  }
  AddSpanning(by_group, edits);
  if (source.dtype != DType::kF32) {
    SegmentEdit cut{"truncate", {"cast-truncation", "", base[0], {}, {}}, {}};
    cut.what.detail = "cuts the low bits off instead of rounding to nearest";
    for (size_t i = 0; i < base.size(); ++i) {
      Replay r = base[i];
      r.truncate = r.truncate_weights = true;
      cut.steps.emplace_back(i, std::move(r));
    }
    edits.push_back(std::move(cut));
  }
  return edits;
}

}  // namespace samebits
