#include "samebits/diagnose/segment_search.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "samebits/diagnose/segment_edits.h"
#include "samebits/tensor/convert.h"

namespace samebits {
namespace {

// Multiplications of all trials for one segment: minutes at most.
constexpr double kAffordable = 1.5e12;
// Without agreement up to the noise an explanation must be so much nearer than the graph.
constexpr double kLikelyFactor = 10;
// One value that flips early can move a healthy run so many times further than the few runs show
// that the noise is measured by (measured: 3.7).
constexpr double kDoubt = 8;

using Forms = std::map<std::string, Form>;

// What runs with other rounding errors are away from one another.
struct SegmentNoise {
  double rms = 0;
  int64_t differing = 0;
};

struct Toggle {
  std::string group;
  std::vector<std::string> chains;
};

// The scale stands in one place, attention is one kernel or three.
void SwitchOn(Form& form, const std::vector<std::string>& chains) {
  for (const std::string& chain : chains) {
    for (const char* family : {"scale-", "fused-"}) {
      if (!chain.starts_with(family)) continue;
      std::erase_if(form.chains, [&](const std::string& id) { return id.starts_with(family); });
    }
    if (std::count(form.chains.begin(), form.chains.end(), chain) == 0) {
      form.chains.push_back(chain);
    }
  }
}

// One segment with everything that is tried on it.
class SegmentTrials {
 public:
  SegmentTrials(const Segment& segment, const ReplaySource& source)
      : segment_(segment), source_(source), runner_(segment, source) {}

  // Of the runs with other patterns of rounding errors to the one without.
  SegmentNoise Noise(const Forms& forms) const {
    const std::vector<Replay> steps = Steps(forms);
    const SegmentValues base = runner_.Run(steps);
    if (base.empty()) return {};
    double most = 0;
    int64_t differing = 0;
    for (const uint64_t seed : {1, 2, 3, 4, 5, 6}) {
      const SegmentDistance d = runner_.Distance(runner_.Run(steps, nullptr, nullptr, seed), base);
      most = std::max(most, d.rms);
      differing = std::max(differing, d.differing);
    }
    // Two legitimate runs differ by more than one of them from the exact one. And a few runs need
    // not show the seldom values that flip: one in 400 by a step is always allowed.
    const double flips = 0.05 * std::ldexp(1.0, -SignificandBits(source_.dtype));
    return {std::max(1.5 * most, source_.dtype == DType::kF32 ? 0 : flips), differing};
  }

  SegmentDistance Distance(const Forms& forms, const std::vector<SegmentEdit>& edits = {}) const {
    std::vector<Replay> steps = Steps(forms);
    for (const SegmentEdit& edit : edits) {
      for (const auto& [step, replay] : Rebased(edit, forms)) steps[step] = replay;
    }
    return runner_.Distance(runner_.Run(steps));
  }

  // The toggles that apply here and are not on.
  std::vector<Toggle> Toggles(const Forms& forms) const {
    std::set<std::string> groups;
    std::vector<Toggle> toggles;
    for (size_t i = 0; i < segment_.steps.size(); ++i) {
      const Replay& step = segment_.steps[i];
      const std::string group = GroupName(step);
      if (!groups.insert(group).second) continue;
      std::vector<std::vector<std::string>> chains;
      for (const Form& form : FormsOf(step, source_.dtype, false, false)) {
        if (!form.truncate && form.chains.size() == 1) chains.push_back(form.chains);
      }
      if (source_.dtype != DType::kF32) chains.push_back({"kept-fp32"});
      if (source_.dtype != DType::kF32 && group == "scores") {
        chains.push_back({"scale-before-rounding", "kept-fp32"});
      }
      if (group == "context" && source_.tensor(step.node.outputs[1]) == nullptr) {
        chains.push_back({"fused-attention"});
        if (source_.dtype != DType::kF32) chains.push_back({"fused-attention-fp32"});
      }
      const auto form = forms.find(group);
      for (const auto& chain : chains) {
        const bool on =
            form != forms.end() && std::all_of(chain.begin(), chain.end(), [&](const auto& id) {
              return std::count(form->second.chains.begin(), form->second.chains.end(), id) > 0;
            });
        if (!on) toggles.push_back({group, chain});
      }
    }
    return toggles;
  }

  // Switches chains on while that brings the run nearer.
  SegmentDistance SearchChains(Forms& forms, const std::vector<SegmentEdit>& edits,
                               double noise) const {
    SegmentDistance best = Distance(forms, edits);
    while (best.rms > noise) {
      std::optional<Forms> better;
      SegmentDistance nearest = best;
      for (const Toggle& toggle : Toggles(forms)) {
        Forms trial = forms;
        SwitchOn(trial[toggle.group], toggle.chains);
        const SegmentDistance d = Distance(trial, edits);
        if (d.rms < nearest.rms) {
          nearest = d;
          better = std::move(trial);
        }
      }
      constexpr double kWorthIt = 0.95;
      if (!better || nearest.rms > kWorthIt * best.rms) break;
      forms = std::move(*better);
      best = nearest;
    }
    return best;
  }

  // Every edit alone on top of `edits`; the nearest first.
  std::vector<std::pair<double, SegmentEdit>> RankEdits(
      const Forms& forms, const std::vector<SegmentEdit>& edits) const {
    std::vector<Replay> base_steps = Steps(forms);
    for (const SegmentEdit& edit : edits) {
      for (const auto& [step, replay] : Rebased(edit, forms)) base_steps[step] = replay;
    }
    const SegmentValues base = runner_.Run(base_steps);
    std::vector<std::pair<double, SegmentEdit>> ranked;
    if (base.empty()) return ranked;
    for (SegmentEdit& edit : AllEdits(base_steps, base)) {
      std::vector<Replay> steps = base_steps;
      std::vector<bool> changed(steps.size(), false);
      for (const auto& [step, replay] : edit.steps) {
        steps[step] = replay;
        changed[step] = true;
      }
      const double rms = runner_.Distance(runner_.Run(steps, &base, &changed)).rms;
      ranked.emplace_back(rms, std::move(edit));
    }
    std::stable_sort(ranked.begin(), ranked.end(),
                     [](const auto& a, const auto& b) { return a.first < b.first; });
    return ranked;
  }

  // Every edit that may be tried here, by its key.
  std::map<std::string, SegmentEdit> EditsByKey(const Forms& forms) const {
    const std::vector<Replay> steps = Steps(forms);
    const SegmentValues base = runner_.Run(steps);
    std::map<std::string, SegmentEdit> edits;
    if (base.empty()) return edits;
    for (SegmentEdit& edit : AllEdits(steps, base)) {
      std::string key = edit.key;
      edits.try_emplace(std::move(key), std::move(edit));
    }
    return edits;
  }

 private:
  std::vector<Replay> Steps(const Forms& forms) const {
    std::vector<Replay> steps = segment_.steps;
    for (Replay& step : steps) {
      if (const auto form = forms.find(GroupName(step)); form != forms.end()) {
        form->second.Apply(step);
      }
    }
    return steps;
  }

  // An edit that was made under other forms.
  static std::vector<std::pair<size_t, Replay>> Rebased(const SegmentEdit& edit,
                                                        const Forms& forms) {
    std::vector<std::pair<size_t, Replay>> steps = edit.steps;
    for (auto& [step, replay] : steps) {
      const auto form = forms.find(GroupName(replay));
      if (form == forms.end() || replay.truncate) continue;
      form->second.Apply(replay);
    }
    return steps;
  }

  std::vector<SegmentEdit> AllEdits(const std::vector<Replay>& steps,
                                    const SegmentValues& base) const {
    ReplaySource source = source_;
    source.dots = nullptr;
    source.tensor = [&](std::string_view name) -> const TensorView* {
      for (size_t i = 0; i + 1 < steps.size(); ++i) {
        if (segment_.NameOf(i) == name) return &base[i]->view();
      }
      return source_.tensor(name);
    };
    return EditsOf(segment_, steps, source);
  }

  const Segment& segment_;
  const ReplaySource& source_;
  SegmentRunner runner_;
};

class SegmentSearch {
 public:
  SegmentSearch(const ReplaySource& source, const Forms& known,
                const std::function<void(int64_t, int64_t)>& progress)
      : source_(source), progress_(progress) {
    result_.forms = known;
  }

  SegmentSearchResult Run() {
    for (Segment& segment : FindSegments(source_)) {
      SegmentResult one;
      one.segment = std::move(segment);
      result_.segments.push_back(std::move(one));
    }
    Measure();
    SearchChains();
    int64_t done = 0;
    for (SegmentResult& one : result_.segments) {
      if (progress_) progress_(done++, static_cast<int64_t>(result_.segments.size()));
      if (!one.explained || Suspicious(one, one.graph)) Explain(one);
    }
    SpreadCauses();
    for (SegmentResult& one : result_.segments) {
      one.doubtful = !one.explained && one.edits.empty() && one.graph.rms <= kDoubt * one.noise;
    }
    return std::move(result_);
  }

 private:
  void Measure() {
    for (SegmentResult& one : result_.segments) {
      const SegmentTrials trials(one.segment, source_);
      one.graph = one.cause = trials.Distance(result_.forms);
      const SegmentNoise noise = trials.Noise(result_.forms);
      one.noise = noise.rms;
      one.noise_differing = noise.differing;
      one.explained = one.graph.rms <= one.noise;
    }
  }

  // More values differ than by any of the patterns of rounding errors, though by no more. In
  // float32 nearly all differ anyway.
  bool Suspicious(const SegmentResult& one, const SegmentDistance& d) const {
    return source_.dtype != DType::kF32 && 5 * d.differing > 6 * one.noise_differing;
  }

  // Chains hold for all segments: looked for in two that need an explanation, kept when they bring
  // all of them nearer together.
  void SearchChains() {
    std::vector<SegmentResult*> open;
    for (SegmentResult& one : result_.segments) {
      if (!one.explained) open.push_back(&one);
    }
    std::set<SegmentResult*> samples;
    if (!open.empty()) samples = {open.front(), open[open.size() / 2], open.back()};
    for (SegmentResult* sample : samples) {
      Forms forms = result_.forms;
      const SegmentTrials trials(sample->segment, source_);
      trials.SearchChains(forms, {}, sample->noise);
      Adopt(forms);
    }
  }

  // Takes other forms when they explain more segments, or bring more of them so near that what is
  // left is in doubt, or as many beside a cause.
  void Adopt(const Forms& forms, bool beside_cause = false) {
    std::vector<SegmentDistance> distances;
    std::pair<int64_t, int64_t> now, then;
    const auto count = [](const SegmentResult& one, const SegmentDistance& d, auto& to) {
      to.first += d.rms <= one.noise ? 1 : 0;
      to.second += d.rms <= kDoubt * one.noise ? 1 : 0;
    };
    for (const SegmentResult& one : result_.segments) {
      distances.push_back(SegmentTrials(one.segment, source_).Distance(forms));
      if (!one.edits.empty()) continue;
      count(one, one.graph, now);
      count(one, distances.back(), then);
    }
    if (then < now || (then == now && !beside_cause)) return;
    result_.forms = forms;
    for (size_t i = 0; i < result_.segments.size(); ++i) {
      SegmentResult& one = result_.segments[i];
      if (!one.edits.empty()) continue;
      one.graph = one.cause = distances[i];
      one.explained = one.graph.rms <= one.noise;
    }
  }

  // What was found in another segment first; then the whole list, up to three causes together.
  void Explain(SegmentResult& one) {
    const SegmentTrials trials(one.segment, source_);
    if (one.explained) {  // and suspicious: chains may be the reason
      Forms other = result_.forms;
      if (!Suspicious(one, trials.SearchChains(other, {}, 0))) return;
    }
    const auto possible = trials.EditsByKey(result_.forms);
    for (const Keys& keys : found_) {
      const auto same = Pick(possible, keys);
      if (same && Accept(one, trials, *same, result_.forms)) return;
    }
    const auto count = static_cast<double>(possible.size());
    if (2 * count * SegmentCost(one.segment, source_) > kAffordable) {
      one.searched = false;
      return;
    }
    std::vector<SegmentEdit> edits;
    Forms forms = result_.forms;
    constexpr int kCauses = 3;
    for (int i = 0; i < kCauses; ++i) {
      auto ranked = trials.RankEdits(forms, edits);
      if (ranked.empty()) return;
      const double before = trials.Distance(forms, edits).rms;
      const std::string same = SameValues(ranked);
      edits.push_back(std::move(ranked.front().second));
      if (!same.empty()) {
        edits.back().what.detail += fmt::format(" ({} gives the same values here)", same);
      }
      // With the cause in place the chains show.
      Forms more = forms;
      const double after = trials.SearchChains(more, edits, one.noise).rms;
      constexpr double kStep = 0.7;
      if (std::min(after, ranked.front().first) > kStep * before) return;
      if (after < ranked.front().first) forms = more;
      if (Accept(one, trials, edits, forms)) return;
    }
  }

  // Causes that this segment does not tell apart from the nearest one.
  static std::string SameValues(const std::vector<std::pair<double, SegmentEdit>>& ranked) {
    std::set<std::string> causes;
    for (const auto& [rms, edit] : ranked) {
      constexpr double kSame = 1 + 1e-9;
      if (rms > kSame * ranked.front().first) break;
      if (edit.what.cause != ranked.front().second.what.cause) causes.insert(edit.what.cause);
    }
    return fmt::format("{}", fmt::join(causes, " or "));
  }

  // A cause comes from the port's code: it is there in segments, too, that would pass without it,
  // when they are clearly nearer with it.
  void SpreadCauses() {
    for (SegmentResult& one : result_.segments) {
      if (!one.edits.empty() || !one.explained || one.graph.differing == 0) continue;
      if (found_.empty()) return;
      const SegmentTrials trials(one.segment, source_);
      const auto possible = trials.EditsByKey(result_.forms);
      for (const Keys& keys : found_) {
        auto same = Pick(possible, keys);
        if (!same) continue;
        const SegmentDistance d = trials.Distance(result_.forms, *same);
        if (3 * d.rms > one.graph.rms || 3 * d.differing > one.graph.differing) continue;
        one.edits = std::move(*same);
        one.cause = d;
        break;
      }
    }
  }

  using Keys = std::vector<std::string>;

  // The edits of these keys; nothing when one of them can not be tried here.
  static std::optional<std::vector<SegmentEdit>> Pick(
      const std::map<std::string, SegmentEdit>& possible, const Keys& keys) {
    std::vector<SegmentEdit> edits;
    for (const std::string& key : keys) {
      const auto edit = possible.find(key);
      if (edit == possible.end()) return std::nullopt;
      edits.push_back(edit->second);
    }
    return edits;
  }

  bool Accept(SegmentResult& one, const SegmentTrials& trials,
              const std::vector<SegmentEdit>& edits, const Forms& forms) {
    const SegmentDistance d = trials.Distance(forms, edits);
    const bool explained = d.rms <= one.noise;
    const bool much_nearer =
        d.rms * kLikelyFactor <= one.graph.rms ||
        (3 * d.rms <= one.graph.rms && kLikelyFactor * static_cast<double>(d.differing) <=
                                           static_cast<double>(one.graph.differing));
    // What may be noise needs an explanation that is both.
    const bool doubtful = one.graph.rms <= kDoubt * one.noise;
    if (doubtful ? !(explained && much_nearer) : !(explained || much_nearer)) return false;
    one.edits = edits;
    one.cause = d;
    one.explained = explained;
    Keys keys;
    for (const SegmentEdit& edit : edits) keys.push_back(edit.key);
    if (std::find(found_.begin(), found_.end(), keys) == found_.end()) found_.push_back(keys);
    if (forms != result_.forms) Adopt(forms, true);
    return true;
  }

  const ReplaySource& source_;
  const std::function<void(int64_t, int64_t)>& progress_;
  SegmentSearchResult result_;
  std::vector<Keys> found_;  // edits that explained a segment together
};

}  // namespace

SegmentSearchResult SearchSegments(const ReplaySource& source, const Forms& known,
                                   const std::function<void(int64_t, int64_t)>& progress) {
  return SegmentSearch(source, known, progress).Run();
}

}  // namespace samebits
