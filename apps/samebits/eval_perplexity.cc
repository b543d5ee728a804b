// samebits eval --perplexity.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <chrono>
#include <cmath>

#include "apps/samebits/eval.h"
#include "apps/samebits/progress.h"
#include "apps/samebits/ranks.h"
#include "samebits/base/error.h"
#include "samebits/base/json.h"
#include "samebits/checkpoint/hub_cache.h"
#include "samebits/evaluate/perplexity.h"

namespace samebits {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kMaxBytes = int64_t{1} << 30;
constexpr int64_t kChunk = 128;  // rows of logits in memory: 78 MB for 152 000 tokens in float32

PerplexityOptions ChosenWindows(const EvalOptions& options, const ModelConfig& config,
                                bool replay) {
  PerplexityOptions result;
  result.window = options.window.value_or(config.context_length);
  if (result.window < 2 || result.window > config.context_length) {
    Fail(ErrorCode::kUsage, "--window {}: expected 2 to {}, the model's context", result.window,
         config.context_length);
  }
  result.stride = options.stride.value_or(result.window / 2);
  if (result.stride < 1 || result.stride > result.window) {
    Fail(ErrorCode::kUsage, "--stride {}: expected 1 to {}, the window", result.stride,
         result.window);
  }
  result.chunk = replay ? result.window : std::min(options.model.chunk, kChunk);
  return result;
}

Json Number(double value) { return std::isfinite(value) ? Json(value) : Json("inf"); }

Json ToJson(const LogitAgreement& against) {
  return {{"tokens", against.tokens},
          {"kl_mean", Number(against.kl_mean)},
          {"kl_median", Number(against.kl_median)},
          {"kl_p999", Number(against.kl_p999)},
          {"kl_max", Number(against.kl_max)},
          {"kl_max_token", against.kl_max_token < 0 ? Json(nullptr) : Json(against.kl_max_token)},
          {"same_top", against.same_top}};
}

Json ToJson(const PerplexityResult& result, const PerplexityOptions& windows,
            const RuntimeOptions& how, double seconds) {
  const bool replay = how.replay != nullptr;
  return {{"tokens", result.tokens},
          {"scored", result.scored},
          {"windows", result.windows},
          {"window", windows.window},
          {"stride", windows.stride},
          {"perplexity", Number(result.perplexity)},
          {"mean_nll", Number(result.mean_nll)},
          {"without_softmax", result.without_softmax},
          {"against", result.against ? ToJson(*result.against) : Json(nullptr)},
          {"dtype", ModelDTypeName(how.dtype)},
          {"profile", replay ? Json(how.replay->profile().digest()) : Json(nullptr)},
          {"timings",
           {{"seconds", seconds},
            {"tokens_per_s", seconds > 0 ? static_cast<double>(result.tokens) / seconds : 0}}}};
}

void Print(const PerplexityResult& result, const PerplexityOptions& windows,
           const RuntimeOptions& how) {
  fmt::print("perplexity {:.4f} ({:.6f} nats a token) in {}\n", result.perplexity, result.mean_nll,
             ModelDTypeName(how.dtype));
  fmt::print("{} of {} tokens scored, {} windows of up to {}, stride {}\n", result.scored,
             result.tokens, result.windows, windows.window, windows.stride);
  if (result.without_softmax > 0) {
    fmt::print("{} tokens have logits without a softmax (NaN or infinite)\n",
               result.without_softmax);
  }
  if (!result.against) return;
  const LogitAgreement& a = *result.against;
  fmt::print(
      "against the recorded logits: {} of {} tokens have the same likeliest next one, {:.2f}%\n",
      a.same_top, a.tokens, 100 * static_cast<double>(a.same_top) / static_cast<double>(a.tokens));
  fmt::print("KL divergence in nats: mean {:.3g}, median {:.3g}, 99.9% {:.3g}, max {:.3g}{}\n",
             a.kl_mean, a.kl_median, a.kl_p999, a.kl_max,
             a.kl_max_token < 0 ? "" : fmt::format(" (token {})", a.kl_max_token));
}

}  // namespace

int EvaluatePerplexity(const EvalOptions& options) {
  const std::string folder = ResolveModel(options.model.model);
  const Checkpoint checkpoint = Checkpoint::Open(folder);
  const ModelConfig& config = checkpoint.config();
  const Graph graph = BuildGraph(config);
  RuntimeOptions how = ChosenRuntime(options.model, config);
  how.replay = OpenReplay(options.profile);
  const PerplexityOptions windows = ChosenWindows(options, config, how.replay != nullptr);
  const std::vector<int64_t> ids =
      Tokenizer::Open(folder).Encode(ReadTextFile(options.file, kMaxBytes));
  if (ids.size() < 2) {
    Fail(ErrorCode::kBadInput, "{}: {} tokens; a perplexity needs at least 2", options.file,
         ids.size());
  }
  for (const int64_t& id : ids) CheckIds(std::span(&id, 1), config);
  std::optional<Trace> trace;
  const TensorView* recorded = nullptr;
  if (!options.against.empty()) {
    trace = Trace::Open(options.against);
    recorded = &RecordedLogits(*trace, ids, config.vocab_size);
    if (static_cast<int64_t>(ids.size()) > windows.window) {
      Fail(ErrorCode::kUsage, "--against: {} tokens do not fit in one window of {}", ids.size(),
           windows.window);
    }
  }
  JoinRanks(options.model, checkpoint,
            fmt::format("{} {} {}", windows.window, windows.stride, fmt::join(ids, ",")), how);
  Runtime runtime(graph, checkpoint, how);
  ProgressLine progress;
  PageIn(checkpoint, progress);
  const auto start = Clock::now();
  const PerplexityResult result = MeasurePerplexity(
      // Rank 0 gets the logits, so only it has something to compare.
      runtime, ids, windows, IsRootRank() ? recorded : nullptr,
      [&](int64_t done) { progress.Show(done, static_cast<int64_t>(ids.size()), "tokens"); });
  progress.Clear();
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  if (options.json) {
    fmt::print("{}\n", ToJson(result, windows, how, seconds).dump(2));
  } else {
    Print(result, windows, how);
  }
  FlushOutput();
  return 0;
}

}  // namespace samebits
