// Single kernels on one thread (google-benchmark): every instruction set that this CPU has, on
// sizes of Qwen2.5-1.5B. Small operands stay in cache, so this shows the kernels and not the
// memory; linears.cc shows the memory.
#include <benchmark/benchmark.h>

#include <random>
#include <string>
#include <vector>

#include "samebits/kernels/kernels.h"
#include "samebits/tensor/convert.h"

namespace samebits {
namespace {

constexpr Isa kIsas[] = {Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Bf16};
constexpr DType kDTypes[] = {DType::kBF16, DType::kF16, DType::kF32};

class Values {
 public:
  Values(DType dtype, int64_t n) : data_(static_cast<size_t>(n * DTypeSize(dtype))) {
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    for (int64_t i = 0; i < n; ++i) {
      const float value = normal(random);
      if (dtype == DType::kF32) {
        reinterpret_cast<float*>(data_.data())[i] = value;
      } else {
        reinterpret_cast<uint16_t*>(data_.data())[i] =
            dtype == DType::kBF16 ? FloatToBF16(value) : FloatToF16(value);
      }
    }
  }
  std::byte* data() { return data_.data(); }

 private:
  std::vector<std::byte> data_;
};

using benchmark::Counter;

Counter Rate(double per_iteration) {
  return {per_iteration, Counter::kIsIterationInvariantRate, Counter::kIs1000};
}

void Linear(benchmark::State& state, Isa isa, DType dtype, int64_t rows) {
  const int64_t in = 1536, out = rows == 1 ? 96 : 1536;
  Values x(dtype, rows * in), w(dtype, out * in), y(dtype, rows * out);
  const LinearArgs args = {dtype, dtype, x.data(), w.data(), nullptr, y.data(), rows, in, out};
  for (auto unused : state) SelectKernels(isa).linear(args, 0, rows, 0, out);
  state.counters["FLOP"] = Rate(2.0 * static_cast<double>(rows * in * out));
}

void Attention(benchmark::State& state, Isa isa, DType dtype, int64_t keys) {
  constexpr int64_t kHeads = 12, kKvHeads = 2, kDim = 128;
  Values q(dtype, kHeads * kDim), k(dtype, kKvHeads * keys * kDim);
  Values v(dtype, kKvHeads * keys * kDim), context(dtype, kHeads * kDim);
  AttentionArgs args = {};
  args.dtype = dtype;
  args.q = q.data();
  args.k = k.data();
  args.v = v.data();
  args.kv_head_stride = keys * kDim;
  args.kv_row_stride = kDim;
  args.context = context.data();
  args.rows = 1;
  args.heads = kHeads;
  args.kv_heads = kKvHeads;
  args.head_dim = kDim;
  args.first_key_count = keys;
  args.scale = 0.088F;
  for (auto unused : state) SelectKernels(isa).attention(args, 0, kHeads, 0, 1);
  state.counters["FLOP"] = Rate(4.0 * static_cast<double>(kHeads * keys * kDim));
}

void RmsNorm(benchmark::State& state, Isa isa, DType dtype) {
  constexpr int64_t kSize = 1536;
  Values x(dtype, kSize), w(dtype, kSize), y(dtype, kSize);
  const RmsNormArgs args = {dtype, dtype, x.data(), w.data(), y.data(), 1, kSize, 1e-6F};
  for (auto unused : state) SelectKernels(isa).rms_norm(args, 0, 1);
  state.counters["values"] = Rate(kSize);
}

void Silu(benchmark::State& state, Isa isa, DType dtype) {
  constexpr int64_t kSize = 8960;
  Values x(dtype, kSize), y(dtype, kSize);
  for (auto unused : state) SelectKernels(isa).silu(dtype, x.data(), y.data(), kSize);
  state.counters["values"] = Rate(kSize);
}

void RegisterAll() {
  for (Isa isa : kIsas) {
    if (!IsaSupported(isa)) continue;
    for (DType dtype : kDTypes) {
      const auto add = [&](const std::string& what, auto fn, auto... args) {
        const std::string name =
            what + "/" + std::string(IsaName(isa)) + "/" + std::string(ModelDTypeName(dtype));
        benchmark::RegisterBenchmark(name.c_str(), fn, isa, dtype, args...);
      };
      add("linear_1_row", &Linear, int64_t{1});
      add("linear_64_rows", &Linear, int64_t{64});
      add("linear_512_rows", &Linear, int64_t{512});
      add("attention_512_keys", &Attention, int64_t{512});
      add("attention_8192_keys", &Attention, int64_t{8192});
      add("rms_norm", &RmsNorm);
      add("silu", &Silu);
    }
  }
}

}  // namespace
}  // namespace samebits

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  samebits::RegisterAll();
  benchmark::RunSpecifiedBenchmarks();
}
