// Sampling as PyTorch does it, for tests that have PyTorch's own results. All numbers are little
// endian; the input is a sequence of what stands here after "<":
//   torch_sampling tokens < a Header, `context` ids (int64), `rows` x `vocabulary` logits
//     Each row's token is appended to the context of the next. For each row: the token (int64; -1
//     from the first error of the sampler on) and, if `scores`, the processed logits (fp32).
//   torch_sampling softmax LANES < n (int64), n fp32        the n probabilities
//   torch_sampling sort < n (int64), n fp32                 the n indices (int32) in torch's order
//   torch_sampling exponential SEED COUNT                   COUNT draws (fp32)
// The processor time that tokens took goes to standard error.
#include <fmt/format.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <string>
#include <vector>

#include "samebits/base/error.h"
#include "samebits/engine/torch_sampler.h"
#include "samebits/numerics/torch_ops.h"
#include "samebits/numerics/torch_random.h"
#include "samebits/numerics/torch_sort.h"

namespace samebits {
namespace {

struct Header {
  uint64_t seed;
  double temperature, top_p, min_p, repetition_penalty;
  int64_t top_k, lanes, dtype, rows, vocabulary, context, scores;  // dtype: 0 F32, 1 BF16, 2 F16
};

constexpr int64_t kMost = 1 << 30;
constexpr DType kDTypes[] = {DType::kF32, DType::kBF16, DType::kF16};

bool Read(void* to, size_t bytes) { return std::fread(to, 1, bytes, stdin) == bytes; }

template <typename T>
void Write(const T* from, size_t count) {
  std::fwrite(from, sizeof(T), count, stdout);
}

SoftmaxFunction Softmax(int64_t lanes) {
  if (lanes != 8 && lanes != 16) Fail(ErrorCode::kUsage, "{} lanes", lanes);
  return {.lanes = lanes, .exp = torch_math::Exp::kSleefU10, .proof = {}};
}

[[noreturn]] void CutShort() { Fail(ErrorCode::kBadInput, "the input is cut short"); }

void Generate(const Header& header, double& seconds) {
  std::vector<int64_t> context(header.context);
  Tensor logits(kDTypes[header.dtype], {1, header.vocabulary});
  if (!Read(context.data(), context.size() * sizeof(int64_t))) CutShort();
  TorchSampler sampler({.temperature = header.temperature,
                        .top_k = header.top_k,
                        .top_p = header.top_p,
                        .min_p = header.min_p,
                        .repetition_penalty = header.repetition_penalty,
                        .seed = header.seed},
                       Softmax(header.lanes));
  bool failed = false;
  for (int64_t row = 0; row < header.rows; ++row) {
    if (!Read(logits.data(), logits.view().bytes())) CutShort();
    int64_t token = -1;
    const std::clock_t start = std::clock();
    try {
      if (!failed) token = sampler.Next(logits.view(), context);
    } catch (const Error&) {
      failed = true;
    }
    seconds += static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
    Write(&token, 1);
    if (header.scores != 0) Write(sampler.scores().data(), sampler.scores().size());
    context.push_back(token);
  }
}

void Tokens() {
  Header h;
  int64_t tokens = 0;
  double seconds = 0;
  while (Read(&h, sizeof(h))) {
    if (h.dtype < 0 || h.dtype > 2 || h.vocabulary <= 0 || h.vocabulary > kMost || h.context < 0 ||
        h.context > kMost) {
      Fail(ErrorCode::kBadInput, "not a header");
    }
    Generate(h, seconds);
    tokens += h.rows;
  }
  fmt::print(stderr, "{} tokens, {:.3f} ms of processor time each\n", tokens,
             1e3 * seconds / static_cast<double>(tokens));
}

bool ReadRow(std::vector<float>& row) {
  int64_t n = 0;
  if (!Read(&n, sizeof(n))) return false;
  if (n <= 0 || n > kMost) Fail(ErrorCode::kBadInput, "a row of {} numbers", n);
  row.resize(n);
  if (!Read(row.data(), n * sizeof(float))) CutShort();
  return true;
}

void SoftmaxRows(int64_t lanes) {
  std::vector<float> row;
  while (ReadRow(row)) {
    torch_ops::SoftmaxRow(Softmax(lanes), row.data(), row.data(), std::ssize(row));
    Write(row.data(), row.size());
  }
}

void Sort() {
  std::vector<float> row;
  while (ReadRow(row)) {
    std::vector<IndexedValue> pairs(row.size());
    for (size_t i = 0; i < row.size(); ++i) pairs[i] = {row[i], static_cast<int32_t>(i)};
    TorchSort(pairs);
    for (const IndexedValue& pair : pairs) Write(&pair.index, 1);
  }
}

void Exponential(uint64_t seed, int64_t count) {
  TorchGenerator generator(seed);
  for (int64_t i = 0; i < count; ++i) {
    const float q = TorchExponential(generator.Uniform());
    Write(&q, 1);
  }
}

int Run(const std::vector<std::string>& arguments) {
  const std::string what = arguments.empty() ? "" : arguments[0];
  if (what == "tokens" && arguments.size() == 1) {
    Tokens();
  } else if (what == "softmax" && arguments.size() == 2) {
    SoftmaxRows(std::stoll(arguments[1]));
  } else if (what == "sort" && arguments.size() == 1) {
    Sort();
  } else if (what == "exponential" && arguments.size() == 3) {
    Exponential(std::stoull(arguments[1]), std::stoll(arguments[2]));
  } else {
    Fail(ErrorCode::kUsage, "tokens, softmax LANES, sort or exponential SEED COUNT");
  }
  return 0;
}

}  // namespace
}  // namespace samebits

int main(int argc, char** argv) {
  try {
    return samebits::Run({argv + 1, argv + argc});
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 2;
  }
}
