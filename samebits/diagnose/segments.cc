#include "samebits/diagnose/segments.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <set>

#include "samebits/numerics/bounds.h"
#include "samebits/tensor/convert.h"

namespace samebits {
namespace {

Replay ReplayOf(const Node& node, size_t output) {
  Replay replay;
  replay.node = node;
  replay.output = static_cast<int>(output);
  replay.all_scores = true;  // a mask is an edit of what comes behind
  return replay;
}

}  // namespace

std::vector<Segment> FindSegments(const ReplaySource& source) {
  struct Place {
    const Node* node;
    size_t output;
  };
  std::map<std::string, Place, std::less<>> producers;
  std::map<std::string, size_t, std::less<>> order;
  for (const Node& node : source.graph->nodes) {
    for (size_t i = 0; i < node.outputs.size(); ++i) {
      producers[node.outputs[i]] = {&node, i};
      order.try_emplace(node.outputs[i], order.size());
    }
  }
  std::vector<Segment> segments;
  for (const Node& node : source.graph->nodes) {
    for (size_t i = 0; i < node.outputs.size(); ++i) {
      if (source.tensor(node.outputs[i]) == nullptr) continue;
      std::set<std::pair<size_t, std::string>> skipped;
      std::vector<std::string> open = RequiredTensors(ReplayOf(node, i));
      while (!open.empty()) {
        const std::string name = open.back();
        open.pop_back();
        if (source.tensor(name) != nullptr) continue;
        const Place place = producers.at(name);
        if (!skipped.emplace(order.at(name), name).second) continue;
        for (const std::string& input : RequiredTensors(ReplayOf(*place.node, place.output))) {
          open.push_back(input);
        }
      }
      if (skipped.empty()) continue;
      Segment segment;
      for (const auto& [at, name] : skipped) {
        segment.steps.push_back(ReplayOf(*producers.at(name).node, producers.at(name).output));
      }
      segment.steps.push_back(ReplayOf(node, i));
      segments.push_back(std::move(segment));
    }
  }
  return segments;
}

double SegmentCost(const Segment& segment, const ReplaySource& source) {
  double cost = 0;
  for (const Replay& step : segment.steps) cost += ReplayCost(step, source.tokens());
  return cost;
}

SegmentRunner::SegmentRunner(const Segment& segment, const ReplaySource& source)
    : segment_(segment), source_(source) {}

SegmentValues SegmentRunner::Run(const std::vector<Replay>& steps, const SegmentValues* base,
                                 const std::vector<bool>* changed,
                                 std::optional<uint64_t> noise) const {
  SegmentValues values(steps.size());
  std::map<std::string, size_t, std::less<>> places;
  for (size_t i = 0; i + 1 < steps.size(); ++i) places[segment_.NameOf(i)] = i;
  ReplaySource source = source_;
  source.dots = nullptr;
  source.tensor = [&](std::string_view name) -> const TensorView* {
    const auto place = places.find(name);
    if (place == places.end()) return source_.tensor(name);
    const auto& tensor = values[place->second];
    return tensor == nullptr ? nullptr : &tensor->view();
  };
  std::set<std::string, std::less<>> dirty;
  RoundingNoise errors(noise.value_or(0));
  for (size_t i = 0; i < steps.size(); ++i) {
    const Replay& step = steps[i];
    const std::vector<std::string> inputs = RequiredTensors(step);
    const bool same = base != nullptr && changed != nullptr && !(*changed)[i] &&
                      std::none_of(inputs.begin(), inputs.end(),
                                   [&](const std::string& name) { return dirty.contains(name); });
    if (same) {
      values[i] = (*base)[i];
      continue;
    }
    dirty.insert(segment_.NameOf(i));
    // An edit that asks for a tensor that is not there, and a shape that an edit does not give.
    const bool missing = std::any_of(inputs.begin(), inputs.end(), [&](const std::string& name) {
      return source.tensor(name) == nullptr;
    });
    if (missing) return {};
    const TensorView* recorded =
        i + 1 == steps.size() ? source_.tensor(segment_.target()) : nullptr;
    const DType stored = recorded != nullptr ? recorded->dtype
                         : step.kept_fp32    ? DType::kF32
                                             : source.dtype;
    Shape shape = OutputShape(*source.graph, step.node, segment_.NameOf(i), source.tokens());
    const Expectation e = Evaluate(step, source, stored, {0, source.tokens()});
    // The tables of a partial rotation are narrower.
    if (step.node.kind == OpKind::kRotary) shape.back() = e.columns;
    auto tensor = std::make_shared<Tensor>(stored, std::move(shape));
    if (static_cast<int64_t>(e.y.size()) != tensor->elements()) return {};
    StoreOutcomes(step, e, source.tokens(), noise ? &errors : nullptr, *tensor);
    values[i] = std::move(tensor);
  }
  return values;
}

SegmentDistance SegmentRunner::Compare(const TensorView& a, const TensorView& b) const {
  const Replay& last = segment_.steps.back();
  const bool scores = last.node.kind == OpKind::kAttention && last.output == 0;
  const int64_t keys = source_.tokens();
  SegmentDistance d;
  const std::vector<double> ours = ToDoubles(a), theirs = ToDoubles(b);
  double difference = 0, size = 0;
  for (size_t i = 0; i < ours.size(); ++i) {
    const auto at = static_cast<int64_t>(i);
    if (scores && at % keys > at / keys % keys) continue;  // masked: may hold anything
    ++d.elements;
    size += std::isfinite(ours[i]) ? ours[i] * ours[i] : 0;
    if (ours[i] == theirs[i] || (std::isnan(ours[i]) && std::isnan(theirs[i]))) continue;
    ++d.differing;
    const double distance = std::fabs(ours[i] - theirs[i]);
    if (!std::isfinite(distance)) {
      d.max_abs = d.max_ulp = difference = std::numeric_limits<double>::infinity();
      continue;
    }
    difference += distance * distance;
    d.max_abs = std::max(d.max_abs, distance);
    const double larger = std::max(std::fabs(ours[i]), std::fabs(theirs[i]));
    d.max_ulp = std::max(d.max_ulp, distance / (2 * HalfUlp(larger, b.dtype)));
  }
  d.rms = size > 0 ? std::sqrt(difference / size) : difference > 0 ? 1.0 : 0.0;
  return d;
}

SegmentDistance SegmentRunner::Distance(const SegmentValues& values) const {
  if (values.empty()) {
    SegmentDistance none;
    none.rms = std::numeric_limits<double>::infinity();
    return none;
  }
  return Compare(values.back()->view(), *source_.tensor(segment_.target()));
}

SegmentDistance SegmentRunner::Distance(const SegmentValues& values,
                                        const SegmentValues& other) const {
  return Compare(values.back()->view(), other.back()->view());
}

}  // namespace samebits
