// The linear layers of a whole model, with weights that no cache holds: at one row (decoding, bound
// by memory) as a share of the read bandwidth, at many rows (a prompt, bound by arithmetic) as a
// share of the peak. Limits and kernels are measured in turns, in the same run. No attention, no
// norms: `samebits run --json` times the whole.
#include <fmt/format.h>

#include <algorithm>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "bench/shares.h"
#include "samebits/base/error.h"
#include "samebits/kernels/limits.h"
#include "samebits/kernels/parallel_linear.h"
#include "samebits/numerics/element.h"

namespace samebits {
namespace {

struct ModelShape {
  std::string name;
  int64_t layers, hidden, kv, intermediate, vocab;
};
const ModelShape kShapes[] = {{"0.5b", 24, 896, 128, 4864, 151936},
                              {"1.5b", 28, 1536, 256, 8960, 151936},
                              {"7b", 28, 3584, 512, 18944, 152064}};

struct Layer {
  int64_t out, in;
  std::byte* w;
};

struct Options {
  std::string shape = "1.5b", cpu = "native", dtype = "bfloat16";
  int threads = DefaultThreads();
  int64_t rows = 1, layers = 0, in = 0, out = 0;
  int rounds = 7;
};

void Run(const Options& options) {
  const auto dtype = ModelDTypeFromName(options.dtype);
  const auto isa = IsaFromName(options.cpu);
  const auto* shape = std::find_if(std::begin(kShapes), std::end(kShapes),
                                   [&](const ModelShape& s) { return s.name == options.shape; });
  if (!dtype || !isa || shape == std::end(kShapes) || options.rounds < 1 || options.rows < 1) {
    Fail(ErrorCode::kUsage, "--dtype, --cpu, --shape, --rows or --rounds: no such value");
  }
  const int64_t count = options.layers > 0 ? options.layers : shape->layers;
  std::vector<Layer> layers;
  const int64_t h = shape->hidden, f = shape->intermediate;
  const bool alike = options.in > 0 && options.out > 0;
  std::vector<std::pair<int64_t, int64_t>> of_layer = {
      {h, h}, {shape->kv, h}, {shape->kv, h}, {h, h}, {f, h}, {f, h}, {h, f}};
  if (alike) of_layer = {{options.out, options.in}};
  for (int64_t i = 0; i < count; ++i) {
    for (const auto& [out, in] : of_layer) layers.push_back({out, in, nullptr});
  }
  if (options.rows == 1 && !alike) layers.push_back({shape->vocab, h, nullptr});  // the logits
  const int64_t element = DTypeSize(*dtype);
  int64_t elements = 0;
  for (const Layer& layer : layers) elements += layer.out * layer.in;
  PagedBuffer weights(static_cast<size_t>(elements * element));
  int64_t at = 0;
  for (Layer& layer : layers) {
    layer.w = weights.data() + at * element;
    at += layer.out * layer.in;
  }
  // Ordinary numbers everywhere; the speed does not depend on which.
  const auto ordinary = [](int64_t i) {
    return static_cast<float>((i * 37 + i / 4099) % 255 - 127) / 4096;
  };
  for (int64_t i = 0; i < elements; ++i) StoreElement(*dtype, weights.data(), i, ordinary(i));
  int64_t longest = 0, widest = 0;
  for (const Layer& layer : layers) {
    longest = std::max(longest, layer.in);
    widest = std::max(widest, layer.out);
  }
  PagedBuffer x(static_cast<size_t>(options.rows * longest * element));
  PagedBuffer y(static_cast<size_t>(options.rows * widest * element));
  for (int64_t i = 0; i < options.rows * longest; ++i) {
    StoreElement(*dtype, x.data(), i, ordinary(i));
  }
  PagedBuffer scratch(size_t{2} << 30);

  ThreadPool pool(options.threads);
  const Kernels& kernels = SelectKernels(*isa);
  const auto pass = [&] {
    for (const Layer& layer : layers) {
      const LinearArgs args = {*dtype,   *dtype,       x.data(), layer.w,  nullptr,
                               y.data(), options.rows, layer.in, layer.out};
      ParallelLinear(kernels, pool, std::span(&args, 1));
    }
  };
  pass();
  const double bytes = static_cast<double>(elements * element);
  const double flops = 2.0 * static_cast<double>(elements * options.rows);
  Shares shares;
  for (int round = 0; round < options.rounds; ++round) {
    const double bandwidth = ReadBandwidth(scratch, pool);
    const double peak = PeakFlops(*isa, *dtype == DType::kBF16, pool);
    const double start = Now();
    pass();
    const double seconds = Now() - start;
    if (options.rows == 1) {
      shares.Add(bytes / seconds, std::max(bandwidth, ReadBandwidth(scratch, pool)));
    } else {
      shares.Add(flops / seconds, peak);
    }
  }
  const std::string name = alike ? fmt::format("{} x {}", options.out, options.in) : options.shape;
  fmt::print("{} {} {} threads {} rows {}: ", name, options.dtype, IsaName(*isa), options.threads,
             options.rows);
  if (options.rows == 1) {
    fmt::print("{:.2f} GB of weights, read {:.1f} GB/s; measured bandwidth {:.1f} GB/s; ",
               bytes / 1e9, shares.speed() / 1e9, shares.limit() / 1e9);
  } else {
    fmt::print("{:.0f} GFLOP/s; measured peak {:.0f} GFLOP/s; ", shares.speed() / 1e9,
               shares.limit() / 1e9);
  }
  fmt::print("{}\n", shares.Text());
}

}  // namespace
}  // namespace samebits

int main(int argc, char** argv) {
  CLI::App app("The linear layers of a model against this machine's limits");
  samebits::Options options;
  app.add_option("--shape", options.shape, "0.5b, 1.5b or 7b (Qwen2.5)");
  app.add_option("--layers", options.layers, "other than the shape has");
  CLI::Option* out = app.add_option("--out", options.out, "outputs: all layers alike");
  CLI::Option* in = app.add_option("--in", options.in, "inputs of such a layer");
  out->needs(in);
  in->needs(out);
  app.add_option("--cpu", options.cpu, "native, avx512bf16, avx512, avx2, portable");
  app.add_option("--dtype", options.dtype, "bfloat16, float16, float32");
  app.add_option("--threads", options.threads, "threads");
  app.add_option("--rows", options.rows, "1: decoding; many: a prompt");
  app.add_option("--rounds", options.rounds, "measurements; the median is printed");
  return samebits::RunProgram(app, argc, argv, "linears", [&] { samebits::Run(options); });
}
