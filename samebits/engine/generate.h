// From a prompt to an answer: reads the prompt in chunks, then chooses token after token until a
// stop token, a stop text, the limit or the end of the context. Left out: what a chat is
// (text/chat_template.h), printing.
#pragma once

#include <atomic>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "samebits/engine/runtime.h"
#include "samebits/engine/sampler.h"
#include "samebits/numerics/torch_functions.h"
#include "samebits/text/tokenizer.h"

namespace samebits {

struct GenerationOptions {
  SamplingOptions sampling;
  int64_t max_tokens = 512;
  std::vector<int64_t> stop_ids;
  std::vector<std::string> stop_texts;  // the answer ends before the first of them
  int64_t max_length = 0;               // of prompt and answer: the model's context
  int64_t chunk = 512;                  // tokens of the prompt that are computed at once
  int64_t top_log_probs = -1;           // -1: no log-probs; else of the chosen and so many others
  // Given: tokens are chosen as transformers' generate does on torch's CPU (torch_sampler.h), from
  // this softmax; not: by our own sampler.
  std::optional<SoftmaxFunction> torch_softmax;
};

struct GenerationEvents {
  std::function<void(std::string_view text)> text;           // whole characters, as they come
  std::function<void(int64_t id)> token;                     // every token, stop tokens too
  std::function<void(int64_t done, int64_t total)> prefill;  // tokens of the prompt read so far
  const std::atomic<bool>* interrupted = nullptr;            // looked at between tokens
};

enum class StopReason { kEosToken, kStopText, kMaxTokens, kContext, kInterrupted };
std::string_view StopReasonName(StopReason reason);  // "eos_token"

struct Generation {
  std::vector<int64_t> ids;  // with the stop token
  std::string text;          // without special tokens; what all text events together gave
  StopReason stop_reason = StopReason::kMaxTokens;
  std::vector<LogProbs> log_probs;  // one a token, when asked for
  double prefill_s = 0, decode_s = 0;
  int64_t decode_steps = 0;  // forward passes of one token
};

// `prompt` is the whole text from its first token on; `sequence` holds the beginning of it
// (computed before, or nothing) and at most all but the last token. The rest is read, then the
// answer is appended; the last token chosen is not fed. Without a tokenizer there is no text.
// Throws as Runtime::Forward does.
Generation Generate(Runtime& runtime, Sequence& sequence, std::span<const int64_t> prompt,
                    const Tokenizer* tokenizer, const GenerationOptions& options,
                    const GenerationEvents& events = {});

// Cuts a stream of text before the first stop text, and holds back what may become one.
class StopFilter {
 public:
  explicit StopFilter(std::vector<std::string> stop_texts);  // empty ones are left out

  // The text that can be shown now. Once a stop text was met, found() holds and nothing follows.
  std::string Add(std::string_view text);
  std::string Finish();  // what was held back
  bool found() const { return found_; }

 private:
  std::vector<std::string> stops_;
  std::string held_;
  bool found_ = false;
};

// Settings of generation_config.json that a command line may override.
struct GenerationDefaults {
  SamplingOptions sampling;           // greedy unless do_sample; top_k then 50 as in transformers
  std::optional<int64_t> max_tokens;  // max_new_tokens
  std::vector<int64_t> stop_ids;      // its eos_token_id, else config.json's
  std::vector<std::string> left_out;  // settings that would change the text and are not done here
};

// folder/generation_config.json, which may be missing. Throws Error(kBadInput).
GenerationDefaults ReadGenerationDefaults(const std::string& folder, const ModelConfig& config);

}  // namespace samebits
