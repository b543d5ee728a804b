#include "tests/invariance/runs.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include "samebits/base/error.h"
#include "samebits/engine/sampler.h"

namespace samebits {
namespace {

bool IsSquare(std::string_view name) {
  return name.ends_with(".scores") || name.ends_with(".probs");
}

std::vector<std::byte> Copy(const TensorView& view) {
  return {view.data, view.data + view.bytes()};
}

const TensorView* ReadPrompt(Runtime& runtime, Sequence& sequence, const Way& way,
                             const std::vector<int64_t>& prompt, Recorder* recorder) {
  sequence.Plan(sequence.length() + static_cast<int64_t>(prompt.size()));
  const TensorView* logits = nullptr;
  const auto total = static_cast<int64_t>(prompt.size());
  for (int64_t at = 0; at < total; at += way.chunk) {
    const auto ids = std::span(prompt).subspan(
        static_cast<size_t>(at), static_cast<size_t>(std::min(way.chunk, total - at)));
    if (recorder == nullptr && at + way.chunk < total) {
      runtime.Read(sequence, ids);
    } else {
      logits = &runtime.Forward(sequence, ids, recorder);
    }
  }
  return logits;
}

}  // namespace

MemoryRecorder::MemoryRecorder(const Graph& graph, DType dtype, int64_t tokens) : tokens_(tokens) {
  for (const Node& node : graph.nodes) {
    for (const std::string& name : node.outputs) {
      tensors_.emplace(name, Tensor(dtype, OutputShape(graph, node, name, tokens)));
    }
  }
}

void MemoryRecorder::Record(std::string_view name, const TensorView& rows, int64_t first_token) {
  Tensor& tensor = tensors_.find(name)->second;
  SAMEBITS_CHECK(rows.dtype == tensor.dtype(), std::string(name));
  const int64_t size = DTypeSize(rows.dtype);
  if (!IsSquare(name)) {
    const int64_t row = rows.bytes() / rows.shape[0];
    SAMEBITS_CHECK(first_token * row + rows.bytes() <= tensor.view().bytes(), std::string(name));
    std::memcpy(tensor.data() + first_token * row, rows.data, static_cast<size_t>(rows.bytes()));
    return;
  }
  const int64_t heads = rows.shape[0], count = rows.shape[1], keys = rows.shape[2];
  SAMEBITS_CHECK(first_token + count <= tokens_ && keys <= tokens_, std::string(name));
  for (int64_t head = 0; head < heads; ++head) {
    for (int64_t r = 0; r < count; ++r) {
      std::memcpy(tensor.data() + (head * tokens_ + first_token + r) * tokens_ * size,
                  rows.data + (head * count + r) * keys * size, static_cast<size_t>(keys * size));
    }
  }
}

namespace {

RuntimeOptions OptionsOf(const Subject& subject, const Way& way) {
  RuntimeOptions options{subject.dtype, way.isa, way.threads, subject.replay};
  options.ranks = subject.ranks;
  options.parallel = subject.parallel;
  options.exchange_rows = way.exchange_rows;
  return options;
}

}  // namespace

Outcome RunWay(const Subject& subject, const Way& way, const std::vector<int64_t>& prompt,
               int64_t steps, bool record) {
  Outcome outcome;
  const RuntimeOptions options = OptionsOf(subject, way);
  const auto generate = [&](const SamplingOptions& sampling, Recorder* recorder,
                            std::vector<int64_t>& ids,
                            std::vector<std::vector<std::byte>>& all_logits) {
    Runtime runtime(subject.graph, subject.checkpoint, options);
    Sequence sequence = runtime.NewSequence();
    const TensorView* logits = ReadPrompt(runtime, sequence, way, prompt, recorder);
    all_logits.push_back(Copy(*logits));
    for (int64_t step = 0; step < steps; ++step) {
      ids.push_back(SampleToken(*logits, sampling, step));
      logits = &runtime.Forward(sequence, std::span(&ids.back(), 1), recorder);
      all_logits.push_back(Copy(*logits));
    }
  };
  if (record) {
    MemoryRecorder recorder(subject.graph, subject.dtype,
                            static_cast<int64_t>(prompt.size()) + steps);
    generate({}, &recorder, outcome.greedy, outcome.logits);
    outcome.tensors = std::move(recorder).Take();
  } else {
    generate({}, nullptr, outcome.greedy, outcome.logits);
    SamplingOptions sampling;
    sampling.temperature = 0.9;
    sampling.top_k = 50;
    sampling.top_p = 0.95;
    sampling.seed = 3;
    generate(sampling, nullptr, outcome.sampled, outcome.sampled_logits);
  }
  return outcome;
}

std::vector<Outcome> RunBatch(const Subject& subject, const Way& way,
                              const std::vector<std::vector<int64_t>>& prompts, int64_t steps,
                              bool record) {
  struct Text {
    Sequence sequence;
    std::optional<MemoryRecorder> recorder;
    int64_t at = 0;  // of the prompt
    bool done = false;
  };
  Runtime runtime(subject.graph, subject.checkpoint, OptionsOf(subject, way));
  std::vector<Outcome> outcomes(prompts.size());
  std::vector<Text> texts;
  texts.reserve(prompts.size());
  for (size_t i = 0; i < prompts.size(); ++i) {
    const auto size = static_cast<int64_t>(prompts[i].size());
    texts.push_back({runtime.NewSequence(), {}, 0, false});
    if (record && i % 2 == 0) {
      texts[i].recorder.emplace(subject.graph, subject.dtype, size + steps);
    }
    texts[i].sequence.Plan(size);
    outcomes[i].greedy.reserve(static_cast<size_t>(steps));
  }
  for (int64_t call = 0;; ++call) {
    std::vector<Part> parts;
    std::vector<size_t> which;
    for (size_t i = 0; i < texts.size(); ++i) {
      Text& text = texts[i];
      if (text.done) continue;
      const auto size = static_cast<int64_t>(prompts[i].size());
      const int64_t count = std::min(size - text.at, 1 + (call + 3 * static_cast<int64_t>(i)) % 7);
      const std::span<const int64_t> ids =
          count > 0 ? std::span(prompts[i])
                          .subspan(static_cast<size_t>(text.at), static_cast<size_t>(count))
                    : std::span<const int64_t>(&outcomes[i].greedy.back(), 1);
      text.at += count;
      parts.push_back({&text.sequence, ids, text.recorder ? &*text.recorder : nullptr});
      which.push_back(i);
    }
    if (parts.empty()) break;
    TensorView row = runtime.Forward(parts);
    row.shape[0] = 1;
    for (const size_t i : which) {
      if (texts[i].at == static_cast<int64_t>(prompts[i].size())) {
        const auto chosen = static_cast<int64_t>(outcomes[i].greedy.size());
        outcomes[i].logits.push_back(Copy(row));
        texts[i].done = chosen == steps;
        if (!texts[i].done) outcomes[i].greedy.push_back(SampleToken(row, {}, chosen));
      }
      row.data += row.bytes();
    }
  }
  for (size_t i = 0; i < texts.size(); ++i) {
    if (texts[i].recorder) outcomes[i].tensors = std::move(*texts[i].recorder).Take();
  }
  return outcomes;
}

Outcome RunBehindPrefix(const Subject& subject, const Way& way, const std::vector<int64_t>& other,
                        int64_t kept, const std::vector<int64_t>& prompt, int64_t steps) {
  Runtime runtime(subject.graph, subject.checkpoint, OptionsOf(subject, way));
  Sequence sequence = runtime.NewSequence();
  const TensorView* logits = ReadPrompt(runtime, sequence, way, other, nullptr);
  for (int64_t step = 0; step < 2; ++step) {
    const int64_t id = SampleToken(*logits, {}, step);
    logits = &runtime.Forward(sequence, std::span(&id, 1));
  }
  sequence.Truncate(kept);
  Outcome outcome;
  MemoryRecorder recorder(subject.graph, subject.dtype,
                          static_cast<int64_t>(prompt.size()) + steps);
  logits = ReadPrompt(runtime, sequence, way, {prompt.begin() + kept, prompt.end()}, &recorder);
  outcome.logits.push_back(Copy(*logits));
  for (int64_t step = 0; step < steps; ++step) {
    outcome.greedy.push_back(SampleToken(*logits, {}, step));
    logits = &runtime.Forward(sequence, std::span(&outcome.greedy.back(), 1), &recorder);
    outcome.logits.push_back(Copy(*logits));
  }
  outcome.tensors = std::move(recorder).Take();
  return outcome;
}

void ForVisible(const std::string& name, const Tensor& tensor, int64_t first,
                const std::function<void(int64_t offset, int64_t count)>& fn) {
  if (!IsSquare(name)) {
    const int64_t row = tensor.elements() / tensor.shape()[0];
    return fn(first * row, tensor.elements() - first * row);
  }
  const int64_t heads = tensor.shape()[0], tokens = tensor.shape()[1];
  const bool scores = name.ends_with(".scores");
  for (int64_t head = 0; head < heads; ++head) {
    for (int64_t t = first; t < tokens; ++t) {
      fn((head * tokens + t) * tokens, scores ? t + 1 : tokens);
    }
  }
}

}  // namespace samebits
