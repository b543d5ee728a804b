#include "samebits/diagnose/group_search.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <set>
#include <tuple>

#include "samebits/diagnose/silent.h"

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

  // `likely`: causes that were found in other nodes of the group; one of them that leaves nothing
  // outside is enough.
  Explanation Explain(const Judgement& graph, const std::set<std::string>& likely) {
    Explanation result;
    result.graph = graph;
    graph_ = whole() ? graph : Screen(base_);
    Trial best = BestSingle(base_, graph_, deep_, likely);
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
  Trial BestSingle(const Replay& base, const Judgement& judgement, bool refine,
                   const std::set<std::string>& likely = {}) const {
    Trial best{{}, judgement};
    std::optional<Hypothesis> scalar;
    Judgement best_scalar;
    std::vector<Hypothesis> hypotheses = HypothesesFor(base, source_);
    const auto others =
        std::stable_partition(hypotheses.begin(), hypotheses.end(),
                              [&](const Hypothesis& h) { return likely.contains(h.cause); });
    for (auto it = hypotheses.begin(); it != hypotheses.end(); ++it) {
      Hypothesis& hypothesis = *it;
      if (it == others && best.judgement.outside == 0 &&
          Explains(judgement, best.judgement, source_.dtype)) {
        break;
      }
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
    if (scalar->cause == "attention-scale" && !PlausibleScale(value, *scalar->expected)) {
      return best;
    }
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

Judgement JudgeItem(const Item& item, const Form& form, const ReplaySource& source) {
  Replay replay = item.replay;
  form.Apply(replay);
  return Judge(replay, source, *item.candidate);
}

bool Unexplained(const GroupResult& result) {
  return std::any_of(result.items.begin(), result.items.end(), [](const Explanation& e) {
    return (e.hypotheses.empty() ? e.graph : e.cause).outside > 0;
  });
}

int64_t ItemsOutside(const GroupResult& result) {
  return std::count_if(result.items.begin(), result.items.end(),
                       [](const Explanation& e) { return e.graph.outside > 0; });
}

// The search for one group.
class GroupSearch {
 public:
  GroupSearch(const std::vector<Item>& items, const ReplaySource& source)
      : items_(items), source_(source) {}

  GroupResult Run() {
    std::vector<GroupResult> judged = JudgeForms();
    for (GroupResult& form : judged) {
      if (ItemsOutside(form) == 0) return form;  // this form alone explains every node
    }
    std::optional<GroupResult> best;
    Explore(judged, best);
    // One harmless reason is likelier than two causes together.
    const Score score = ScoreOf(best->items, best->form);
    if (score.unexplained > 0 || score.causes > 1) TryAccumulators(judged, best);
    return *best;
  }

 private:
  // All items as the graph says. The other forms only when Hugging Face's leaves something outside.
  std::vector<GroupResult> JudgeForms() {
    const Item& first = items_.front();
    const bool wider = DTypeSize(first.candidate->dtype) > DTypeSize(source_.dtype);
    bool weights_rounded = false;
    for (const std::string& name : first.replay.node.weights) {
      weights_rounded = weights_rounded || source_.checkpoint->Get(name).dtype != source_.dtype;
    }
    const std::vector<Form> forms = FormsOf(first.replay, source_.dtype, wider, weights_rounded);
    std::vector<GroupResult> judged(forms.size());
    for (size_t f = 0; f < forms.size(); ++f) judged[f].form = forms[f];
    for (const Item& item : items_) {
      judged[0].items.push_back({JudgeItem(item, forms[0], source_), {}, {}});
    }
    if (ItemsOutside(judged[0]) == 0) return {judged[0]};
    // Item by item, so that each exact sum is computed once.
    for (const Item& item : items_) {
      for (size_t f = 1; f < forms.size(); ++f) {
        judged[f].items.push_back({JudgeItem(item, forms[f], source_), {}, {}});
      }
    }
    return judged;
  }

  // Looks for causes under the forms that leave the fewest nodes outside. Which of them is the
  // port's shows at a few nodes: under the right one the right cause leaves nothing.
  void Explore(const std::vector<GroupResult>& judged, std::optional<GroupResult>& best) {
    int64_t fewest = std::numeric_limits<int64_t>::max();
    for (const GroupResult& form : judged) fewest = std::min(fewest, ItemsOutside(form));
    std::vector<std::pair<Score, size_t>> order;
    for (size_t f = 0; f < judged.size(); ++f) {
      if (ItemsOutside(judged[f]) > fewest) continue;
      order.emplace_back(ScoreOf(ExplainSamples(judged[f]), judged[f].form), f);
    }
    std::stable_sort(order.begin(), order.end(),
                     [](const auto& a, const auto& b) { return a.first < b.first; });
    constexpr size_t kForms = 2;
    for (size_t i = 0; i < std::min(kForms, order.size()); ++i) {
      Consider(ExplainForm(judged[order[i].second], false), best);
      if (!Unexplained(*best)) return;
    }
    // Look closer, under the plain form and under the best one.
    const auto likely = std::find_if(judged.begin(), judged.end(),
                                     [&](const GroupResult& g) { return g.form == best->form; });
    Consider(ExplainForm(judged.front(), true), best);
    if (Unexplained(*best) && likely != judged.begin()) Consider(ExplainForm(*likely, true), best);
  }

  static void Consider(GroupResult trial, std::optional<GroupResult>& best) {
    if (!best || ScoreOf(trial.items, trial.form) < ScoreOf(best->items, best->form)) {
      best = std::move(trial);
    }
  }

  // Accumulators are hypotheses, too: one that leaves nothing outside explains the group.
  void TryAccumulators(const std::vector<GroupResult>& judged, std::optional<GroupResult>& best) {
    std::vector<std::vector<std::string>> chains;
    for (const GroupResult& form : judged) {
      if (!form.form.truncate) chains.push_back(form.form.chains);
    }
    for (const auto& chain : chains) {
      for (Form form : AccumulatorForms(items_.front().replay, source_.dtype, chain)) {
        GroupResult trial;
        if (form.chains.back() == "exp-approximate") {
          // The smallest error that fits, up to what an exponential in bfloat16 has.
          for (int bits = 22; bits >= 11; --bits) {
            form.exp_error = std::ldexp(1.0, -bits);
            trial = JudgeAll(form);
            if (ItemsOutside(trial) == 0) break;
          }
        } else {
          trial = JudgeAll(form);
        }
        if (ItemsOutside(trial) == 0) {
          best = std::move(trial);
          return;
        }
        // Bugs beside it, in less than half of the nodes.
        if (2 * ItemsOutside(trial) <= static_cast<int64_t>(items_.size()) &&
            form.chains.back() != "exp-approximate") {
          GroupResult explained = ExplainForm(trial, false);
          const Score now = ScoreOf(best->items, best->form);
          const Score then = ScoreOf(explained.items, explained.form);
          if (then < now && then.unexplained * kLikelyFactor <= now.unexplained) {
            best = std::move(explained);
          }
        }
      }
    }
  }

  GroupResult JudgeAll(const Form& form) {
    GroupResult result;
    result.form = form;
    for (const Item& item : items_) {
      result.items.push_back({JudgeItem(item, form, source_), {}, {}});
    }
    return result;
  }

  // Of the first node of each module that has something outside.
  std::vector<Explanation> ExplainSamples(const GroupResult& judged) {
    std::vector<Explanation> samples;
    std::set<std::string> modules;
    for (size_t i = 0; i < items_.size(); ++i) {
      const Explanation& e = judged.items[i];
      const std::string& name = items_[i].replay.node.name;
      if (e.graph.outside == 0 || !modules.insert(name.substr(name.rfind('.') + 1)).second) {
        continue;
      }
      samples.push_back(ItemSearch(items_[i], judged.form, source_, false).Explain(e.graph, {}));
    }
    return samples;
  }

  // Looks for the causes of what `judged` leaves outside.
  GroupResult ExplainForm(GroupResult judged, bool deep) {
    constexpr int kTries = 2;  // where a closer look found nothing on so many, it won't on others
    int misses = 0;
    std::set<std::string> causes;
    for (size_t i = 0; i < items_.size(); ++i) {
      Explanation& e = judged.items[i];
      if (e.graph.outside == 0) continue;
      e = ItemSearch(items_[i], judged.form, source_, deep && misses < kTries)
              .Explain(e.graph, causes);
      misses += e.hypotheses.empty() ? 1 : 0;
      for (const Hypothesis& h : e.hypotheses) causes.insert(h.cause);
    }
    AgreeOnValue(items_, source_, judged.items);
    return judged;
  }

  const std::vector<Item>& items_;
  const ReplaySource& source_;
};

}  // namespace

GroupResult SearchGroup(const std::vector<Item>& items, const ReplaySource& source) {
  GroupResult result = GroupSearch(items, source).Run();
  if (ItemsOutside(result) > 0 || result.form.truncate) return result;
  FindSilent(items, source, result);
  const bool named = std::any_of(
      result.form.chains.begin(), result.form.chains.end(), [](const std::string& chain) {
        return chain.starts_with("products-") || chain.starts_with("sums-");
      });
  const bool silent = std::any_of(result.items.begin(), result.items.end(),
                                  [](const Explanation& e) { return !e.hypotheses.empty(); });
  if (!named && !silent) NameAccumulator(items, source, result);
  return result;
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
