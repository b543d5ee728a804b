// samebits diff: two traces, node by node, or two checkpoints, tensor by tensor.
#include "apps/samebits/diff.h"

#include <fmt/format.h>

#include <cmath>
#include <filesystem>

#include "apps/samebits/commands.h"
#include "samebits/base/error.h"
#include "samebits/checkpoint/hub_cache.h"

namespace samebits {
namespace {

bool IsFolder(const std::string& path) {
  std::error_code ignored;
  return std::filesystem::is_directory(path, ignored);
}

bool IsTrace(const std::string& path) {
  if (IsFolder(path)) return false;
  const SafetensorsFile file = SafetensorsFile::Open(path);
  const auto found = file.metadata().find("format");
  return found != file.metadata().end() && found->second.starts_with("samebits-trace");
}

int RunDiff(DiffOptions options) {
  for (std::string* path : {&options.a, &options.b}) {
    std::error_code ignored;
    if (!std::filesystem::exists(*path, ignored)) *path = ResolveModel(*path);
  }
  const bool trace_a = IsTrace(options.a), trace_b = IsTrace(options.b);
  if (trace_a != trace_b) {
    Fail(ErrorCode::kBadInput,
         "{} is a trace, {} is none; diff compares two traces or two "
         "checkpoints",
         trace_a ? options.a : options.b, trace_a ? options.b : options.a);
  }
  return trace_a ? DiffTraces(options) : DiffCheckpoints(options);
}

}  // namespace

Json NumberJson(double value) {
  if (std::isfinite(value)) return value;
  if (std::isnan(value)) return "nan";
  return value > 0 ? "inf" : "-inf";
}

Json PairJson(Difference difference, DType dtype_a, DType dtype_b, const Shape& shape_a,
              const Shape& shape_b, const Metrics& m) {
  Json pair = {{"difference", DifferenceName(difference)},
               {"dtype", {DTypeName(dtype_a), DTypeName(dtype_b)}},
               {"shape", {shape_a, shape_b}},
               {"elements", m.elements},
               {"differing", m.differing},
               {"nan_mismatch", m.nan_mismatch},
               {"max_abs", NumberJson(m.max_abs)},
               {"max_rel", NumberJson(m.max_rel)},
               {"max_ulp", NumberJson(m.max_ulp)},
               {"rms", NumberJson(m.rms)},
               {"cosine", NumberJson(m.cosine)},
               {"first", m.first}};
  if (!m.not_comparable.empty()) pair["not_comparable"] = m.not_comparable;
  return pair;
}

std::string ShownName(const std::string& name) {
  const std::string quoted = Excerpt(Json(name));
  return quoted.size() == name.size() + 2 ? name : quoted;
}

std::string ShownPair(DType dtype_a, DType dtype_b, const Shape& shape_a, const Shape& shape_b) {
  std::string first = fmt::format("{} {}", DTypeName(dtype_a), ShapeToString(shape_a));
  if (dtype_a == dtype_b && shape_a == shape_b) return first;
  return fmt::format("{} against {} {}", first, DTypeName(dtype_b), ShapeToString(shape_b));
}

void RegisterDiff(CLI::App& app, int& exit_code) {
  auto options = std::make_shared<DiffOptions>();
  CLI::App* command =
      app.add_subcommand("diff", "compare two traces, node by node, or two checkpoints");
  command->footer(
      "Example: samebits diff torch.safetensors mine.safetensors\n"
      "         samebits diff models/nano ported/checkpoint\n"
      "Exit code: 0 same bits, 1 different, 2 error.");
  command->add_option("A", options->a, "a trace, or a checkpoint: folder, .safetensors or hub id")
      ->required();
  command->add_option("B", options->b, "another one")->required();
  command->add_option("--only", options->only, "list only what has this text in its name");
  command
      ->add_option("--head-dim", options->head_dim,
                   "rows of a head, to recognise heads in other places (default: config.json's)")
      ->check(CLI::Range(1, 1 << 20));
  command->add_flag("--json", options->json, "print JSON (docs/diff-json.md)");
  command->add_flag("--all", options->all, "list what is equal, too");
  command->callback([options, &exit_code] { exit_code = RunDiff(*options); });
}

}  // namespace samebits
