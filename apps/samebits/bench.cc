// samebits bench: how fast a prompt is read and how fast tokens are decoded, each beside what this
// machine can do at most, measured in turns in the same run.
#include "apps/samebits/bench.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "apps/samebits/commands.h"
#include "apps/samebits/model_options.h"
#include "apps/samebits/ranks.h"
#include "samebits/base/error.h"
#include "samebits/checkpoint/hub_cache.h"
#include "samebits/kernels/limits.h"

namespace samebits {
namespace {

struct BenchOptions {
  ModelOptions model;
  std::vector<int64_t> prompts;  // empty: 512, or half of the context
  std::vector<int64_t> batches = {1, 16};
  int64_t max_tokens = 0;  // 0: 64, less where the context is short
  int rounds = 5;
  double exchange_delay_ms = 0;
  bool json = false;
  std::string plot;
};

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::string CpuName() {
  std::ifstream file("/proc/cpuinfo");
  std::string line;
  while (std::getline(file, line)) {
    const size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) {
      return line.substr(colon + 2);
    }
  }
  return "unknown";
}

// For the measurement of the memory: far more than caches hold, and not much of what is free.
size_t ScratchBytes() {
  std::ifstream file("/proc/meminfo");
  std::string name, unit;
  size_t value = 0, available = 0;
  while (file >> name >> value >> unit) {
    if (name == "MemAvailable:") available = value << 10;
  }
  available /= static_cast<size_t>(LocalRanks());
  return std::clamp(available / 4, size_t{64} << 20, size_t{1} << 30);
}

std::vector<int64_t> RandomIds(int64_t count, int64_t vocab_size) {
  std::vector<int64_t> ids;
  ids.reserve(static_cast<size_t>(count));
  uint64_t state = 1;
  for (int64_t i = 0; i < count; ++i) {  // a linear congruence of Knuth's; only variety matters
    state = state * 6364136223846793005U + 1442695040888963407U;
    ids.push_back(static_cast<int64_t>((state >> 33) % static_cast<uint64_t>(vocab_size)));
  }
  return ids;
}

// Keys that the token at `position` sees.
int64_t Seen(const Attributes& a, int64_t position) {
  return a.window > 0 ? std::min(a.window, position + 1) : position + 1;
}

// Of `tokens` of each of `batch` sequences behind `depth` others, read in chunks; what only the
// logits need is computed for the last token of a prompt.
Work WorkOf(const Graph& graph, const Checkpoint& checkpoint, DType dtype, const BenchRun& run,
            int64_t chunk) {
  const int64_t passes = run.kind == "prefill" ? (run.tokens + chunk - 1) / chunk : run.tokens;
  const auto batch = static_cast<double>(run.batch);
  Work work;
  const size_t first_for_logits = FirstForLogits(graph);
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    const Node& node = graph.nodes[i];
    const Attributes& a = node.attributes;
    const bool once = run.kind == "prefill" && i >= first_for_logits;
    for (const std::string& name : node.weights) {
      const TensorView& weight = checkpoint.Get(name);
      const int64_t row_bytes = weight.bytes() / weight.shape[0];
      if (node.kind == OpKind::kEmbedding) {
        work.bytes += static_cast<double>(row_bytes) * batch * static_cast<double>(run.tokens);
      } else {
        const int64_t rows = node.kind == OpKind::kLinear ? a.out_features : weight.shape[0];
        work.bytes +=
            static_cast<double>(row_bytes * rows) * (once ? 1 : static_cast<double>(passes));
      }
    }
    if (node.kind == OpKind::kLinear) {
      const int64_t rows = once ? 1 : run.tokens;
      work.flops += 2 * batch * static_cast<double>(rows) * static_cast<double>(a.in_features) *
                    static_cast<double>(a.out_features);
    } else if (node.kind == OpKind::kAttention) {
      double keys = 0, read = 0;  // each of the seen once a pass
      const int64_t step = (run.tokens + passes - 1) / passes;
      for (int64_t t = 0; t < run.tokens; ++t) {
        const auto seen = static_cast<double>(Seen(a, run.depth + t));
        keys += seen;
        if ((t + 1) % step == 0 || t + 1 == run.tokens) read += seen;
      }
      work.flops += 4 * batch * keys * static_cast<double>(a.heads * a.head_dim);
      work.bytes +=
          2 * batch * read * static_cast<double>(a.kv_heads * a.head_dim * DTypeSize(dtype));
    }
  }
  return work;
}

// Under which name a node's time is shown.
std::string GroupOf(const Graph& graph, const Node& node) {
  if (node.name == graph.nodes.back().name) return "lm_head";
  if (node.kind == OpKind::kAdd || node.kind == OpKind::kMultiply) return "elementwise";
  return std::string(OpKindName(node.kind));
}

class Bench {
 public:
  Bench(const BenchOptions& options, const Checkpoint& checkpoint, const Graph& graph,
        const RuntimeOptions& how)
      : options_(options),
        checkpoint_(checkpoint),
        graph_(graph),
        how_(WithCosts(how, costs_)),
        runtime_(graph, checkpoint, how_),
        share_(runtime_.graph()),
        pool_(how_.threads),
        scratch_(ScratchBytes()) {
    result_.model = options.model.model;
    result_.cpu = CpuName();
    result_.how = how_;
    result_.rounds = options.rounds;
    Plan(checkpoint.config().context_length);
  }

  BenchResult Run() {
    Progress("reading the weights");
    Sequence first = runtime_.NewSequence();
    runtime_.Forward(first, std::span(ids_).first(1));
    for (int round = 0; round < options_.rounds; ++round) {
      for (size_t i = 0; i < result_.runs.size(); ++i) {
        Progress(fmt::format("round {} of {}, measurement {} of {}", round + 1, options_.rounds,
                             i + 1, result_.runs.size()));
        Measure(result_.runs[i], costs_of_runs_[i]);
      }
    }
    Progress("");
    for (size_t i = 0; i < result_.runs.size(); ++i) Share(result_.runs[i], costs_of_runs_[i]);
    result_.read_bytes_per_s = SpreadOf(read_);
    result_.flops_per_s = SpreadOf(flops_);
    result_.fma_flops_per_s = PeakFlops(how_.isa, false, pool_);
    return std::move(result_);
  }

 private:
  static RuntimeOptions WithCosts(RuntimeOptions options, std::vector<NodeCost>& costs) {
    options.node_costs = &costs;
    return options;
  }

  static void Progress(const std::string& text) {
    if (isatty(STDERR_FILENO) != 0) fmt::print(stderr, "\r\033[K{}", text);
  }

  void Plan(int64_t context) {
    constexpr int64_t kPrompt = 512, kTokens = 64, kBatchDepth = 64;
    const int64_t half = std::max<int64_t>(1, context / 2);
    std::vector<int64_t> prompts = options_.prompts;
    if (prompts.empty()) prompts.push_back(std::min(kPrompt, half));
    const int64_t tokens = options_.max_tokens > 0 ? options_.max_tokens : std::min(kTokens, half);
    int64_t longest = 0;
    for (const int64_t prompt : prompts) {
      Add("prefill", prompt, 0, 1);
      longest = std::max(longest, prompt + tokens);
    }
    for (const int64_t batch : options_.batches) {
      for (const int64_t prompt : prompts) {
        if (batch == 1) Add("decode", tokens, prompt, 1);
      }
      if (batch > 1) Add("decode", tokens, std::min(kBatchDepth, half), batch);
    }
    longest = std::max(longest, tokens + std::min(kBatchDepth, half));
    ids_ = RandomIds(longest, checkpoint_.config().vocab_size);
    CheckIds(ids_, checkpoint_.config());
    costs_of_runs_.assign(result_.runs.size(), std::vector<NodeCost>(share_.nodes.size()));
  }

  void Add(const char* kind, int64_t tokens, int64_t depth, int64_t batch) {
    BenchRun run;
    run.kind = kind;
    run.tokens = tokens;
    run.depth = depth;
    run.batch = batch;
    run.work = WorkOf(share_, checkpoint_, how_.dtype, run, options_.model.chunk);
    result_.runs.push_back(std::move(run));
  }

  double Flops() {
    flops_.push_back(PeakFlops(how_.isa, how_.dtype == DType::kBF16, pool_));
    return flops_.back();
  }
  double Read() {
    read_.push_back(ReadBandwidth(scratch_, pool_));
    return read_.back();
  }

  void ReadPrompt(Sequence& sequence, int64_t tokens) {
    sequence.Plan(tokens);
    const auto ids = std::span<const int64_t>(ids_).first(static_cast<size_t>(tokens));
    const auto chunk = static_cast<size_t>(options_.model.chunk);
    size_t at = 0;
    for (; ids.size() - at > chunk; at += chunk) runtime_.Read(sequence, ids.subspan(at, chunk));
    runtime_.Forward(sequence, ids.subspan(at));
  }

  // All sequences of a batch hold `depth` tokens; what they decoded the last time is forgotten.
  std::vector<Sequence>& Filled(const BenchRun& run) {
    std::vector<Sequence>& sequences = sequences_[{run.depth, run.batch}];
    while (static_cast<int64_t>(sequences.size()) < run.batch) {
      sequences.push_back(runtime_.NewSequence());
      ReadPrompt(sequences.back(), run.depth);
    }
    for (Sequence& sequence : sequences) sequence.Truncate(run.depth);
    return sequences;
  }

  void Decode(std::vector<Sequence>& sequences, int64_t tokens) {
    std::vector<Part> parts(sequences.size());
    for (int64_t i = 0; i < tokens; ++i) {
      for (size_t k = 0; k < sequences.size(); ++k) {
        parts[k].sequence = &sequences[k];
        parts[k].ids =
            std::span<const int64_t>(ids_).subspan((static_cast<size_t>(i) + k) % ids_.size(), 1);
      }
      runtime_.Forward(parts);
    }
  }

  // The limits of a round are the larger ones of those measured before and behind.
  void Measure(BenchRun& run, std::vector<NodeCost>& of_nodes) {
    std::vector<Sequence>* sequences = run.kind == "decode" ? &Filled(run) : nullptr;
    std::vector<Sequence> prompt;
    double flops = Flops(), bandwidth = Read();
    std::fill(costs_.begin(), costs_.end(), NodeCost());
    Communicator* ranks = how_.ranks;
    const Traffic before = ranks == nullptr ? Traffic() : ranks->traffic();
    const double start = Now();
    if (sequences == nullptr) {
      prompt.push_back(runtime_.NewSequence());
      ReadPrompt(prompt.back(), run.tokens);
    } else {
      Decode(*sequences, run.tokens);
    }
    const double seconds = Now() - start;
    const auto& batches = options_.batches;
    if (sequences == nullptr && std::find(batches.begin(), batches.end(), 1) != batches.end()) {
      sequences_.try_emplace({run.tokens, 1}, std::move(prompt));  // what is decoded goes on here
    }
    run.seconds.push_back(seconds);
    if (ranks != nullptr) run.traffic = ranks->traffic() - before;
    for (size_t i = 0; i < of_nodes.size(); ++i) {
      of_nodes[i].seconds += costs_[i].seconds;
      of_nodes[i].traffic = costs_[i].traffic;  // the same in each round
    }
    flops = std::max(flops, Flops());
    bandwidth = std::max(bandwidth, Read());
    const double reading = run.work.bytes / bandwidth;
    run.bound_by_memory = flops == 0 ? run.kind == "decode" : reading > run.work.flops / flops;
    if (flops == 0 && !run.bound_by_memory) return;
    run.shares.push_back((run.bound_by_memory ? reading : run.work.flops / flops) / seconds);
  }

  void Share(BenchRun& run, const std::vector<NodeCost>& of_nodes) const {
    std::map<std::string, double> groups;
    double total = 0, nodes = 0;
    for (const double seconds : run.seconds) total += seconds;
    const int first_layer =
        std::find_if(share_.nodes.begin(), share_.nodes.end(), [](const Node& node) {
          return node.layer >= 0;
        })->layer;
    for (size_t i = 0; i < of_nodes.size(); ++i) {
      groups[GroupOf(graph_, share_.nodes[i])] += of_nodes[i].seconds / total;
      nodes += of_nodes[i].seconds;
      if (share_.nodes[i].layer == first_layer) run.layer_traffic += of_nodes[i].traffic;
    }
    groups["between"] = 1 - nodes / total;
    run.operations.assign(groups.begin(), groups.end());
    std::stable_sort(run.operations.begin(), run.operations.end(),
                     [](const auto& a, const auto& b) { return a.second > b.second; });
  }

  const BenchOptions& options_;
  const Checkpoint& checkpoint_;
  const Graph& graph_;
  std::vector<NodeCost> costs_;  // of what is measured now
  const RuntimeOptions how_;
  Runtime runtime_;
  const Graph& share_;  // this rank's
  ThreadPool pool_;     // for the limits; the runtime has its own
  PagedBuffer scratch_;
  std::vector<int64_t> ids_;
  std::map<std::pair<int64_t, int64_t>, std::vector<Sequence>> sequences_;  // by depth and batch
  std::vector<double> read_, flops_;
  std::vector<std::vector<NodeCost>> costs_of_runs_;
  BenchResult result_;
};

void RunBench(const BenchOptions& options) {
  const Checkpoint checkpoint = Checkpoint::Open(ResolveModel(options.model.model));
  const Graph graph = BuildGraph(checkpoint.config());
  RuntimeOptions how = ChosenRuntime(options.model, checkpoint.config());
  JoinRanks(options.model, checkpoint,
            fmt::format("{} {} {} {} {}", options.prompts, options.batches, options.max_tokens,
                        options.rounds, options.exchange_delay_ms),
            how);
  if (options.exchange_delay_ms > 0) {
    if (how.ranks == nullptr) {
      Fail(ErrorCode::kUsage, "--exchange-delay: this is one rank; mpirun -n 2 samebits bench ...");
    }
    DelayExchanges(std::chrono::duration<double, std::milli>(options.exchange_delay_ms));
  }
  std::ofstream plot;  // opened before the minutes of measuring
  if (!options.plot.empty() && IsRootRank()) {
    plot.open(options.plot, std::ios::binary | std::ios::trunc);
  }
  const auto check_plot = [&] {
    if (!plot) Fail(ErrorCode::kIo, "{}: can not be written", options.plot);
  };
  check_plot();
  BenchResult result = Bench(options, checkpoint, graph, how).Run();
  result.exchange_delay_ms = options.exchange_delay_ms;
  if (plot.is_open()) {
    plot << BenchPlot(result);
    plot.close();
    check_plot();
  }
  fmt::print("{}", options.json ? BenchJson(result) : BenchText(result));
  FlushOutput();
}

}  // namespace

Spread SpreadOf(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return {values[values.size() / 2], values.front(), values.back()};
}

Spread BenchRun::Speed() const {
  std::vector<double> speeds;
  speeds.reserve(seconds.size());
  for (const double s : seconds) speeds.push_back(static_cast<double>(tokens * batch) / s);
  return SpreadOf(std::move(speeds));
}

void RegisterBench(CLI::App& app, int&) {
  auto options = std::make_shared<BenchOptions>();
  CLI::App* command =
      app.add_subcommand("bench", "prefill and decode speed against this machine's limits");
  command->footer("Example: samebits bench models/nano --json");
  AddModelOptions(*command, options->model);
  command
      ->add_option("--prompt-tokens", options->prompts,
                   "tokens of the prompts, and before what is decoded; comma separated (default: "
                   "512, or half of the context)")
      ->delimiter(',')
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 31));
  command
      ->add_option("--max-tokens", options->max_tokens,
                   "tokens that are decoded behind it (default: 64, or half of the context)")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 31));
  command
      ->add_option("--batch", options->batches,
                   "sequences that are decoded together; comma separated. More than one: behind 64 "
                   "tokens each")
      ->delimiter(',')
      ->capture_default_str()
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 16));
  command->add_option("--rounds", options->rounds, "measurements; medians are printed")
      ->capture_default_str()
      ->check(CLI::Range(1, 1000));
  command
      ->add_option("--exchange-delay", options->exchange_delay_ms,
                   "under mpirun: milliseconds that each exchange takes longer, as on a slower "
                   "network")
      ->check(CLI::Range(0.0, 1000.0));
  command->add_flag("--json", options->json, "one object with limits and runs");
  command->add_option("--plot", options->plot, "a roofline of the runs, as SVG, into this file");
  command->callback([options] { RunBench(*options); });
}

}  // namespace samebits
