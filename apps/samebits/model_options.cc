#include "apps/samebits/model_options.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <string_view>

#include "apps/samebits/ranks.h"
#include "samebits/base/error.h"
#include "samebits/checkpoint/digest.h"
#include "samebits/checkpoint/mapped_file.h"
#include "samebits/kernels/thread_pool.h"

namespace samebits {

CLI::Option* AddModelArgument(CLI::App& command, std::string& model) {
  return command
      .add_option("MODEL", model, "Hugging Face checkpoint folder, or a hub id in the local cache")
      ->required();
}

void AddModelOptions(CLI::App& command, ModelOptions& options) {
  AddModelArgument(command, options.model);
  command.add_option("--dtype", options.dtype,
                     "float32, bfloat16 or float16 (default: the checkpoint's)");
  command.add_option("--cpu", options.cpu,
                     "instruction set: native, avx512bf16, avx512, avx2 or portable; the bits are "
                     "the same");
  command.add_option("--threads", options.threads,
                     "threads (default: one a physical core); the bits are the same");
  command.add_option("--chunk", options.chunk,
                     "tokens of the prompt that are computed at once; the bits are the same");
  command.add_option("--parallel", options.parallel,
                     "under mpirun: tp=N ranks share each layer, pp=M groups of layers follow one "
                     "another (default: tp = all ranks); the bits are the same");
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
  CheckThreads(options.threads);
  if (options.chunk < 1) Fail(ErrorCode::kUsage, "--chunk {}: expected at least 1", options.chunk);
  return {ChosenDType(options, config), *isa, ChosenThreads(options.threads)};
}

void CheckThreads(int asked) {
  if (asked < 0 || asked > 1024) {
    Fail(ErrorCode::kUsage, "--threads {}: expected 1 to 1024", asked);
  }
}

int ChosenThreads(int asked) {
  return asked > 0 ? asked : std::max(1, DefaultThreads() / LocalRanks());
}

std::string ProgramDigest() {
  const MappedFile program("/proc/self/exe");
  return Sha256({reinterpret_cast<const char*>(program.bytes().data()), program.bytes().size()});
}

void JoinRanks(const ModelOptions& options, const Checkpoint& checkpoint, const std::string& what,
               RuntimeOptions& runtime) {
  Communicator* ranks = ProcessRanks();
  const int size = ranks == nullptr ? 1 : ranks->size();
  ParallelPlan plan{size, 1};
  if (!options.parallel.empty()) plan = ParseParallelPlan(options.parallel);
  if (plan.ranks() != size) {
    Fail(ErrorCode::kUsage, "--parallel {}: {} ranks, {}; mpirun -n {} samebits ...",
         options.parallel, plan.ranks(),
         size == 1 ? "this is one" : fmt::format("mpirun started {}", size), plan.ranks());
  }
  if (ranks == nullptr) return;
  AgreeOn({{"program", ProgramDigest()},
           {"checkpoint", CheckpointDigest(checkpoint)},
           {"profile", runtime.replay == nullptr ? "none" : runtime.replay->profile().digest()},
           {"dtype", std::string(ModelDTypeName(runtime.dtype))},
           {"--parallel", options.parallel},
           {"--chunk", fmt::format("{}", options.chunk)},
           {"prompt or options", Sha256(what)}});
  runtime.ranks = ranks;
  runtime.parallel = plan;
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

void FlushOutput() {
  if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) {
    Fail(ErrorCode::kIo, "standard output: can not be written");
  }
}

}  // namespace samebits
