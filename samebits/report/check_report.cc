#include "samebits/report/check_report.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <charconv>
#include <cmath>
#include <map>
#include <set>

namespace samebits {
namespace {

Json Number(double value) {
  if (std::isfinite(value)) return value;
  return std::isnan(value) ? "nan" : "inf";
}

Json JudgementJson(const Judgement& j) {
  return {{"elements", j.elements},
          {"outside", j.outside},
          {"not_equal", j.not_equal},
          {"max_abs", Number(j.max_abs)},
          {"bound_ratio", Number(j.max_ratio)}};
}

// Bins as in diagnose/evidence.h.
Json ResidualsJson(const Residuals& r) {
  Json sample = Json::array();
  for (size_t i = 0; i < r.expected.size(); ++i) {
    sample.push_back({Number(r.expected[i]), Number(r.candidate[i])});
  }
  return {{"histogram", r.histogram}, {"not_finite", r.not_finite}, {"sample", sample}};
}

Json TokensJson(const std::vector<EndToEnd::Token>& tokens) {
  Json list = Json::array();
  for (const EndToEnd::Token& token : tokens) {
    list.push_back({{"id", token.id},
                    {"logit", Number(token.logit)},
                    {"log_probability", Number(token.log_probability)}});
  }
  return list;
}

Json FindingJson(const Finding& f) {
  Json evidence = {{"detail", f.detail},
                   {"as_the_graph_says", JudgementJson(f.with_graph)},
                   {"as_the_cause_says", JudgementJson(f.with_cause)}};
  if (f.value) evidence["value"] = *f.value;
  if (f.expected) evidence["expected"] = *f.expected;
  if (f.value_low && *f.value_low != *f.value_high) {
    evidence["value_range"] = {*f.value_low, *f.value_high};
  }
  if (f.evidence) {
    const Evidence& e = *f.evidence;
    evidence["residuals"] = {
        {"node", e.node},
        {"as_the_graph_says", ResidualsJson(e.with_graph)},
        {"as_the_cause_says", e.with_cause ? ResidualsJson(*e.with_cause) : Json(nullptr)},
        {"worst",
         {{"index", e.worst.index},
          {"expected", Number(e.worst.expected)},
          {"low", Number(e.worst.low)},
          {"high", Number(e.worst.high)},
          {"candidate", Number(e.worst.candidate)}}}};
  }
  if (f.measured) {
    const auto distance = [](const SegmentDistance& d) {
      return Json{{"elements", d.elements},
                  {"differing", d.differing},
                  {"relative_rms", Number(d.rms)},
                  {"max_abs", Number(d.max_abs)},
                  {"max_ulp", Number(d.max_ulp)}};
    };
    evidence["measured"] = {{"as_the_graph_says", distance(f.measured->with_graph)},
                            {"as_the_cause_says", distance(f.measured->with_cause)},
                            {"noise", Number(f.measured->noise)}};
    evidence.erase("as_the_graph_says");
    evidence.erase("as_the_cause_says");
  }
  return {{"cause", f.cause},
          {"node", f.nodes.front()},
          {"nodes", f.nodes},
          {"grade", "bug"},
          {"confidence", f.confirmed                ? "confirmed"
                         : f.cause == "unexplained" ? "none"
                                                    : "likely"},
          {"evidence", evidence},
          {"fix", f.fix}};
}

// Layer number and the name behind it; -1 outside the layers.
std::pair<int64_t, std::string> SplitName(const std::string& name) {
  constexpr std::string_view kLayers = "model.layers.";
  if (!name.starts_with(kLayers)) return {-1, name};
  int64_t layer = 0;
  const char* end = name.data() + name.size();
  const auto parsed = std::from_chars(name.data() + kLayers.size(), end, layer);
  if (parsed.ptr == end) return {layer, "output"};
  return {layer, std::string(parsed.ptr + 1, end)};
}

int64_t Layers(const CheckResult& result) {
  int64_t layers = 0;
  for (const NodeResult& node : result.nodes) {
    layers = std::max(layers, SplitName(node.name).first + 1);
  }
  return layers;
}

std::string Join(const std::vector<std::string>& words) {
  if (words.size() < 2) return words.empty() ? "" : words[0];
  const std::vector<std::string> head(words.begin(), words.end() - 1);
  return fmt::format("{} and {}", fmt::join(head, ", "), words.back());
}

std::string Percent(int64_t part, int64_t whole) {
  return whole == 0 ? "0 %"
                    : fmt::format("{:.3g} %",
                                  100.0 * static_cast<double>(part) / static_cast<double>(whole));
}

// Of a sparse trace: whole segments against the noise of legitimate arithmetic.
std::string MeasuredText(const Finding& f) {
  const MeasuredEvidence& m = *f.measured;
  std::string text;
  const auto line = [&](const char* what, const SegmentDistance& d) {
    text += fmt::format("    {} {} of {} recorded values differ, by {:.2g} of their size\n", what,
                        d.differing, d.elements, d.rms);
  };
  if (f.cause == "unexplained") {
    text += fmt::format("  {}\n", f.detail);
    line("as it should be:  ", m.with_graph);
    return text +
           fmt::format("    legitimate arithmetic is off by {:.2g} here\n    {}\n", m.noise, f.fix);
  }
  text += fmt::format("  the port {}\n", f.detail);
  line("as it should be:  ", m.with_graph);
  line("replayed like that:", m.with_cause);
  if (f.value && f.expected) {
    text += fmt::format("    value found: {:g}, the checkpoint's: {:g}\n", *f.value, *f.expected);
  }
  text += fmt::format("    legitimate arithmetic is off by {:.2g} here (measured, not proven)\n",
                      m.noise);
  if (!f.confirmed) text += "    likely: what is left is more than that\n";
  return text + fmt::format("    {}\n", f.fix);
}

std::string FindingText(const Finding& f, int64_t layers) {
  std::string text = fmt::format("{}: {}\n", SummarizeNodes(f.nodes, layers), f.cause);
  const Judgement& graph = f.with_graph;
  const Judgement& cause = f.with_cause;
  if (f.cause.starts_with("trace-")) {
    return text + fmt::format("  the trace, not the port: {}\n    {}\n", f.detail, f.fix);
  }
  if (f.measured) return text + MeasuredText(f);
  if (f.cause == "unexplained") {
    text += fmt::format("  {} of {} values are outside what any order of summation gives ({})\n",
                        graph.outside, graph.elements, Percent(graph.outside, graph.elements));
    return text + fmt::format("  {}\n", f.fix);
  }
  text += fmt::format("  the port {}", f.detail);
  if (cause.elements > 0 && cause.not_equal == 0) text += ", bit for bit";
  text += "\n";
  if (f.cause == "head-dim") return text + fmt::format("    {}\n", f.fix);
  text +=
      fmt::format("    as it should be:   {} of {} values are outside every possible rounding\n",
                  graph.outside, graph.elements);
  if (cause.elements > 0)
    text += fmt::format(
        "    replayed like that: {} outside, {} differ from the correctly rounded result\n",
        cause.outside, cause.not_equal);
  if (f.value && f.expected) {
    text += fmt::format("    value found: {:g}, the checkpoint's: {:g}", *f.value, *f.expected);
    if (f.value_low && *f.value_low != *f.value_high) {
      text +=
          fmt::format(" (anything from {:.3g} to {:.3g} would fit)", *f.value_low, *f.value_high);
    }
    text += "\n";
  }
  if (!f.confirmed) {
    text += fmt::format(
        "    likely, not proven: {}\n",
        cause.elements > 0 ? "some values stay outside" : "told by statistics, not by a replay");
  }
  return text + fmt::format("    {}\n", f.fix);
}

std::string RoundingText(const CheckResult& result) {
  std::map<Grade, int64_t> nodes;
  std::map<std::string, int64_t> identical;
  int64_t elements = 0, not_equal = 0, bounds = 0, measured = 0;
  double worst = 0;
  std::string worst_name;
  for (const NodeResult& node : result.nodes) {
    ++nodes[node.grade];
    if (node.grade == Grade::kBug || node.grade == Grade::kUnknown) continue;
    ++bounds;
    if (node.measured) {
      ++measured;
      continue;
    }
    if (!node.identical_to.empty()) ++identical[node.identical_to];
    elements += node.base.elements;
    not_equal += node.base.not_equal;
    if (result.dtype == DType::kF32 && node.base.max_ratio > worst) {
      worst = node.base.max_ratio;
      worst_name = node.name;
    }
  }
  std::string text = fmt::format("{} of {} nodes are right: ", bounds, result.nodes.size());
  if (identical["replay"] > 0) {
    text += fmt::format("{} have the framework's own bits, ", identical["replay"]);
  }
  if (identical["canonical"] > 0) {
    text += fmt::format("{} identical to canonical arithmetic, ", identical["canonical"]);
  }
  text += fmt::format(
      "{} identical to the correctly rounded result, {} within rounding\n", identical["rounded"],
      bounds - measured - identical["replay"] - identical["canonical"] - identical["rounded"]);
  if (measured > 0) {
    text += fmt::format(
        "  {} nodes lie between recorded tensors: judged together, by the noise of legitimate "
        "arithmetic (measured, not proven)\n",
        measured);
  }
  text += fmt::format(
      "  {} of {} values differ from the correctly rounded result, none is outside its "
      "proven interval\n",
      not_equal, elements);
  if (!worst_name.empty()) {
    text += fmt::format("  closest to its bound: {}, at {:.2g} of it\n", worst_name, worst);
  }
  if (nodes[Grade::kUnknown] > 0) {
    text += fmt::format("{} nodes could not be judged:\n", nodes[Grade::kUnknown]);
    int shown = 0;
    for (const NodeResult& node : result.nodes) {
      if (node.grade != Grade::kUnknown) continue;
      if (++shown > 4) {
        text += "  ...\n";
        break;
      }
      text += fmt::format("  {}: {}\n", node.name, node.why_unknown);
    }
  }
  return text;
}

std::string EndToEndText(const EndToEnd& end) {
  const EndToEnd::Run& base = end.runs.front();
  std::string text = fmt::format(
      "logits against a run of our own with Hugging Face's rounding: up to {:.3g} apart, the same "
      "likeliest token at {} of {} places\n",
      base.max_abs, end.same_argmax, end.tokens);
  for (size_t i = 1; i < end.runs.size(); ++i) {
    const EndToEnd::Run& run = end.runs[i];
    text += fmt::format("  with {}: up to {:.3g} apart, {} of {} values differ\n", Join(run.chains),
                        run.max_abs, run.differing, end.values);
  }
  return text;
}

}  // namespace

std::string SummarizeNodes(const std::vector<std::string>& nodes, int64_t layers) {
  std::vector<std::string> outside;
  std::vector<std::string> names;                       // in order, once
  std::map<std::string, std::vector<int64_t>> by_name;  // -> layers
  for (const std::string& node : nodes) {
    const auto [layer, name] = SplitName(node);
    if (layer < 0) {
      outside.push_back(name);
      continue;
    }
    if (!by_name.contains(name)) names.push_back(name);
    by_name[name].push_back(layer);
  }
  std::vector<std::string> parts = outside;
  std::map<std::vector<int64_t>, std::vector<std::string>> by_layers;
  for (const std::string& name : names) by_layers[by_name[name]].push_back(name);
  for (const auto& [which, some] : by_layers) {
    std::string where = static_cast<int64_t>(which.size()) == layers && layers > 1
                            ? fmt::format("all {} layers", layers)
                        : which.size() == 1 ? fmt::format("layer {}", which[0])
                                            : fmt::format("layers {}", fmt::join(which, ", "));
    parts.push_back(fmt::format("{} in {}", Join(some), where));
  }
  return fmt::format("{}", fmt::join(parts, "; "));
}

Json CheckToJson(const CheckResult& result) {
  Json findings = Json::array(), nodes = Json::array(), chains = Json::array();
  for (const Finding& finding : result.findings) findings.push_back(FindingJson(finding));
  for (const NodeResult& node : result.nodes) {
    Json one = {
        {"name", node.name},
        {"grade", GradeName(node.grade)},
        {"elements", node.base.elements},
        {"outside", node.base.outside},
        {"max_abs", Number(node.base.max_abs)},
        {"max_ulp", Number(node.base.max_ulp)},
        {"bound", Number(node.base.max_bound)},
        {"outside_likely", node.base.outside_likely},
        {"power_ulp", Number(node.base.elements > 0
                                 ? node.base.width_ulp / static_cast<double>(node.base.elements)
                                 : 0)},
        {"differing", node.base.not_equal},
        {"bound_ratio", Number(node.base.max_ratio)},
        {"propagated", node.propagated ? Number(*node.propagated) : Json(nullptr)},
        {"noise", node.noise ? Number(*node.noise) : Json(nullptr)}};
    if (!node.identical_to.empty()) one["identical_to"] = node.identical_to;
    if (node.replay_differing) one["replay_differing"] = *node.replay_differing;
    if (!node.inside.empty()) one["inside"] = node.inside;
    if (node.grade != Grade::kUnknown) one["tier"] = node.measured ? "measured" : "proven";
    if (!node.why_unknown.empty()) one["why"] = node.why_unknown;
    nodes.push_back(one);
  }
  for (const ChainResult& chain : result.chains) {
    chains.push_back({{"nodes", chain.nodes},
                      {"chain", chain.chain},
                      {"what", chain.what},
                      {"advice", chain.advice}});
  }
  Json json = {
      {"verdict", GradeName(result.verdict)},
      {"first_divergence",
       result.first_divergence.empty() ? Json(nullptr) : Json(result.first_divergence)},
      {"judged_up_to", result.judged_up_to.empty() ? Json(nullptr) : Json(result.judged_up_to)},
      {"dtype", ModelDTypeName(result.dtype)},
      {"tokens", result.tokens},
      {"findings", findings},
      {"nodes", nodes},
      {"chains", chains},
      {"not_visible", result.not_visible}};
  if (result.non_finite) {
    json["non_finite"] = {{"node", result.non_finite->node},
                          {"count", result.non_finite->count},
                          {"elements", result.non_finite->elements},
                          {"first", result.non_finite->first}};
  }
  if (result.end_to_end) {
    Json runs = Json::array();
    for (const EndToEnd::Run& run : result.end_to_end->runs) {
      runs.push_back(
          {{"chains", run.chains}, {"max_abs", Number(run.max_abs)}, {"differing", run.differing}});
    }
    Json positions = Json::array();
    for (const EndToEnd::Position& p : result.end_to_end->positions) {
      positions.push_back({{"position", p.position},
                           {"max_abs", Number(p.max_abs)},
                           {"ours", TokensJson(p.ours)},
                           {"theirs", TokensJson(p.theirs)}});
    }
    json["logits"] = {{"values", result.end_to_end->values},
                      {"tokens", result.end_to_end->tokens},
                      {"same_argmax", result.end_to_end->same_argmax},
                      {"runs", runs},
                      {"positions", positions}};
  }
  return json;
}

std::string CheckToText(const CheckResult& result) {
  const int64_t layers = Layers(result);
  std::string text;
  switch (result.verdict) {
    case Grade::kBug:
      text = fmt::format("BUG. First wrong node: {}\n\n", result.first_divergence);
      break;
    case Grade::kUnknown:
      text = "COULD NOT TELL: some nodes are not in the trace; nothing wrong in the others.\n\n";
      break;
    case Grade::kRounding:
      text = "ROUNDING: no bug; all that differs is explained by rounding.\n";
      if (!result.judged_up_to.empty()) {
        text += fmt::format("The trace ends at {}: nothing is said about what comes behind.\n",
                            result.judged_up_to);
      }
      text += "\n";
      break;
    case Grade::kIdentical:
      text = "IDENTICAL: every node has the very bits of a stated arithmetic.\n\n";
      break;
  }
  if (result.non_finite) {
    const NonFinite& n = *result.non_finite;
    text += fmt::format("first NaN or infinity: {}, {} of {} values, the first at index {}\n\n",
                        n.node, n.count, n.elements, n.first);
  }
  for (const Finding& finding : result.findings) text += FindingText(finding, layers) + "\n";
  text += RoundingText(result);
  for (const ChainResult& chain : result.chains) {
    text += fmt::format("harmless habit: {}: the port {}\n  ({}; to get the same bits: {})\n",
                        SummarizeNodes(chain.nodes, layers), chain.what, chain.chain, chain.advice);
  }
  if (result.end_to_end) text += EndToEndText(*result.end_to_end);
  text += "not visible in this trace:\n";
  for (const std::string& line : result.not_visible) text += fmt::format("  {}\n", line);
  return text;
}

}  // namespace samebits
