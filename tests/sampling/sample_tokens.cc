// Samples tokens for tests that have PyTorch's:
//   sample_tokens < GENERATIONS > TOKENS
// GENERATIONS, one after the other: a Header; `context` ids (int64); `rows` x `vocabulary` logits
// of `dtype`. A row's token is appended to the context of the next one. TOKENS: `rows` int64 for
// each generation, -1 from where the sampler reports an error. The time that sampling took goes to
// standard error.
#include <fmt/format.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <vector>

#include "samebits/base/error.h"
#include "samebits/engine/torch_sampler.h"

namespace {

struct Header {
  uint64_t seed;
  double temperature, top_p, min_p, repetition_penalty;
  int64_t top_k, lanes, dtype, rows, vocabulary, context;  // dtype: 0 F32, 1 BF16, 2 F16
};

constexpr int64_t kMost = 1 << 30;
constexpr samebits::DType kDTypes[] = {samebits::DType::kF32, samebits::DType::kBF16,
                                       samebits::DType::kF16};

bool Read(void* to, size_t bytes) { return std::fread(to, 1, bytes, stdin) == bytes; }

// False when the input ends early.
bool Generate(const Header& header, double& seconds) {
  std::vector<int64_t> context(header.context);
  samebits::Tensor logits(kDTypes[header.dtype], {1, header.vocabulary});
  if (!Read(context.data(), context.size() * sizeof(int64_t))) return false;
  samebits::TorchSampler sampler({.temperature = header.temperature,
                                  .top_k = header.top_k,
                                  .top_p = header.top_p,
                                  .min_p = header.min_p,
                                  .repetition_penalty = header.repetition_penalty,
                                  .seed = header.seed},
                                 static_cast<int>(header.lanes));
  bool failed = false;
  for (int64_t row = 0; row < header.rows; ++row) {
    if (!Read(logits.data(), logits.view().bytes())) return false;
    int64_t token = -1;
    const auto start = std::chrono::steady_clock::now();
    try {
      if (!failed) token = sampler.Next(logits.view(), context);
    } catch (const samebits::Error&) {
      failed = true;
    }
    seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    std::fwrite(&token, sizeof(token), 1, stdout);
    context.push_back(token);
  }
  return true;
}

bool IsSane(const Header& h) {
  return h.dtype >= 0 && h.dtype < 3 && h.rows >= 0 && h.vocabulary > 0 && h.vocabulary < kMost &&
         h.context >= 0 && h.context < kMost;
}

int Run() {
  Header header;
  int64_t tokens = 0;
  double seconds = 0;
  while (Read(&header, sizeof(header))) {
    if (!IsSane(header) || !Generate(header, seconds)) {
      fmt::print(stderr, "a generation is cut short\n");
      return 2;
    }
    tokens += header.rows;
  }
  fmt::print(stderr, "{} tokens, {:.3f} ms each\n", tokens,
             1e3 * seconds / static_cast<double>(tokens));
  return 0;
}

}  // namespace

int main() {
  try {
    return Run();
  } catch (const samebits::Error& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 2;
  }
}
