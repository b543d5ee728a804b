#include "samebits/engine/answer.h"

#include <algorithm>

namespace samebits {

Answer::Answer(std::span<const int64_t> prompt, const Tokenizer* tokenizer,
               const GenerationOptions& options, const GenerationEvents& events)
    : options_(options),
      events_(events),
      context_(prompt.begin(), prompt.end()),
      filter_(options.stop_texts) {
  if (tokenizer != nullptr) stream_.emplace(*tokenizer);
  if (options.torch_softmax) torch_.emplace(options.sampling, *options.torch_softmax);
}

bool Answer::Next(const TensorView& logits, int64_t length) {
  const auto step = static_cast<int64_t>(result_.ids.size());
  const int64_t id = torch_ ? torch_->Next(logits, context_)
                            : SampleToken(logits, options_.sampling, step, context_);
  context_.push_back(id);
  if (options_.top_log_probs >= 0) {
    result_.log_probs.push_back(TokenLogProbs(logits, id, options_.top_log_probs));
  }
  if (!Add(id)) return false;
  return length < options_.max_length || Stop(StopReason::kContext);
}

bool Answer::Add(int64_t id) {
  result_.ids.push_back(id);
  if (events_.token) events_.token(id);
  const std::vector<int64_t>& stops = options_.stop_ids;
  if (std::find(stops.begin(), stops.end(), id) != stops.end()) {
    return Stop(StopReason::kEosToken);
  }
  if (stream_) Show(filter_.Add(stream_->Add(id)));
  if (filter_.found()) return Stop(StopReason::kStopText);
  return static_cast<int64_t>(result_.ids.size()) < options_.max_tokens ||
         Stop(StopReason::kMaxTokens);
}

bool Answer::Stop(StopReason reason) {
  result_.stop_reason = reason;
  return false;
}

void Answer::Show(const std::string& text) {
  if (text.empty()) return;
  result_.text += text;
  if (events_.text) events_.text(text);
}

Generation Answer::Finish() {
  if (stream_) {
    Show(filter_.Add(stream_->Finish()));
    Show(filter_.Finish());
  }
  return std::move(result_);
}

}  // namespace samebits
