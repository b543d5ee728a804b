#include "samebits/evaluate/perplexity.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "samebits/base/error.h"
#include "samebits/compare/logits.h"
#include "samebits/compare/metrics.h"
#include "samebits/engine/recorder.h"

namespace samebits {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr std::string_view kLogits = "lm_head";

// Takes the logits of a window as they come.
class Scorer : public Recorder {
 public:
  Scorer(std::span<const int64_t> ids, const TensorView* recorded)
      : ids_(ids), recorded_(recorded) {}

  // The next window holds the tokens from `begin` to before `end`; those from `first` on are
  // scored.
  void Begin(int64_t begin, int64_t first, int64_t end) {
    begin_ = begin;
    first_ = first;
    end_ = end;
    ++result_.windows;
  }

  bool Wants(std::string_view name) const override { return name == kLogits; }
  void Record(std::string_view /*name*/, const TensorView& rows, int64_t first_token) override {
    for (int64_t i = 0; i < rows.shape[0]; ++i) Row(rows, i, begin_ + first_token + i);
  }

  PerplexityResult Result() {
    result_.tokens = static_cast<int64_t>(ids_.size());
    if (result_.scored > 0) result_.mean_nll = nll_ / static_cast<double>(result_.scored);
    result_.perplexity = std::exp(result_.mean_nll);
    if (recorded_ != nullptr) result_.against = Agreement();
    return result_;
  }
  int64_t scored() const { return result_.scored; }

 private:
  // The row of a token of the text, which predicts the next one.
  void Row(const TensorView& rows, int64_t row, int64_t token) {
    const int64_t next = token + 1;
    if (next < first_) return;
    logits_.resize(static_cast<size_t>(rows.shape[1]));
    ToDoubles(rows, row * rows.shape[1], rows.shape[1], logits_.data());
    const std::optional<double> normalizer = LogNormalizer(logits_);
    if (next < end_) {
      ++result_.scored;
      if (!normalizer) ++result_.without_softmax;
      nll_ += normalizer ? *normalizer - logits_[static_cast<size_t>(ids_[next])] : kInfinity;
    }
    if (recorded_ != nullptr) Compare(RowOf(rows, row), RowOf(*recorded_, token), !normalizer);
  }

  static TensorView RowOf(const TensorView& rows, int64_t row) {
    TensorView one = rows;
    one.shape[0] = 1;
    one.data += one.bytes() * row;
    return one;
  }

  void Compare(const TensorView& ours, const TensorView& theirs, bool unusable) {
    if (unusable || !LogNormalizer(ToDoubles(theirs))) {
      divergences_.push_back(kInfinity);
      return;
    }
    const LogitMetrics metrics = CompareLogits(theirs, ours);
    divergences_.push_back(metrics.kl_max);
    same_top_ += metrics.same_top1;
  }

  LogitAgreement Agreement() const {
    LogitAgreement result;
    result.tokens = static_cast<int64_t>(divergences_.size());
    result.same_top = same_top_;
    std::vector<double> sorted = divergences_;
    std::sort(sorted.begin(), sorted.end());
    result.kl_mean =
        std::accumulate(sorted.begin(), sorted.end(), 0.0) / static_cast<double>(result.tokens);
    result.kl_median = Quantile(sorted, 0.5);
    result.kl_p999 = Quantile(sorted, 0.999);
    result.kl_max = sorted.back();
    if (result.kl_max > 0) {
      result.kl_max_token =
          std::max_element(divergences_.begin(), divergences_.end()) - divergences_.begin();
    }
    return result;
  }

  const std::span<const int64_t> ids_;
  const TensorView* recorded_;
  int64_t begin_ = 0, first_ = 0, end_ = 0;
  std::vector<double> logits_;  // of one row
  double nll_ = 0;
  int64_t same_top_ = 0;
  std::vector<double> divergences_;  // of each token
  PerplexityResult result_;
};

}  // namespace

double Quantile(std::span<const double> sorted, double q) {
  SAMEBITS_CHECK(!sorted.empty() && q > 0 && q <= 1, "a share of some values");
  const auto rank = static_cast<size_t>(std::ceil(q * static_cast<double>(sorted.size())));
  return sorted[std::clamp<size_t>(rank, 1, sorted.size()) - 1];
}

const TensorView& RecordedLogits(const Trace& trace, std::span<const int64_t> ids,
                                 int64_t vocab_size) {
  const std::vector<int64_t>& theirs = trace.info().input_ids;
  if (trace.info().batch > 0) {
    Fail(ErrorCode::kBadInput, "{}: a batch of {} sequences; expected one sequence", trace.path(),
         trace.info().batch);
  }
  const auto differs = std::mismatch(ids.begin(), ids.end(), theirs.begin(), theirs.end());
  if (differs.first != ids.end() || differs.second != theirs.end()) {
    const auto at = differs.first - ids.begin();
    const auto text = [at](auto begin, auto end) {
      return begin + at < end ? fmt::format("id {}", *(begin + at)) : std::string("the end");
    };
    Fail(ErrorCode::kBadInput,
         "{}: input_ids: expected the tokens of the text; token {} is {} there and {} in the text",
         trace.path(), at, text(theirs.begin(), theirs.end()), text(ids.begin(), ids.end()));
  }
  const TensorView* logits = trace.Find(kLogits);
  if (logits == nullptr) {
    Fail(ErrorCode::kBadInput, "{}: tensor 'lm_head': expected the logits, found no such tensor",
         trace.path());
  }
  const Shape expected = {static_cast<int64_t>(ids.size()), vocab_size};
  if (logits->shape != expected || !ComparedAsNumbers(logits->dtype)) {
    Fail(ErrorCode::kBadInput, "{}: tensor 'lm_head': expected {} of floating point, found {} {}",
         trace.path(), ShapeToString(expected), ShapeToString(logits->shape),
         DTypeName(logits->dtype));
  }
  return *logits;
}

PerplexityResult MeasurePerplexity(Runtime& runtime, std::span<const int64_t> ids,
                                   const PerplexityOptions& options, const TensorView* recorded,
                                   const std::function<void(int64_t done)>& progress) {
  const auto total = static_cast<int64_t>(ids.size());
  if (total < 2) Fail(ErrorCode::kUsage, "{} tokens: a perplexity needs at least 2", total);
  SAMEBITS_CHECK(options.window > 1 && options.stride > 0 && options.stride <= options.window &&
                     options.chunk > 0,
                 "windows that cover the text");
  SAMEBITS_CHECK(recorded == nullptr || total <= options.window, "one window for all");
  Scorer scorer(ids, recorded);
  int64_t reached = 0;  // tokens before it are scored, or are the first of their window
  for (int64_t begin = 0; reached < total; begin += options.stride) {
    const int64_t end = std::min(begin + options.window, total);
    const int64_t first = std::max(reached, begin + 1);
    scorer.Begin(begin, first, end);
    Sequence sequence = runtime.NewSequence();
    sequence.Plan(end - begin);
    for (int64_t at = begin; at < end;) {
      const int64_t next = std::min(at + options.chunk, end);
      if (next >= first) {
        runtime.Forward(sequence, ids.subspan(at, next - at), &scorer);
      } else {  // context alone
        runtime.Read(sequence, ids.subspan(at, next - at));
      }
      at = next;
      if (progress) progress(scorer.scored());
    }
    reached = end;
  }
  return scorer.Result();
}

}  // namespace samebits
