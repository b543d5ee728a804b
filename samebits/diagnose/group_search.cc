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

// The search for one tensor, on all rows or on those that are enough for screening.
class ItemSearch {
 public:
  // `deep`: scalars are searched for between the usual values, and edits are paired.
  ItemSearch(const Item& item, const Form& form, const ReplaySource& source, bool deep)
      : item_(item), source_(source), base_(item.replay), deep_(deep) {
    form.Apply(base_);
    rows_ = ScreeningRows(base_, source.tokens());
  }

  Explanation Explain(const Judgement& graph) {
    Explanation result;
    result.graph = graph;
    graph_ = whole() ? graph : Screen(base_);
    Trial best = BestSingle(base_, graph_, deep_);
    if (deep_ && best.judgement.outside > 0) {
      const Trial pair = BestPair();
      const bool much_better = pair.judgement.outside * kLikelyFactor <= best.judgement.outside;
      if (pair.judgement.BetterThan(best.judgement) && much_better) best = pair;
    }
    if (best.hypotheses.empty()) return result;
    const Judgement judgement =
        whole() ? best.judgement : Judge(best.hypotheses.back().replay, source_, *item_.candidate);
    if (!Explains(graph, judgement, source_.dtype)) return result;
    result.hypotheses = std::move(best.hypotheses);
    result.cause = judgement;
    return result;
  }

 private:
  struct Trial {
    std::vector<Hypothesis> hypotheses;
    Judgement judgement;
  };

  bool whole() const { return rows_.size() == source_.tokens(); }
  Judgement Screen(const Replay& replay) const {
    return Judge(replay, source_, *item_.candidate, rows_);
  }

  // The best single edit of `base`, which leaves `judgement`; nothing when none is better.
  Trial BestSingle(const Replay& base, const Judgement& judgement, bool refine) const {
    Trial best{{}, judgement};
    std::optional<Hypothesis> scalar;
    Judgement best_scalar;
    for (Hypothesis& hypothesis : HypothesesFor(base, source_)) {
      const Judgement trial = Screen(hypothesis.replay);
      // Rows that a mask leaves without any key can not be judged, and must not win by that.
      if (trial.elements * 2 < judgement.elements) continue;
      if (HasContinuousValue(hypothesis.cause) && (!scalar || trial.BetterThan(best_scalar))) {
        scalar = hypothesis;
        best_scalar = trial;
      }
      if (trial.BetterThan(best.judgement)) best = {{std::move(hypothesis)}, trial};
    }
    const bool settled = best.judgement.outside == 0;
    if (!refine || !scalar || settled || *scalar->value <= 0) return best;
    // None of the usual values does it: search around the best of them.
    const double value = RefineScalar(
        *scalar->value, 4, [&](double v) { return Screen(WithValue(*scalar, v).replay); });
    const Hypothesis refined = WithValue(*scalar, value);
    const Judgement trial = Screen(refined.replay);
    if (trial.BetterThan(best.judgement)) best = {{refined}, trial};
    return best;
  }

  // Two edits together, where none alone is enough.
  Trial BestPair() const {
    Trial best{{}, graph_};
    if (!whole()) return best;  // too expensive
    for (const Hypothesis& first : HypothesesFor(base_, source_)) {
      if (HasContinuousValue(first.cause)) continue;  // comes second, where it is searched for
      Trial second = BestSingle(first.replay, Screen(first.replay), false);
      if (second.hypotheses.empty() || second.hypotheses[0].cause == first.cause) continue;
      if (!second.judgement.BetterThan(best.judgement)) continue;
      best = {{first, second.hypotheses[0]}, second.judgement};
    }
    return best;
  }

  const Item& item_;
  const ReplaySource& source_;
  Replay base_;
  bool deep_;
  RowRange rows_;
  Judgement graph_;
};

// One value of a scalar for all nodes of the group that have this cause alone: the one that fits
// best over all of them.
void AgreeOnValue(const std::vector<Item>& items, const ReplaySource& source,
                  std::vector<Explanation>& explanations) {
  std::map<std::string, std::set<double>> values;
  for (const Explanation& e : explanations) {
    if (e.hypotheses.size() == 1 && HasContinuousValue(e.hypotheses[0].cause)) {
      values[e.hypotheses[0].cause].insert(*e.hypotheses[0].value);
    }
  }
  for (const auto& [cause, candidates] : values) {
    if (candidates.size() < 2) continue;
    std::optional<double> best;
    Judgement best_total;
    for (double value : candidates) {
      Judgement total;
      for (size_t i = 0; i < items.size(); ++i) {
        const Explanation& e = explanations[i];
        if (e.hypotheses.size() != 1 || e.hypotheses[0].cause != cause) continue;
        total.Merge(Judge(WithValue(e.hypotheses[0], value).replay, source, *items[i].candidate));
      }
      if (!best || total.BetterThan(best_total)) {
        best = value;
        best_total = total;
      }
    }
    for (size_t i = 0; i < items.size(); ++i) {
      Explanation& e = explanations[i];
      if (e.hypotheses.size() != 1 || e.hypotheses[0].cause != cause) continue;
      e.hypotheses[0] = WithValue(e.hypotheses[0], *best);
      e.cause = Judge(e.hypotheses[0].replay, source, *items[i].candidate);
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
    const Judgement& last = e.hypotheses.empty() ? e.graph : e.cause;
    score.unexplained += last.outside;
    score.not_equal += last.not_equal;
    for (const Hypothesis& hypothesis : e.hypotheses) causes.insert(hypothesis.cause);
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
    if (std::fabs(eps - items.front().replay.node.attributes.eps) <= 1e-9 * eps) continue;
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
    const Hypothesis h = WithValue({"norm-eps", "", base, {}, base.node.attributes.eps}, best_eps);
    const Judgement j = Judge(h.replay, source, *items[i].candidate);
    if (j.not_equal >= result.items[i].graph.not_equal) continue;
    result.items[i].hypotheses = {h};
    result.items[i].cause = j;
  }
}

// All items as the graph says, under one form.
GroupResult JudgeForm(const std::vector<Item>& items, const Form& form,
                      const ReplaySource& source) {
  GroupResult result;
  result.form = form;
  for (const Item& item : items) {
    Replay replay = item.replay;
    form.Apply(replay);
    Explanation e;
    e.graph = Judge(replay, source, *item.candidate);
    result.items.push_back(std::move(e));
  }
  return result;
}

// Looks for the causes of what `judged` leaves outside.
GroupResult ExplainForm(const std::vector<Item>& items, GroupResult judged,
                        const ReplaySource& source, bool deep) {
  constexpr int kTries = 2;  // where the closer look found nothing on so many, it won't on others
  int misses = 0;
  for (size_t i = 0; i < items.size(); ++i) {
    Explanation& e = judged.items[i];
    if (e.graph.outside == 0) continue;
    e = ItemSearch(items[i], judged.form, source, deep && misses < kTries).Explain(e.graph);
    misses += e.hypotheses.empty() ? 1 : 0;
  }
  AgreeOnValue(items, source, judged.items);
  return judged;
}

bool Unexplained(const GroupResult& result) {
  return std::any_of(result.items.begin(), result.items.end(), [](const Explanation& e) {
    return (e.hypotheses.empty() ? e.graph : e.cause).outside > 0;
  });
}

bool NothingOutside(const GroupResult& result) {
  return std::all_of(result.items.begin(), result.items.end(),
                     [](const Explanation& e) { return e.graph.outside == 0; });
}

}  // namespace

GroupResult SearchGroup(const std::vector<Item>& items, const ReplaySource& source) {
  const Item& first = items.front();
  const bool wider = DTypeSize(first.candidate->dtype) > DTypeSize(source.dtype);
  bool weights_rounded = false;
  for (const std::string& name : first.replay.node.weights) {
    weights_rounded = weights_rounded || source.checkpoint->Get(name).dtype != source.dtype;
  }
  const std::vector<Form> forms = FormsOf(first.replay, source.dtype, wider, weights_rounded);
  std::vector<GroupResult> judged;
  std::optional<GroupResult> best;
  for (const Form& form : forms) {
    judged.push_back(JudgeForm(items, form, source));
    if (!NothingOutside(judged.back())) continue;
    best = judged.back();  // this form alone explains every node
    break;
  }
  const auto consider = [&](GroupResult trial) {
    if (!best || ScoreOf(trial.items, trial.form) < ScoreOf(best->items, best->form)) {
      best = std::move(trial);
    }
  };
  if (!best) {
    for (const GroupResult& form : judged) consider(ExplainForm(items, form, source, false));
  }
  if (Unexplained(*best)) {  // look closer, under the plain form and under the best one
    const auto same_form = [&](const GroupResult& g) {
      return g.form.chains == best->form.chains && g.form.truncate == best->form.truncate &&
             g.form.truncate_weights == best->form.truncate_weights;
    };
    const GroupResult likely = *std::find_if(judged.begin(), judged.end(), same_form);
    consider(ExplainForm(items, judged.front(), source, true));
    if (Unexplained(*best)) consider(ExplainForm(items, likely, source, true));
  }
  if (first.replay.node.kind == OpKind::kRmsNorm && NothingOutside(*best) && !best->form.truncate) {
    FindSilentEps(items, source, *best);
  }
  return *best;
}

ValueRange RangeOf(const std::vector<std::pair<const Item*, const Hypothesis*>>& items,
                   const ReplaySource& source) {
  return FittingRange(*items.front().second->value, [&](double value) {
    Judgement total;
    for (const auto& [item, hypothesis] : items) {
      total.Merge(Judge(WithValue(*hypothesis, value).replay, source, *item->candidate));
    }
    return total;
  });
}

}  // namespace samebits
