#include "samebits/engine/generate.h"

#include <algorithm>
#include <chrono>

#include "samebits/base/error.h"
#include "samebits/engine/answer.h"

namespace samebits {
namespace {

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
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

Generation Generate(Runtime& runtime, Sequence& sequence, std::span<const int64_t> prompt,
                    const Tokenizer* tokenizer, const GenerationOptions& options,
                    const GenerationEvents& events) {
  Answer answer(prompt, tokenizer, options, events);
  const auto total = static_cast<int64_t>(prompt.size());
  sequence.Plan(total);
  SAMEBITS_CHECK(sequence.length() < total && options.chunk > 0, "something left to read");
  const auto start = Clock::now();
  const TensorView* logits = nullptr;
  while (sequence.length() < total) {
    const int64_t at = sequence.length();
    if (events.prefill) events.prefill(at, total);
    if (Interrupted(events)) {
      answer.Interrupt();
      return answer.Finish();
    }
    if (total - at > options.chunk) {
      runtime.Read(sequence, prompt.subspan(at, options.chunk));
    } else {
      logits = &runtime.Forward(sequence, prompt.subspan(at));
    }
  }
  SAMEBITS_CHECK(logits != nullptr, "the last chunk has logits");
  if (events.prefill) events.prefill(total, total);
  const double prefill_s = SecondsSince(start);

  const auto begin = Clock::now();
  int64_t decode_steps = 0;
  while (answer.Next(*logits, sequence.length())) {
    if (Interrupted(events)) {
      answer.Interrupt();
      break;
    }
    logits = &runtime.Forward(sequence, answer.Last());
    ++decode_steps;
  }
  Generation result = answer.Finish();
  result.prefill_s = prefill_s;
  result.decode_s = SecondsSince(begin);
  result.decode_steps = decode_steps;
  return result;
}

}  // namespace samebits
