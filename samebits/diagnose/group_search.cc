#include "samebits/diagnose/group_search.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <tuple>

namespace samebits {
namespace {

// Without a proof an edit must explain a hundred times as many values as the graph (measured: the
// right hypothesis leaves 0 to 1e-3 of what the graph leaves outside).
constexpr int64_t kLikelyFactor = 100;

bool Explains(const Judgement& graph, const Judgement& edited, DType dtype) {
  if (edited.outside * kLikelyFactor > graph.outside) return false;
  // In 8 or 11 bits the right replay also gives the very values; in fp32 that says nothing.
  return dtype == DType::kF32 || edited.not_equal * 2 <= graph.not_equal;
}

// Hypotheses are tried on few rows first where a node is expensive.
RowRange ScreeningRows(const Replay& replay, int64_t tokens) {
  const Attributes& a = replay.node.attributes;
  const bool expensive = replay.node.kind == OpKind::kLinear &&
                         static_cast<double>(tokens) * static_cast<double>(a.in_features) *
                                 static_cast<double>(a.out_features) >
                             5e7;
  return expensive && tokens > 8 ? RowRange{tokens - 8, tokens} : RowRange{0, tokens};
}

Explanation ExplainItem(const Item& item, const Form& form, const Judgement& graph,
                        const ReplaySource& source) {
  Explanation result;
  result.graph = graph;
  Replay base = item.replay;
  form.Apply(base);
  const RowRange rows = ScreeningRows(base, source.tokens());
  const bool whole = rows.size() == source.tokens();
  const Judgement screened = whole ? graph : Judge(base, source, *item.candidate, rows);
  std::optional<Hypothesis> best;
  Judgement best_judgement = screened;
  for (Hypothesis& hypothesis : HypothesesFor(base, source)) {
    const Judgement judgement = Judge(hypothesis.replay, source, *item.candidate, rows);
    // `elements`: rows that a mask leaves without any key can not be judged, and must not win by
    // that.
    if (!judgement.BetterThan(best_judgement) || judgement.elements * 2 < screened.elements) {
      continue;
    }
    best = std::move(hypothesis);
    best_judgement = judgement;
  }
  if (!best) return result;
  if (!whole) best_judgement = Judge(best->replay, source, *item.candidate);
  if (!Explains(graph, best_judgement, source.dtype)) return result;
  result.hypothesis = std::move(best);
  result.cause = best_judgement;
  return result;
}

// One value of a scalar for all nodes of the group that have this cause: the one that fits best.
void AgreeOnValue(const std::vector<Item>& items, const Form& form, const ReplaySource& source,
                  std::vector<Explanation>& explanations) {
  std::map<std::string, std::set<double>> values;
  for (const Explanation& e : explanations) {
    if (e.hypothesis && e.hypothesis->value) {
      values[e.hypothesis->cause].insert(*e.hypothesis->value);
    }
  }
  for (const auto& [cause, candidates] : values) {
    if (candidates.size() < 2) continue;
    std::map<double, std::map<size_t, std::pair<Hypothesis, Judgement>>> by_value;
    std::map<double, Judgement> totals;
    for (size_t i = 0; i < items.size(); ++i) {
      const Explanation& e = explanations[i];
      if (!e.hypothesis || e.hypothesis->cause != cause) continue;
      Replay base = items[i].replay;
      form.Apply(base);
      for (Hypothesis& h : HypothesesFor(base, source)) {
        if (h.cause != cause || !h.value || !candidates.contains(*h.value)) continue;
        const Judgement j = Judge(h.replay, source, *items[i].candidate);
        totals[*h.value].Merge(j);
        by_value[*h.value].insert_or_assign(i, std::pair(h, j));
      }
    }
    const auto best = std::min_element(
        totals.begin(), totals.end(),
        [](const auto& a, const auto& b) { return a.second.BetterThan(b.second); });
    for (auto& [i, pair] : by_value[best->first]) {
      explanations[i].hypothesis = pair.first;
      explanations[i].cause = pair.second;
    }
  }
}

struct Score {
  int64_t unexplained = 0, causes = 0, not_equal = 0;
  bool operator<(const Score& o) const {
    return std::tie(unexplained, causes, not_equal) <
           std::tie(o.unexplained, o.causes, o.not_equal);
  }
};

Score ScoreOf(const std::vector<Explanation>& explanations, const Form& form) {
  Score score;
  std::set<std::string> causes;
  if (form.truncate) causes.insert("cast-truncation");
  for (const Explanation& e : explanations) {
    const Judgement& last = e.hypothesis ? e.cause : e.graph;
    score.unexplained += last.outside;
    score.not_equal += last.not_equal;
    if (e.hypothesis) causes.insert(e.hypothesis->cause);
  }
  score.causes = static_cast<int64_t>(causes.size());
  return score;
}

// An edit of eps that moves so few values that none is outside: decided on all norms together by
// how many values are equal under the edit only, and by the strength of its effect.
void FindSilentEps(const std::vector<Item>& items, const ReplaySource& source,
                   GroupResult& result) {
  const Form& form = result.form;
  double best_gain = 0, best_eps = 0;
  for (double eps : {0.0, 1e-12, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3}) {
    Flips sum;
    for (const Item& item : items) {
      if (std::fabs(eps - item.replay.node.attributes.eps) < 1e-9 * eps) return;
    }
    for (const Item& item : items) {
      Replay base = item.replay;
      form.Apply(base);
      Replay edited = base;
      edited.node.attributes.eps = eps;
      const Flips f = CompareReplays(base, edited, source, *item.candidate);
      sum.plus += f.plus;
      sum.minus += f.minus;
      sum.qe += f.qe;
      sum.ee += f.ee;
      sum.qq += f.qq;
      sum.elements += f.elements;
    }
    if (sum.ee == 0) continue;
    const double alpha = sum.qe / sum.ee;
    const auto plus = static_cast<double>(sum.plus), minus = static_cast<double>(sum.minus);
    const double z = plus + minus > 0 ? (plus - minus) / std::sqrt(plus + minus) : 0;
    // Errors of a row are correlated: ten times the standard error of independent ones.
    const double error = 10 * std::sqrt(sum.qq / static_cast<double>(sum.elements) / sum.ee);
    const bool shown =
        source.dtype == DType::kF32 ? error < 0.2 : z >= 4 && sum.minus * 4 <= sum.plus;
    if (!shown || alpha < 0.5 || alpha > 2) continue;
    const double gain = source.dtype == DType::kF32 ? 1 / std::fabs(1 - alpha + 1e-9) : z;
    if (gain > best_gain) {
      best_gain = gain;
      best_eps = eps;
    }
  }
  if (best_gain == 0) return;
  for (size_t i = 0; i < items.size(); ++i) {
    Replay base = items[i].replay;
    form.Apply(base);
    for (Hypothesis& h : HypothesesFor(base, source)) {
      if (h.cause != "norm-eps" || *h.value != best_eps) continue;
      const Judgement j = Judge(h.replay, source, *items[i].candidate);
      if (j.not_equal >= result.items[i].graph.not_equal) continue;
      result.items[i].hypothesis = h;
      result.items[i].cause = j;
    }
  }
}

}  // namespace

GroupResult SearchGroup(const std::vector<Item>& items, const ReplaySource& source) {
  const Item& first = items.front();
  const bool wider = DTypeSize(first.candidate->dtype) > DTypeSize(source.dtype);
  bool weights_rounded = false;
  for (const std::string& name : first.replay.node.weights) {
    weights_rounded = weights_rounded || source.checkpoint->Get(name).dtype != source.dtype;
  }
  GroupResult best;
  std::optional<Score> best_score;
  for (const Form& form : FormsOf(first.replay, source.dtype, wider, weights_rounded)) {
    GroupResult trial;
    trial.form = form;
    int64_t outside = 0;
    for (const Item& item : items) {
      Replay replay = item.replay;
      form.Apply(replay);
      Explanation e;
      e.graph = Judge(replay, source, *item.candidate);
      outside += e.graph.outside;
      trial.items.push_back(std::move(e));
    }
    for (size_t i = 0; i < items.size() && outside > 0; ++i) {
      if (trial.items[i].graph.outside == 0) continue;
      trial.items[i] = ExplainItem(items[i], form, trial.items[i].graph, source);
    }
    AgreeOnValue(items, form, source, trial.items);
    const Score score = ScoreOf(trial.items, form);
    if (!best_score || score < *best_score) {
      best = std::move(trial);
      best_score = score;
    }
    if (outside == 0 && !form.truncate) break;  // nothing to explain: no other form is needed
  }
  const bool silent = std::all_of(best.items.begin(), best.items.end(),
                                  [](const Explanation& e) { return e.graph.outside == 0; });
  if (first.replay.node.kind == OpKind::kRmsNorm && silent && !best.form.truncate) {
    FindSilentEps(items, source, best);
  }
  return best;
}

ValueRange ScanEps(const std::vector<const Item*>& items, const Form& form,
                   const ReplaySource& source, double value) {
  const auto fits = [&](double eps) {
    for (const Item* item : items) {
      Replay replay = item->replay;
      form.Apply(replay);
      replay.node.attributes.eps = eps;
      if (Judge(replay, source, *item->candidate).outside > 0) return false;
    }
    return true;
  };
  ValueRange range{value, value};
  if (!fits(value) || value <= 0) return range;
  for (double factor : {0.5, 2.0}) {  // bisect the end on a logarithmic scale
    double good = value, bad = value * std::pow(factor, 10);
    for (int i = 0; i < 12; ++i) {
      const double middle = std::sqrt(good * bad);
      (fits(middle) ? good : bad) = middle;
    }
    (factor < 1 ? range.low : range.high) = good;
  }
  return range;
}

}  // namespace samebits
