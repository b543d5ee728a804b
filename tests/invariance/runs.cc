#include "tests/invariance/runs.h"

#include <algorithm>
#include <cstring>

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
  const TensorView* logits = nullptr;
  const auto total = static_cast<int64_t>(prompt.size());
  for (int64_t at = 0; at < total; at += way.chunk) {
    const auto count = static_cast<size_t>(std::min(way.chunk, total - at));
    logits = &runtime.Forward(sequence, std::span(prompt).subspan(static_cast<size_t>(at), count),
                              recorder);
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

Outcome RunWay(const Graph& graph, const Checkpoint& checkpoint, DType dtype, const Way& way,
               const std::vector<int64_t>& prompt, int64_t steps, bool record) {
  Outcome outcome;
  const RuntimeOptions options{dtype, way.isa, way.threads};
  const auto generate = [&](const SamplingOptions& sampling, Recorder* recorder,
                            std::vector<int64_t>& ids,
                            std::vector<std::vector<std::byte>>& all_logits) {
    Runtime runtime(graph, checkpoint, options);
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
    MemoryRecorder recorder(graph, dtype, static_cast<int64_t>(prompt.size()) + steps);
    generate({}, &recorder, outcome.greedy, outcome.logits);
    outcome.tensors = std::move(recorder).Take();
  } else {
    generate({}, nullptr, outcome.greedy, outcome.logits);
    generate({.temperature = 0.9, .top_k = 50, .top_p = 0.95, .seed = 3}, nullptr, outcome.sampled,
             outcome.sampled_logits);
  }
  return outcome;
}

void ForVisible(const std::string& name, const Tensor& tensor,
                const std::function<void(int64_t offset, int64_t count)>& fn) {
  if (!name.ends_with(".scores")) return fn(0, tensor.elements());
  const int64_t heads = tensor.shape()[0], tokens = tensor.shape()[1];
  for (int64_t head = 0; head < heads; ++head) {
    for (int64_t t = 0; t < tokens; ++t) fn((head * tokens + t) * tokens, t + 1);
  }
}

}  // namespace samebits
