#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "apps/samebits/bench.h"
#include "samebits/base/html.h"
#include "samebits/base/json.h"

namespace samebits {
namespace {

const char* BoundName(const BenchRun& run) {
  return run.bound_by_memory ? "memory bandwidth" : "arithmetic";
}

Json RunJson(const BenchRun& run) {
  const Spread speed = run.Speed();
  Json json = {{"kind", run.kind},
               {"tokens", run.tokens},
               {"depth", run.depth},
               {"batch", run.batch},
               {"tokens_per_s", speed.median},
               {"tokens_per_s_min", speed.min},
               {"tokens_per_s_max", speed.max},
               {"seconds", SpreadOf(run.seconds).median},
               {"seconds_of_rounds", run.seconds},
               {"flops", run.work.flops},
               {"bytes", run.work.bytes},
               {"bound", BoundName(run)},
               {"share_of_limit", nullptr},
               {"share_of_limit_min", nullptr},
               {"share_of_limit_max", nullptr},
               {"operations", Json::object()}};
  if (!run.shares.empty()) {
    const Spread share = SpreadOf(run.shares);
    json["share_of_limit"] = share.median;
    json["share_of_limit_min"] = share.min;
    json["share_of_limit_max"] = share.max;
  }
  for (const auto& [name, share] : run.operations) json["operations"][name] = share;
  if (run.traffic.exchanges > 0) {
    json["exchanged"] = {{"exchanges", run.traffic.exchanges},
                         {"received_bytes", run.traffic.received},
                         {"layer_exchanges", run.layer_traffic.exchanges},
                         {"layer_received_bytes", run.layer_traffic.received}};
  }
  return json;
}

std::string TrafficText(const Traffic& traffic, int64_t tokens) {
  const auto n = static_cast<double>(tokens);
  return fmt::format("{:.4g} exchanges and {:.0f} bytes",
                     static_cast<double>(traffic.exchanges) / n,
                     static_cast<double>(traffic.received) / n);
}

// A point or a line of a plot with logarithmic axes.
class LogPlot {
 public:
  LogPlot(double x_min, double x_max, double y_min, double y_max)
      : x_min_(std::log10(x_min)),
        x_max_(std::log10(x_max)),
        y_min_(std::log10(y_min)),
        y_max_(std::log10(y_max)) {}

  double X(double x) const {
    return kLeft + (std::log10(x) - x_min_) / (x_max_ - x_min_) * (kWidth - kLeft - kRight);
  }
  double Y(double y) const {
    return kHeight - kBottom -
           (std::log10(y) - y_min_) / (y_max_ - y_min_) * (kHeight - kTop - kBottom);
  }
  std::string Axes() const {
    std::string svg;
    for (int e = First(x_min_); e <= x_max_; ++e) {
      const double x = X(std::pow(10, e));
      svg += fmt::format(
          "<path class=\"grid\" d=\"M{0:.1f} {1}V{2}\"/><text x=\"{0:.1f}\" y=\"{3}\" "
          "text-anchor=\"middle\">{4:g}</text>\n",
          x, kTop, kHeight - kBottom, kHeight - kBottom + 18, std::pow(10, e));
    }
    for (int e = First(y_min_); e <= y_max_; ++e) {
      const double y = Y(std::pow(10, e));
      svg += fmt::format(
          "<path class=\"grid\" d=\"M{1} {0:.1f}H{2}\"/><text x=\"{3}\" y=\"{4:.1f}\" "
          "text-anchor=\"end\">{5:g}</text>\n",
          y, kLeft, kWidth - kRight, kLeft - 6, y + 4, std::pow(10, e));
    }
    return svg + fmt::format(
                     "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">operations a byte that is "
                     "read</text>\n<text x=\"{}\" y=\"{}\">GFLOP/s</text>\n",
                     (kLeft + kWidth - kRight) / 2, kHeight - 8, 8, kTop - 8);
  }

  static constexpr int kWidth = 720, kHeight = 440, kLeft = 60, kRight = 20, kTop = 60,
                       kBottom = 50;

 private:
  static int First(double exponent) { return static_cast<int>(std::ceil(exponent)); }

  double x_min_, x_max_, y_min_, y_max_;
};

std::string Label(const BenchRun& run) {
  if (run.kind == "prefill") return fmt::format("prefill {}", run.tokens);
  if (run.batch > 1) return fmt::format("decode, {} sequences", run.batch);
  return fmt::format("decode at {}", run.depth);
}

}  // namespace

std::string BenchText(const BenchResult& result) {
  std::string text =
      fmt::format("{}: {}, {} threads, {} on {}\n", result.model, ModelDTypeName(result.how.dtype),
                  result.how.threads, IsaName(result.how.isa), result.cpu);
  text +=
      fmt::format("limits: memory is read at {:.1f} GB/s", result.read_bytes_per_s.median / 1e9);
  if (result.flops_per_s.median > 0) {
    text += fmt::format("; {:.0f} GFLOP/s in {}", result.flops_per_s.median / 1e9,
                        ModelDTypeName(result.how.dtype));
  }
  if (result.fma_flops_per_s > 0 && result.fma_flops_per_s != result.flops_per_s.median) {
    text += fmt::format(", {:.0f} GFLOP/s of fp32 FMA", result.fma_flops_per_s / 1e9);
  }
  text +=
      fmt::format("\n        tokens   depth  batch   tokens/s  slowest to fastest of {} rounds\n",
                  result.rounds);
  for (const BenchRun& run : result.runs) {
    const Spread speed = run.Speed();
    text += fmt::format("{:<8}{:>6}  {:>6}  {:>5} {:>10.2f}  {:>8.2f} to {:<8.2f}", run.kind,
                        run.tokens, run.depth, run.batch, speed.median, speed.min, speed.max);
    if (!run.shares.empty()) {
      const Spread share = SpreadOf(run.shares);
      text += fmt::format("  {:>3.0f} % of the {} ({:.0f} to {:.0f})", 100 * share.median,
                          BoundName(run), 100 * share.min, 100 * share.max);
    }
    text += '\n';
  }
  text += "where the time goes:\n";
  for (const BenchRun& run : result.runs) {
    text += fmt::format("{:<24}", Label(run));
    for (const auto& [name, share] : run.operations) {
      if (share >= 0.005) text += fmt::format("  {} {:.0f} %", name, 100 * share);
    }
    text += '\n';
  }
  if (result.how.ranks == nullptr) return text;
  text += fmt::format("exchanged by rank 0 of tp={},pp={}, a token:\n", result.how.parallel.tp,
                      result.how.parallel.pp);
  for (const BenchRun& run : result.runs) {
    const int64_t tokens = run.tokens * run.batch;
    text += fmt::format("{:<24}  {}; {} of a layer\n", Label(run), TrafficText(run.traffic, tokens),
                        TrafficText(run.layer_traffic, tokens));
  }
  return text;
}

Json RanksOf(const BenchResult& result) {
  if (result.how.ranks == nullptr) return nullptr;
  return {{"tp", result.how.parallel.tp},
          {"pp", result.how.parallel.pp},
          {"exchange_delay_ms", result.exchange_delay_ms}};
}

std::string BenchJson(const BenchResult& result) {
  Json runs = Json::array();
  for (const BenchRun& run : result.runs) runs.push_back(RunJson(run));
  const Json json = {{"model", result.model},
                     {"dtype", ModelDTypeName(result.how.dtype)},
                     {"cpu", {{"isa", IsaName(result.how.isa)}, {"name", result.cpu}}},
                     {"threads", result.how.threads},
                     {"rounds", result.rounds},
                     {"ranks", RanksOf(result)},
                     {"limits",
                      {{"read_bytes_per_s", result.read_bytes_per_s.median},
                       {"flops_per_s", result.flops_per_s.median},
                       {"fma_flops_per_s", result.fma_flops_per_s}}},
                     {"runs", runs}};
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::string BenchPlot(const BenchResult& result) {
  const double bandwidth = result.read_bytes_per_s.median;
  double peak = result.flops_per_s.median / 1e9, x_min = 1, x_max = 1000, y_min = 1;
  for (const BenchRun& run : result.runs) {
    const double x = run.work.flops / run.work.bytes;
    const double y = run.work.flops / SpreadOf(run.seconds).median / 1e9;
    x_min = std::min(x_min, x / 2);
    x_max = std::max(x_max, x * 2);
    y_min = std::min(y_min, y / 2);
    peak = std::max(peak, y);
  }
  const LogPlot plot(x_min, x_max, std::min(y_min, x_min * bandwidth / 1e9), peak * 2);
  std::string svg = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0} {1}\" role=\"img\">\n"
      "<style>svg{{font:13px system-ui,sans-serif;background:#fff}}text{{fill:#222}}"
      ".grid{{stroke:#ddd;fill:none}}.roof{{stroke:#222;stroke-width:2;fill:none}}"
      ".prefill{{fill:#0067c0}}.decode{{fill:#c43e1c}}"
      "@media(prefers-color-scheme:dark){{svg{{background:#1b1b1b}}text{{fill:#ddd}}"
      ".grid{{stroke:#3a3a3a}}.roof{{stroke:#ddd}}.prefill{{fill:#5ab0ff}}.decode{{fill:#ff8a65}}}}"
      "</style>\n<text x=\"8\" y=\"22\">{2}, {3}, {4} threads, {5} on {6}</text>\n",
      LogPlot::kWidth + 230, LogPlot::kHeight, EscapeHtml(result.model),
      ModelDTypeName(result.how.dtype), result.how.threads, IsaName(result.how.isa),
      EscapeHtml(result.cpu));
  svg += plot.Axes();
  const double knee = std::clamp(peak * 1e9 / bandwidth, x_min, x_max);
  svg += fmt::format("<path class=\"roof\" d=\"M{:.1f} {:.1f}L{:.1f} {:.1f}H{:.1f}\"/>\n",
                     plot.X(x_min), plot.Y(x_min * bandwidth / 1e9), plot.X(knee),
                     plot.Y(std::min(peak, knee * bandwidth / 1e9)), plot.X(x_max));
  int number = 0;  // of the run, in the legend
  for (const BenchRun& run : result.runs) {
    const double x = plot.X(run.work.flops / run.work.bytes);
    const double y = plot.Y(run.work.flops / SpreadOf(run.seconds).median / 1e9);
    std::string share;
    if (!run.shares.empty()) share = fmt::format(", {:.0f} %", 100 * SpreadOf(run.shares).median);
    const double line = LogPlot::kTop + 10 + 20.0 * static_cast<double>(number++);
    constexpr int kLegend = LogPlot::kWidth + 10;
    svg += fmt::format(
        "<circle class=\"{0}\" cx=\"{1:.1f}\" cy=\"{2:.1f}\" r=\"5\"/>"
        "<text x=\"{1:.1f}\" y=\"{3:.1f}\" text-anchor=\"middle\">{4}</text>"
        "<circle class=\"{0}\" cx=\"{5}\" cy=\"{6:.1f}\" r=\"5\"/>"
        "<text x=\"{7}\" y=\"{8:.1f}\">{4}: {9}{10}</text>\n",
        run.kind, x, y, y + (number % 2 == 0 ? 19 : -9), number, kLegend, line, kLegend + 12,
        line + 4, Label(run), share);
  }
  return svg + "</svg>\n";
}

}  // namespace samebits
