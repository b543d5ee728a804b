#include "apps/samebits/model_options.h"

#include <fmt/format.h>
#include <unistd.h>

#include <charconv>
#include <cstdio>
#include <span>

#include "samebits/base/error.h"
#include "samebits/text/chat.h"

namespace samebits {

void AddModelOptions(CLI::App& command, ModelOptions& options) {
  command.add_option("MODEL", options.model, "Hugging Face checkpoint folder")->required();
  command.add_option("PROMPT", options.prompt, "text; goes through the model's chat template");
  command.add_option("--ids", options.ids, "token ids instead of text: 1,2,3");
  command.add_flag("--raw", options.raw, "the prompt as it is, without the chat template");
  command.add_option("--dtype", options.dtype,
                     "float32, bfloat16 or float16 (default: the checkpoint's)");
  command.add_option("--cpu", options.cpu,
                     "instruction set: native, avx512bf16, avx512, avx2 or portable; the bits are "
                     "the same");
  command.add_option("--threads", options.threads,
                     "threads (default: one a physical core); the bits are the same");
  command.add_option("--chunk", options.chunk,
                     "tokens of the prompt that are computed at once; the bits are the same");
}

DType ChosenDType(const ModelOptions& options, const ModelConfig& config) {
  if (options.dtype.empty()) return config.dtype;
  const std::optional<DType> dtype = ModelDTypeFromName(options.dtype);
  if (!dtype) {
    Fail(ErrorCode::kUsage, "--dtype {}: expected float32, bfloat16 or float16", options.dtype);
  }
  return *dtype;
}

RuntimeOptions ChosenRuntime(const ModelOptions& options, const ModelConfig& config) {
  const std::optional<Isa> isa = IsaFromName(options.cpu);
  if (!isa) {
    Fail(ErrorCode::kUsage, "--cpu {}: expected native, avx512bf16, avx512, avx2 or portable",
         options.cpu);
  }
  if (options.threads < 0 || options.threads > 1024) {
    Fail(ErrorCode::kUsage, "--threads {}: expected 1 to 1024", options.threads);
  }
  if (options.chunk < 1) Fail(ErrorCode::kUsage, "--chunk {}: expected at least 1", options.chunk);
  return {ChosenDType(options, config), *isa,
          options.threads == 0 ? DefaultThreads() : options.threads};
}

std::vector<int64_t> ParseIds(const std::string& text) {
  std::vector<int64_t> ids;
  const char* at = text.data();
  const char* end = at + text.size();
  while (at < end) {
    int64_t id = 0;
    const auto [next, error] = std::from_chars(at, end, id);
    if (error != std::errc() || id < 0 || (next < end && *next != ',') || next + 1 == end) {
      Fail(ErrorCode::kUsage, "--ids: expected 1,2,3; wrong from character {}: '{}'",
           at - text.data() + 1, std::string(at, std::min<size_t>(20, end - at)));
    }
    ids.push_back(id);
    at = next + 1;
  }
  if (ids.empty()) Fail(ErrorCode::kUsage, "--ids: expected at least one token id");
  return ids;
}

std::vector<int64_t> PromptIds(const ModelOptions& options, const ModelConfig& config,
                               std::optional<Tokenizer>& tokenizer) {
  if (!options.ids.empty() && !options.prompt.empty()) {
    Fail(ErrorCode::kUsage, "give a prompt or --ids, not both");
  }
  if (options.ids.empty() && options.prompt.empty()) {
    Fail(ErrorCode::kUsage, "give a prompt or --ids 1,2,3");
  }
  std::vector<int64_t> ids;
  if (!options.ids.empty()) {
    ids = ParseIds(options.ids);
  } else {
    if (!tokenizer) tokenizer = Tokenizer::Open(options.model);
    ids =
        tokenizer->Encode(options.raw ? options.prompt : FormatChat(options.model, options.prompt));
  }
  CheckIds(ids, config);
  return ids;
}

const TensorView& Prefill(Runtime& runtime, Sequence& sequence, const std::vector<int64_t>& ids,
                          int64_t chunk, Recorder* recorder) {
  sequence.Plan(sequence.length() + static_cast<int64_t>(ids.size()));
  const bool show = isatty(STDERR_FILENO) != 0;
  const auto total = static_cast<int64_t>(ids.size());
  const TensorView* logits = nullptr;
  for (int64_t at = 0; at < total; at += chunk) {
    const int64_t count = std::min(chunk, total - at);
    if (show && total > chunk)
      fmt::print(stderr, "\rreading the prompt: {} of {} tokens", at, total);
    logits = &runtime.Forward(sequence, std::span(ids).subspan(at, count), recorder);
  }
  if (show && total > chunk) fmt::print(stderr, "\r\033[K");
  SAMEBITS_CHECK(logits != nullptr, "a prompt has at least one token");
  return *logits;
}

}  // namespace samebits
