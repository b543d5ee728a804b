#include <algorithm>
#include <cmath>
#include <cstring>

#include "samebits/compare/metrics.h"
#include "samebits/diagnose/checker.h"
#include "samebits/diagnose/whole_run.h"
#include "samebits/tensor/convert.h"

namespace samebits {

namespace {

constexpr double kAffordable = 4e10;  // multiplications a run: some ten seconds

std::vector<EndToEnd::Token> Likeliest(const std::vector<double>& logits, int64_t begin,
                                       int64_t vocab) {
  constexpr int64_t kTop = 5;
  const auto row = logits.begin() + begin;
  std::vector<int64_t> ids(static_cast<size_t>(vocab));
  for (int64_t i = 0; i < vocab; ++i) ids[static_cast<size_t>(i)] = i;
  const auto end = ids.begin() + std::min(kTop, vocab);
  // A NaN is never likely.
  const auto size = [&](int64_t id) { return std::isnan(row[id]) ? -HUGE_VAL : row[id]; };
  std::partial_sort(ids.begin(), end, ids.end(), [&](int64_t a, int64_t b) {
    return size(a) != size(b) ? size(a) > size(b) : a < b;
  });
  const double top = size(ids[0]);
  double sum = 0;
  for (int64_t i = 0; i < vocab; ++i) sum += std::exp(size(i) - top);
  std::vector<EndToEnd::Token> tokens;
  tokens.reserve(kTop);
  for (auto id = ids.begin(); id != end; ++id) {
    tokens.push_back({*id, row[*id], size(*id) - top - std::log(sum)});
  }
  return tokens;
}

// Both sides at the last position and at those that differ most.
std::vector<EndToEnd::Position> ComparePositions(const std::vector<double>& ours,
                                                 const std::vector<double>& theirs, int64_t vocab) {
  constexpr size_t kMost = 7;
  const int64_t tokens = static_cast<int64_t>(ours.size()) / vocab;
  std::vector<std::pair<double, int64_t>> order;
  order.reserve(static_cast<size_t>(tokens));
  for (int64_t t = 0; t < tokens; ++t) {
    double most = 0;
    for (int64_t i = t * vocab; i < (t + 1) * vocab; ++i) {
      const double d = std::fabs(ours[static_cast<size_t>(i)] - theirs[static_cast<size_t>(i)]);
      most = std::max(most, std::isnan(d) ? HUGE_VAL : d);
    }
    order.emplace_back(-most, t);
  }
  const auto last = order.back();
  std::sort(order.begin(), order.end());
  if (order.size() > kMost) order.resize(kMost);
  if (std::find(order.begin(), order.end(), last) == order.end()) order.push_back(last);
  std::sort(order.begin(), order.end(),
            [](const auto& a, const auto& b) { return a.second < b.second; });
  std::vector<EndToEnd::Position> positions;
  positions.reserve(order.size());
  for (const auto& [most, t] : order) {
    positions.push_back(
        {t, -most, Likeliest(ours, t * vocab, vocab), Likeliest(theirs, t * vocab, vocab)});
  }
  return positions;
}

}  // namespace

// How far our own runs of the whole model are from the trace, and from each other.
void Checker::RunEndToEnd() {
  if (!options_.end_to_end || WholeRunCost(graph_, trace_.tokens()) > kAffordable) return;
  std::map<std::string, Tensor> reference;
  RunWhole(source_, {}, [&](const std::string& name, const TensorView& ours) {
    if (name.ends_with(".scores")) return;  // masked: may hold anything
    const TensorView* recorded = trace_.Find(name);
    if (recorded != nullptr && recorded->shape == ours.shape) {
      ResultOf(name).propagated = CompareTensors(ours, *recorded).max_abs;
    }
    Tensor copy(ours.dtype, ours.shape);
    std::memcpy(copy.data(), ours.data, static_cast<size_t>(ours.bytes()));
    reference.emplace(name, std::move(copy));
  });
  RunWhole(
      source_, {},
      [&](const std::string& name, const TensorView& moved) {
        const auto base = reference.find(name);
        if (base == reference.end()) return;
        ResultOf(name).noise = CompareTensors(base->second.view(), moved).max_abs;
      },
      1);
  const TensorView* candidate = trace_.Find("lm_head");
  if (candidate != nullptr) CompareLogits(*candidate, reference.at("lm_head").view());
}

void Checker::CompareLogits(const TensorView& candidate, const TensorView& reference) {
  EndToEnd end;
  end.values = candidate.elements();
  end.tokens = trace_.tokens();
  const auto add = [&](const TensorView& ours, std::vector<std::string> chains) {
    const Metrics metrics = CompareTensors(ours, candidate);
    end.runs.push_back({std::move(chains), metrics.max_abs, metrics.differing});
  };
  add(reference, {});
  const std::vector<double> ours = ToDoubles(reference), theirs = ToDoubles(candidate);
  end.positions = ComparePositions(ours, theirs, graph_.config.vocab_size);
  const int64_t vocab = graph_.config.vocab_size;
  for (int64_t t = 0; t < end.tokens; ++t) {
    const auto top = [&](const std::vector<double>& v) {
      return std::max_element(v.begin() + t * vocab, v.begin() + (t + 1) * vocab) - v.begin();
    };
    end.same_argmax += top(ours) == top(theirs) ? 1 : 0;
  }
  const auto run = [&](const std::map<std::string, Form>& forms) {
    std::vector<std::string> chains;
    for (const auto& [group, form] : forms) {
      chains.insert(chains.end(), form.chains.begin(), form.chains.end());
    }
    RunWhole(source_, forms, [&](const std::string& name, const TensorView& logits) {
      if (name == "lm_head") add(logits, chains);
    });
  };
  if (result_.findings.empty() && !forms_.empty()) {
    if (forms_.size() > 1) {
      for (const auto& [group, form] : forms_) run({{group, form}});
    }
    run(forms_);
  }
  result_.end_to_end = std::move(end);
}

}  // namespace samebits
