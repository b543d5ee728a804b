#include "samebits/engine/batch_generate.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>

#include "samebits/base/error.h"
#include "samebits/engine/answer.h"

namespace samebits {
namespace {

using Clock = std::chrono::steady_clock;

// One of the sequences that run at once.
struct Slot {
  size_t prompt;
  Sequence sequence;
  Answer answer;
  bool answering = false;  // the prompt has been read
  Clock::time_point start, first_token;
  int64_t decode_steps = 0;
};

class Batch {
 public:
  Batch(Runtime& runtime, std::span<const BatchPrompt> prompts, const Tokenizer* tokenizer,
        const BatchOptions& options, const BatchEvents& events)
      : runtime_(runtime),
        prompts_(prompts),
        tokenizer_(tokenizer),
        options_(options),
        events_(events),
        prefix_(runtime.NewSequence()) {}

  bool Run() {
    if (options_.share_prefix && prompts_.size() > 1 && !ReadPrefix()) return false;
    while (true) {
      Refill();
      if (slots_.empty()) return true;
      if (Interrupted()) return false;
      Step();
      if (events_.step) events_.step();
    }
  }

 private:
  bool Interrupted() const {
    return events_.interrupted != nullptr && events_.interrupted->load(std::memory_order_relaxed);
  }

  // False when it was interrupted.
  bool ReadPrefix() {
    const int64_t length = SharedPrefix(prompts_);
    while (prefix_.length() < length) {
      if (Interrupted()) return false;
      const int64_t count = std::min(options_.generation.chunk, length - prefix_.length());
      runtime_.Read(prefix_, std::span(prompts_[0].ids).subspan(prefix_.length(), count));
    }
    return true;
  }

  void Refill() {
    while (static_cast<int64_t>(slots_.size()) < options_.batch && next_ < prompts_.size()) {
      const BatchPrompt& prompt = prompts_[next_];
      GenerationOptions generation = options_.generation;
      generation.sampling.seed = prompt.seed;
      slots_.push_back(
          std::make_unique<Slot>(Slot{next_,
                                      prefix_,
                                      Answer(prompt.ids, tokenizer_, generation, no_events_),
                                      /*answering=*/false,
                                      Clock::now(),
                                      {}}));
      // Forgets the prefix where the prompt's length changes its bits (dynamic rope).
      slots_.back()->sequence.Plan(static_cast<int64_t>(prompt.ids.size()));
      ++next_;
    }
  }

  // One forward pass: a token of every answer, and of prompts what the chunk has room for.
  void Step() {
    std::vector<Part> parts;
    std::vector<Slot*> running;
    int64_t room = options_.generation.chunk;
    for (const std::unique_ptr<Slot>& slot : slots_) {
      std::span<const int64_t> ids;
      if (slot->answering) {
        ids = slot->answer.Last();
        ++slot->decode_steps;
      } else {
        const std::vector<int64_t>& prompt = prompts_[slot->prompt].ids;
        const int64_t at = slot->sequence.length();
        ids =
            std::span(prompt).subspan(at, std::min(room, static_cast<int64_t>(prompt.size()) - at));
        room -= static_cast<int64_t>(ids.size());
      }
      if (ids.empty()) continue;  // waits for its turn
      parts.push_back({&slot->sequence, ids});
      running.push_back(slot.get());
    }
    const TensorView& logits = runtime_.Forward(parts);  // [parts, V]
    TensorView row = logits;
    row.shape[0] = 1;
    for (size_t i = 0; i < running.size(); ++i, row.data += row.bytes()) {
      Slot& slot = *running[i];
      if (slot.sequence.length() < static_cast<int64_t>(prompts_[slot.prompt].ids.size())) continue;
      if (!slot.answering) slot.first_token = Clock::now();
      slot.answering = true;
      if (!slot.answer.Next(row, slot.sequence.length())) Finish(slot);
    }
    std::erase_if(slots_, [](const std::unique_ptr<Slot>& slot) { return slot == nullptr; });
  }

  // Hands the answer out and frees the slot.
  void Finish(Slot& slot) {
    Generation answer = slot.answer.Finish();
    answer.prefill_s = std::chrono::duration<double>(slot.first_token - slot.start).count();
    answer.decode_s = std::chrono::duration<double>(Clock::now() - slot.first_token).count();
    answer.decode_steps = slot.decode_steps;
    const size_t prompt = slot.prompt;
    std::find_if(slots_.begin(), slots_.end(), [&](const auto& s) {
      return s.get() == &slot;
    })->reset();
    events_.done(prompt, answer);
  }

  Runtime& runtime_;
  const std::span<const BatchPrompt> prompts_;
  const Tokenizer* tokenizer_;
  const BatchOptions& options_;
  const BatchEvents& events_;
  const GenerationEvents no_events_;
  Sequence prefix_;  // of all prompts; empty unless shared
  std::vector<std::unique_ptr<Slot>> slots_;
  size_t next_ = 0;  // of the prompts
};

}  // namespace

int64_t SharedPrefix(std::span<const BatchPrompt> prompts) {
  if (prompts.empty()) return 0;
  const std::vector<int64_t>& first = prompts[0].ids;
  auto end = first.end();
  for (const BatchPrompt& prompt : prompts) {
    end = std::mismatch(first.begin(), end, prompt.ids.begin(), prompt.ids.end()).first;
    const auto most = std::max<int64_t>(static_cast<int64_t>(prompt.ids.size()) - 1, 0);
    end = std::min(end, first.begin() + most);
  }
  return end - first.begin();
}

bool GenerateBatch(Runtime& runtime, std::span<const BatchPrompt> prompts,
                   const Tokenizer* tokenizer, const BatchOptions& options,
                   const BatchEvents& events) {
  SAMEBITS_CHECK(options.batch > 0 && options.generation.chunk > 0, "something at a time");
  return Batch(runtime, prompts, tokenizer, options, events).Run();
}

}  // namespace samebits
