#include "samebits/diagnose/silent.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "samebits/numerics/bounds.h"
#include "samebits/tensor/convert.h"

namespace samebits {
namespace {

// One edit that all nodes of a group may have in common. The errors of a row are correlated where
// they share a normaliser, so the standard error of the strength is larger than that of independent
// ones: by this factor.
struct SilentEdit {
  double inflation;
  std::function<Hypothesis(const Replay&)> edit;
};

// A strength that could be 0.
constexpr double kWeakest = 0.3;

// Enough of a group for statistics of what all of it has in common: of linears, up to a dozen that
// are not the largest, spread over the model.
std::vector<Item> SampleOf(const std::vector<Item>& items) {
  constexpr size_t kMost = 12;
  if (items.size() <= kMost || items.front().replay.node.kind != OpKind::kLinear) return items;
  const auto size = [](const Item& item) {
    const Attributes& a = item.replay.node.attributes;
    return a.in_features * a.out_features;
  };
  std::vector<int64_t> sizes;
  sizes.reserve(items.size());
  for (const Item& item : items) sizes.push_back(size(item));
  std::sort(sizes.begin(), sizes.end());
  std::vector<Item> small;
  for (const Item& item : items) {
    if (size(item) <= sizes[sizes.size() / 2]) small.push_back(item);
  }
  std::vector<Item> sample;
  for (size_t i = 0; i < kMost; ++i) sample.push_back(small[i * small.size() / kMost]);
  return sample;
}

Flips PoolFlips(const std::vector<Item>& items, const Form& form, const ReplaySource& source,
                const SilentEdit& edit) {
  Flips sum;
  for (const Item& item : items) {
    Replay base = item.replay;
    form.Apply(base);
    const Flips f = CompareReplays(base, edit.edit(base).replay, source, *item.candidate);
    sum.plus += f.plus;
    sum.minus += f.minus;
    sum.qe += f.qe;
    sum.ee += f.ee;
    sum.qq += f.qq;
    sum.elements += f.elements;
  }
  return sum;
}

// Of the strength of an effect in fp32.
double StrengthError(const Flips& f, double inflation) {
  return inflation * std::sqrt(f.qq / static_cast<double>(f.elements) / f.ee);
}

// How clearly the trace shows an effect; 0: not. In 8 or 11 bits by the values that are equal under
// one of the two only, in fp32 (where most values differ under both) by the strength of the effect:
// 0 in a healthy trace, 1 under the edit.
double Evidence(const Flips& f, double inflation, DType dtype) {
  if (f.ee == 0) return 0;
  const double alpha = f.qe / f.ee;
  if (!(alpha > 0.5 && alpha < 2)) return 0;
  if (dtype == DType::kF32) {
    return alpha - StrengthError(f, inflation) > kWeakest ? 1 / (std::fabs(1 - alpha) + 1e-9) : 0;
  }
  const auto plus = static_cast<double>(f.plus), minus = static_cast<double>(f.minus);
  const double z = plus + minus > 0 ? (plus - minus) / std::sqrt(plus + minus) : 0;
  return z >= 4 && f.minus * 4 <= f.plus ? z : 0;
}

bool RoundingChanges(const TensorView& weight, DType through) {
  for (const double v : ToDoubles(weight)) {
    if (RoundToDType(v, through) != v) return true;
  }
  return false;
}

std::vector<SilentEdit> EditsOf(const std::vector<Item>& items, const ReplaySource& source) {
  const Replay& first = items.front().replay;
  std::vector<SilentEdit> edits;
  if (first.node.kind == OpKind::kRmsNorm) {
    const double configured = first.node.attributes.eps;
    for (const double eps : {0.0, 1e-12, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3}) {
      if (std::fabs(eps - configured) <= 1e-9 * eps) continue;
      edits.push_back(
          {10, [eps](const Replay& base) {
             return WithValue({"norm-eps", "", base, {}, base.node.attributes.eps}, eps);
           }});
    }
  }
  // In fewer bits than fp32 the few weights that change do not show.
  if (first.node.kind != OpKind::kLinear || source.dtype != DType::kF32) return edits;
  for (const DType through : {DType::kF16, DType::kBF16}) {
    bool changes = false;
    for (const Item& item : items) {
      const TensorView& weight = source.checkpoint->Get(item.replay.node.weights[0]);
      changes = changes || (weight.dtype != through && RoundingChanges(weight, through));
    }
    if (!changes) continue;
    edits.push_back({4, [through](const Replay& base) {
                       Replay r = base;
                       r.weight_through = through;
                       return Hypothesis{
                           "weight-dtype-chain",
                           fmt::format("has weights that went through {}", ModelDTypeName(through)),
                           r,
                           {},
                           {}};
                     }});
  }
  return edits;
}

}  // namespace

void FindSilent(const std::vector<Item>& items, const ReplaySource& source, GroupResult& result) {
  const SilentEdit* best = nullptr;
  double most = 0;
  const std::vector<SilentEdit> edits = EditsOf(items, source);
  const std::vector<Item> sample = SampleOf(items);
  for (const SilentEdit& edit : edits) {
    const Flips flips = PoolFlips(sample, result.form, source, edit);
    // An effect of strength 1 would be seen if its error were smaller by itself. (It is infinite
    // where no value of the sample changes.)
    if (source.dtype == DType::kF32 &&
        !(1 - 2 * StrengthError(flips, edit.inflation) >= kWeakest)) {
      result.drowned.insert(edit.edit(sample.front().replay).cause);
    }
    const double evidence = Evidence(flips, edit.inflation, source.dtype);
    if (evidence <= most) continue;
    most = evidence;
    best = &edit;
  }
  if (best == nullptr) return;
  for (size_t i = 0; i < items.size(); ++i) {
    Replay base = items[i].replay;
    result.form.Apply(base);
    const Hypothesis hypothesis = best->edit(base);
    const Judgement judgement = Judge(hypothesis.replay, source, *items[i].candidate);
    // A chain of casts acts wherever it changes a weight; other effects where they show.
    const bool acts = hypothesis.cause == "weight-dtype-chain" &&
                      PoolFlips({items[i]}, result.form, source, *best).ee > 0;
    if (!acts && judgement.not_equal >= result.items[i].graph.not_equal) continue;
    result.items[i].hypotheses = {hypothesis};
    result.items[i].cause = judgement;
  }
}

namespace {

// Errors towards zero and away from it, of the elements whose sum does not cancel.
struct Directions {
  int64_t towards = 0, away = 0;
};

Directions CountDirections(const Item& item, const Form& form, const ReplaySource& source) {
  Replay replay = item.replay;
  form.Apply(replay);
  constexpr int64_t kRows = 64;
  const RowRange rows{0, std::min<int64_t>(source.tokens(), kRows)};
  const Expectation e = Evaluate(replay, source, item.candidate->dtype, rows);
  const std::vector<double> values = GatherRows(*item.candidate, rows, IsPerHead(replay));
  const double terms = Gamma(static_cast<double>(replay.node.kind == OpKind::kLinear
                                                     ? replay.node.attributes.in_features
                                                     : replay.node.attributes.head_dim));
  Directions d;
  for (size_t i = 0; i < values.size(); ++i) {
    if (!e.ignore.empty() && e.ignore[i] != 0) continue;
    const double magnitude = e.bound[i] / terms;
    if (std::fabs(e.y[i]) * 8 < magnitude || values[i] == e.y[i]) continue;
    const double error = (values[i] - e.y[i]) * (e.y[i] > 0 ? 1 : -1);
    d.towards += error < 0 ? 1 : 0;
    d.away += error > 0 ? 1 : 0;
  }
  return d;
}

}  // namespace

void NameAccumulator(const std::vector<Item>& items, const ReplaySource& source,
                     GroupResult& result) {
  const Replay& first = items.front().replay;
  const bool sums = first.node.kind == OpKind::kLinear ||
                    (first.node.kind == OpKind::kAttention && first.output != 1);
  if (!sums || source.dtype != DType::kF32) return;  // fewer bits hide it
  const Form plain = result.form;
  const std::vector<Item> sample = SampleOf(items);
  double most = 0;
  std::optional<Form> best;
  for (const Form& form : AccumulatorForms(first, source.dtype, plain.chains)) {
    if (form.chains.back() == "sums-truncated") continue;
    const SilentEdit edit{4, [&](const Replay& base) {
                            Replay r = base;
                            form.Apply(r);
                            return Hypothesis{"", "", r, {}, {}};
                          }};
    const double evidence =
        Evidence(PoolFlips(sample, plain, source, edit), edit.inflation, source.dtype);
    if (evidence <= most) continue;
    most = evidence;
    best = form;
  }
  if (best) {
    result.form = *best;
    return;
  }
  Directions all;
  for (const Item& item : sample) {
    const Directions d = CountDirections(item, plain, source);
    all.towards += d.towards;
    all.away += d.away;
  }
  constexpr int64_t kEnough = 1000;
  // Half of them in IEEE sums (measured: 0.49 to 0.51), 0.64 to 0.83 in sums that cut.
  if (all.towards + all.away < kEnough || all.towards * 5 < (all.towards + all.away) * 3) return;
  result.form.chains.emplace_back("sums-truncated");
}

}  // namespace samebits
