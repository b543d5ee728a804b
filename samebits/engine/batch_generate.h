// Many answers, several at once: each finished one is replaced at once by the next of the queue
// (continuous batching), and prompts are read in the same passes in which other answers grow. In
// `canonical` arithmetic an answer is what Generate() gives for it alone, whatever runs beside it;
// a replay has the bits of a reference that computed one sequence, so it needs a batch of 1.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "samebits/engine/generate.h"

namespace samebits {

struct BatchPrompt {
  std::vector<int64_t> ids;  // from the first token on
  uint64_t seed = 0;         // in place of the options' own
};

struct BatchOptions {
  GenerationOptions generation;
  int64_t batch = 16;        // sequences at once
  bool share_prefix = true;  // what all prompts begin with is computed once and copied
};

struct BatchEvents {
  // An answer that has ended, in the order in which they end. Its times are those of the clock:
  // prefill_s until its first token was chosen, decode_s from then on, with all that ran beside it.
  std::function<void(size_t prompt, const Generation& answer)> done;
  std::function<void()> step;                      // behind every forward pass
  const std::atomic<bool>* interrupted = nullptr;  // looked at before every forward pass
};

// The tokens that all prompts begin with: at most all but the last of the shortest one.
int64_t SharedPrefix(std::span<const BatchPrompt> prompts);

// Answers the prompts in their order. False when it was interrupted: the answers that had not ended
// are dropped. In one pass at most generation.chunk tokens of prompts are read, over all sequences.
// Throws as Runtime::Forward does.
bool GenerateBatch(Runtime& runtime, std::span<const BatchPrompt> prompts,
                   const Tokenizer* tokenizer, const BatchOptions& options,
                   const BatchEvents& events);

}  // namespace samebits
