// samebits bench: how fast a prompt is read and how fast tokens are decoded, each beside what this
// machine can do at most, measured in turns in the same run.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "apps/samebits/commands.h"
#include "apps/samebits/model_options.h"
#include "samebits/base/error.h"
#include "samebits/base/json.h"
#include "samebits/checkpoint/hub_cache.h"
#include "samebits/kernels/limits.h"

namespace samebits {
namespace {

struct BenchOptions {
  ModelOptions model;
  int64_t prompt_tokens = 0, max_tokens = 0;  // 0: 512 and 64, less where the context is short
  int rounds = 5;
  bool json = false;
};

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

struct Spread {
  double median = 0, min = 0, max = 0;
};

Spread SpreadOf(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return {values[values.size() / 2], values.front(), values.back()};
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

// Multiplications and additions of linear layers and attention for a prompt; the logits are those
// of the last token of each chunk.
double PrefillFlops(const Graph& graph, int64_t tokens, int64_t chunk) {
  double flops = 0;
  for (const Node& node : graph.nodes) {
    const Attributes& a = node.attributes;
    if (node.kind == OpKind::kLinear) {
      const int64_t rows = &node == &graph.nodes.back() ? (tokens + chunk - 1) / chunk : tokens;
      flops += 2.0 * static_cast<double>(rows) * static_cast<double>(a.in_features) *
               static_cast<double>(a.out_features);
    } else if (node.kind == OpKind::kAttention) {
      double keys = 0;
      for (int64_t t = 0; t < tokens; ++t) keys += static_cast<double>(Seen(a, t));
      flops += 4.0 * keys * static_cast<double>(a.heads * a.head_dim);
    }
  }
  return flops;
}

// Bytes that one decoded token has to read: all weights (of the embedding one row; tied weights are
// read as the head's), and keys and values up to its position.
double DecodeBytes(const Graph& graph, const Checkpoint& checkpoint, DType dtype,
                   int64_t position) {
  double bytes = 0;
  for (const Node& node : graph.nodes) {
    const Attributes& a = node.attributes;
    for (const std::string& name : node.weights) {
      const TensorView& weight = checkpoint.Get(name);
      const int64_t rows = node.kind == OpKind::kEmbedding ? weight.shape[0] : 1;
      const int64_t read = weight.bytes() / rows;  // exact: a row is whole bytes
      bytes += static_cast<double>(read);
    }
    if (node.kind == OpKind::kAttention) {
      bytes +=
          static_cast<double>(2 * a.kv_heads * a.head_dim * DTypeSize(dtype) * Seen(a, position));
    }
  }
  return bytes;
}

struct Measured {
  int64_t tokens = 0;
  double work = 0;                      // flops of the prompt; bytes a token
  std::vector<double> seconds, shares;  // shares stay empty when the limit is not known
  Spread Speed() const {
    std::vector<double> speeds;
    speeds.reserve(seconds.size());
    for (double s : seconds) speeds.push_back(static_cast<double>(tokens) / s);
    return SpreadOf(std::move(speeds));
  }
};

struct Result {
  RuntimeOptions how;
  std::vector<double> read_bytes_per_s, flops_per_s;
  Measured prefill, decode;
};

class Bench {
 public:
  Bench(const BenchOptions& options, const Checkpoint& checkpoint, const Graph& graph)
      : options_(options),
        graph_(graph),
        how_(ChosenRuntime(options.model, checkpoint.config())),
        runtime_(graph, checkpoint, how_),
        sequence_(runtime_.NewSequence()),
        pool_(how_.threads),
        scratch_(ScratchBytes()) {
    result_.how = how_;
    const int64_t context = checkpoint.config().context_length;
    const auto tokens = [context](int64_t asked, int64_t usual) {
      return asked > 0 ? asked : std::max<int64_t>(1, std::min(usual, context / 2));
    };
    result_.prefill.tokens = tokens(options.prompt_tokens, 512);
    result_.decode.tokens = tokens(options.max_tokens, 64);
    ids_ =
        RandomIds(result_.prefill.tokens + result_.decode.tokens, checkpoint.config().vocab_size);
    CheckIds(ids_, checkpoint.config());
    result_.prefill.work = PrefillFlops(graph, result_.prefill.tokens, options.model.chunk);
    result_.decode.work = DecodeBytes(graph, checkpoint, how_.dtype,
                                      result_.prefill.tokens + result_.decode.tokens / 2);
  }

  Result Run() {
    Progress("reading the weights");
    runtime_.Forward(sequence_, std::span(ids_).first(1));
    for (int round = 0; round < options_.rounds; ++round) {
      Progress(fmt::format("round {} of {}", round + 1, options_.rounds));
      Round();
    }
    Progress("");
    return std::move(result_);
  }

 private:
  static void Progress(const std::string& text) {
    if (isatty(STDERR_FILENO) != 0) fmt::print(stderr, "\r\033[K{}", text);
  }

  double Flops() {
    const double flops = PeakFlops(how_.isa, how_.dtype == DType::kBF16, pool_);
    result_.flops_per_s.push_back(flops);
    return flops;
  }
  double Read() {
    const double bytes = ReadBandwidth(scratch_, pool_);
    result_.read_bytes_per_s.push_back(bytes);
    return bytes;
  }

  // The limit is the larger one of those measured before and behind.
  void Round() {
    const std::span<const int64_t> ids = ids_;
    sequence_.Truncate(0);
    sequence_.Plan(result_.prefill.tokens);
    double limit = Flops();
    double start = Now();
    for (int64_t at = 0; at < result_.prefill.tokens; at += options_.model.chunk) {
      const int64_t count = std::min(options_.model.chunk, result_.prefill.tokens - at);
      runtime_.Forward(sequence_, ids.subspan(static_cast<size_t>(at), static_cast<size_t>(count)));
    }
    result_.prefill.seconds.push_back(Now() - start);
    limit = std::max(limit, Flops());
    if (limit > 0) {
      result_.prefill.shares.push_back(result_.prefill.work / result_.prefill.seconds.back() /
                                       limit);
    }
    limit = Read();
    start = Now();
    for (int64_t i = 0; i < result_.decode.tokens; ++i) {
      runtime_.Forward(sequence_, ids.subspan(static_cast<size_t>(result_.prefill.tokens + i), 1));
    }
    result_.decode.seconds.push_back(Now() - start);
    limit = std::max(limit, Read());
    result_.decode.shares.push_back(result_.decode.work *
                                    static_cast<double>(result_.decode.tokens) /
                                    result_.decode.seconds.back() / limit);
  }

  const BenchOptions& options_;
  const Graph& graph_;
  const RuntimeOptions how_;
  Runtime runtime_;
  Sequence sequence_;
  ThreadPool pool_;  // for the limits; the runtime has its own
  PagedBuffer scratch_;
  std::vector<int64_t> ids_;
  Result result_;
};

Json Entry(const Measured& measured, const char* work) {
  const Spread speed = measured.Speed();
  Json json = {{"tokens", measured.tokens},
               {"tokens_per_s", speed.median},
               {"tokens_per_s_min", speed.min},
               {"tokens_per_s_max", speed.max},
               {"seconds", SpreadOf(measured.seconds).median},
               {work, measured.work},
               {"share_of_limit", nullptr},
               {"share_of_limit_min", nullptr},
               {"share_of_limit_max", nullptr}};
  if (!measured.shares.empty()) {
    const Spread share = SpreadOf(measured.shares);
    json["share_of_limit"] = share.median;
    json["share_of_limit_min"] = share.min;
    json["share_of_limit_max"] = share.max;
  }
  return json;
}

void PrintRow(const char* name, const Measured& measured, const char* limit) {
  const Spread speed = measured.Speed();
  fmt::print("{:<8} {:>6} {:>10.2f} {:>8.2f} to {:<8.2f}", name, measured.tokens, speed.median,
             speed.min, speed.max);
  if (!measured.shares.empty()) {
    const Spread share = SpreadOf(measured.shares);
    fmt::print(" {:>4.0f} % of the {} ({:.0f} to {:.0f})", 100 * share.median, limit,
               100 * share.min, 100 * share.max);
  }
  fmt::print("\n");
}

void RunBench(const BenchOptions& options) {
  const Checkpoint checkpoint = Checkpoint::Open(ResolveModel(options.model.model));
  const Graph graph = BuildGraph(checkpoint.config());
  const Result result = Bench(options, checkpoint, graph).Run();
  const Spread read = SpreadOf(result.read_bytes_per_s), flops = SpreadOf(result.flops_per_s);
  if (options.json) {
    const Json json = {
        {"model", options.model.model},
        {"dtype", ModelDTypeName(result.how.dtype)},
        {"cpu", {{"isa", IsaName(result.how.isa)}, {"name", CpuName()}}},
        {"threads", result.how.threads},
        {"rounds", options.rounds},
        {"limits", {{"read_bytes_per_s", read.median}, {"flops_per_s", flops.median}}},
        {"prefill", Entry(result.prefill, "flops")},
        {"decode", Entry(result.decode, "bytes_per_token")}};
    fmt::print("{}\n", json.dump(2, ' ', false, Json::error_handler_t::replace));
  } else {
    fmt::print("{}: {}, {} threads, {} on {}\n", options.model.model,
               ModelDTypeName(result.how.dtype), result.how.threads, IsaName(result.how.isa),
               CpuName());
    fmt::print("limits: memory is read at {:.1f} GB/s; {:.0f} GFLOP/s\n", read.median / 1e9,
               flops.median / 1e9);
    fmt::print("         tokens   tokens/s  slowest to fastest of {} rounds\n", options.rounds);
    PrintRow("prefill", result.prefill, "arithmetic");
    PrintRow("decode", result.decode, "memory bandwidth");
  }
  FlushOutput();
}

}  // namespace

void RegisterBench(CLI::App& app, int&) {
  auto options = std::make_shared<BenchOptions>();
  CLI::App* command =
      app.add_subcommand("bench", "prefill and decode speed against this machine's limits");
  command->footer("Example: samebits bench models/nano --json");
  AddModelOptions(*command, options->model);
  command
      ->add_option("--prompt-tokens", options->prompt_tokens,
                   "tokens of the prompt (default: 512, or half of the context)")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 31));
  command
      ->add_option("--max-tokens", options->max_tokens,
                   "tokens that are decoded behind it (default: 64, or half of the context)")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 31));
  command->add_option("--rounds", options->rounds, "measurements; medians are printed")
      ->capture_default_str()
      ->check(CLI::Range(1, 1000));
  command->add_flag("--json", options->json, "one object with limits, prefill and decode");
  command->callback([options] { RunBench(*options); });
}

}  // namespace samebits
