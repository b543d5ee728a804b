#include "samebits/engine/generate.h"

#include <algorithm>
#include <chrono>

#include "samebits/base/error.h"
#include "samebits/engine/torch_sampler.h"

namespace samebits {
namespace {

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

bool Contains(const std::vector<int64_t>& ids, int64_t id) {
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

bool Interrupted(const GenerationEvents& events) {
  return events.interrupted != nullptr && events.interrupted->load(std::memory_order_relaxed);
}

}  // namespace

std::string_view StopReasonName(StopReason reason) {
  switch (reason) {
    case StopReason::kEosToken:
      return "eos_token";
    case StopReason::kStopText:
      return "stop_text";
    case StopReason::kMaxTokens:
      return "max_tokens";
    case StopReason::kContext:
      return "context";
    case StopReason::kInterrupted:
      return "interrupted";
  }
  return "";
}

StopFilter::StopFilter(std::vector<std::string> stop_texts) {
  for (std::string& text : stop_texts) {
    if (!text.empty()) stops_.push_back(std::move(text));
  }
}

std::string StopFilter::Add(std::string_view text) {
  if (found_) return "";
  held_ += text;
  size_t end = std::string::npos;
  for (const std::string& stop : stops_) end = std::min(end, held_.find(stop));
  if (end != std::string::npos) {
    found_ = true;
    std::string shown = held_.substr(0, end);
    held_.clear();
    return shown;
  }
  // The longest end of the text that some stop text begins with has to wait.
  size_t wait = 0;
  for (const std::string& stop : stops_) {
    for (size_t n = std::min(stop.size() - 1, held_.size()); n > wait; --n) {
      if (held_.ends_with(std::string_view(stop).substr(0, n))) wait = n;
    }
  }
  std::string shown = held_.substr(0, held_.size() - wait);
  held_.erase(0, shown.size());
  return shown;
}

std::string StopFilter::Finish() { return found_ ? "" : std::exchange(held_, ""); }

namespace {

// What becomes of the tokens: text, events, the decision to stop.
class Answer {
 public:
  Answer(const Tokenizer* tokenizer, const GenerationOptions& options,
         const GenerationEvents& events, Generation& result)
      : options_(options), events_(events), result_(result), filter_(options.stop_texts) {
    if (tokenizer != nullptr) stream_.emplace(*tokenizer);
  }

  // False when this token ends the answer.
  bool Add(int64_t id) {
    result_.ids.push_back(id);
    if (events_.token) events_.token(id);
    if (Contains(options_.stop_ids, id)) return Stop(StopReason::kEosToken);
    if (stream_) Show(filter_.Add(stream_->Add(id)));
    if (filter_.found()) return Stop(StopReason::kStopText);
    if (static_cast<int64_t>(result_.ids.size()) >= options_.max_tokens) {
      return Stop(StopReason::kMaxTokens);
    }
    return true;
  }

  bool Stop(StopReason reason) {
    result_.stop_reason = reason;
    return false;
  }

  void Finish() {
    if (!stream_) return;
    Show(filter_.Add(stream_->Finish()));
    Show(filter_.Finish());
  }

 private:
  void Show(const std::string& text) {
    if (text.empty()) return;
    result_.text += text;
    if (events_.text) events_.text(text);
  }

  const GenerationOptions& options_;
  const GenerationEvents& events_;
  Generation& result_;
  std::optional<TextStream> stream_;
  StopFilter filter_;
};

}  // namespace

Generation Generate(Runtime& runtime, Sequence& sequence, std::span<const int64_t> prompt,
                    const Tokenizer* tokenizer, const GenerationOptions& options,
                    const GenerationEvents& events) {
  Generation result;
  const auto total = static_cast<int64_t>(prompt.size());
  sequence.Plan(total);
  SAMEBITS_CHECK(sequence.length() < total && options.chunk > 0, "something left to read");
  const auto start = Clock::now();
  const TensorView* logits = nullptr;
  while (sequence.length() < total) {
    const int64_t at = sequence.length();
    if (events.prefill) events.prefill(at, total);
    if (Interrupted(events)) {
      result.stop_reason = StopReason::kInterrupted;
      return result;
    }
    logits = &runtime.Forward(sequence, prompt.subspan(at, std::min(options.chunk, total - at)));
  }
  if (events.prefill) events.prefill(total, total);
  result.prefill_s = SecondsSince(start);

  const auto begin = Clock::now();
  Answer answer(tokenizer, options, events, result);
  std::vector<int64_t> seen(prompt.begin(), prompt.end());
  std::optional<TorchSampler> torch;
  if (options.torch_softmax) torch.emplace(options.sampling, *options.torch_softmax);
  while (true) {
    const auto step = static_cast<int64_t>(result.ids.size());
    const int64_t id =
        torch ? torch->Next(*logits, seen) : SampleToken(*logits, options.sampling, step, seen);
    seen.push_back(id);
    if (options.top_log_probs >= 0) {
      result.log_probs.push_back(TokenLogProbs(*logits, id, options.top_log_probs));
    }
    if (!answer.Add(id)) break;
    if (Interrupted(events)) {
      answer.Stop(StopReason::kInterrupted);
      break;
    }
    if (sequence.length() >= options.max_length) {
      answer.Stop(StopReason::kContext);
      break;
    }
    logits = &runtime.Forward(sequence, std::span(&id, 1));
    ++result.decode_steps;
  }
  answer.Finish();
  result.decode_s = SecondsSince(begin);
  return result;
}

}  // namespace samebits
