// One answer as it grows: chooses the next token from the logits, turns tokens into text and
// events, decides when it ends. Knows no runtime: Generate() and GenerateBatch() feed it.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "samebits/engine/generate.h"
#include "samebits/engine/torch_sampler.h"

namespace samebits {

class Answer {
 public:
  // Keeps copies of the prompt and the options; `tokenizer` (null: no text) and `events` must
  // outlive it. Throws Error(kUsage) as TorchSampler does.
  Answer(std::span<const int64_t> prompt, const Tokenizer* tokenizer,
         const GenerationOptions& options, const GenerationEvents& events);

  // Chooses a token. logits: [1, V], of the last token that the sequence holds; `length`: how many
  // it holds. False when the answer has ended, otherwise Last() is to be fed. Throws as
  // SampleToken and TorchSampler::Next do.
  bool Next(const TensorView& logits, int64_t length);
  std::span<const int64_t> Last() const { return {&context_.back(), 1}; }

  void Interrupt() { Stop(StopReason::kInterrupted); }

  // With the text that was held back; ends the answer's use. Times are the caller's.
  Generation Finish();

 private:
  bool Add(int64_t id);
  bool Stop(StopReason reason);  // false
  void Show(const std::string& text);

  const GenerationOptions options_;
  const GenerationEvents& events_;
  std::vector<int64_t> context_;  // prompt and answer
  std::optional<TorchSampler> torch_;
  std::optional<TextStream> stream_;
  StopFilter filter_;
  Generation result_;
};

}  // namespace samebits
