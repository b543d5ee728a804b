// samebits diff of two checkpoints.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <map>

#include "apps/samebits/diff.h"
#include "apps/samebits/progress.h"
#include "samebits/base/error.h"
#include "samebits/checkpoint/checkpoint.h"
#include "samebits/compare/checkpoints.h"

namespace samebits {
namespace {

constexpr int64_t kMaxConfigBytes = 16 << 20;

std::vector<SafetensorsFile> OpenWeights(const std::string& path) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) return OpenWeightFiles(path);
  std::vector<SafetensorsFile> files;
  files.push_back(SafetensorsFile::Open(path));
  return files;
}

int64_t Positive(const Json& config, const char* key) {
  constexpr uint64_t kLargest = 1 << 24;
  const auto found = config.find(key);
  if (found == config.end() || !found->is_number_unsigned()) return 0;
  const auto value = found->get<uint64_t>();
  return value > kLargest ? 0 : static_cast<int64_t>(value);
}

// Of the config.json beside the weights, whatever the architecture; 0 where it does not say.
int64_t HeadDim(const std::string& path) {
  namespace fs = std::filesystem;
  std::error_code ignored;
  const fs::path folder =
      fs::is_directory(path, ignored) ? fs::path(path) : fs::path(path).parent_path();
  const fs::path file = folder / "config.json";
  if (!fs::exists(file, ignored)) return 0;
  Json config;
  try {
    config = ParseJson(ReadTextFile(file.string(), kMaxConfigBytes), file.string());
  } catch (const Error&) {
    return 0;  // the weights can be compared without it
  }
  if (!config.is_object()) return 0;
  if (const int64_t given = Positive(config, "head_dim"); given > 0) return given;
  const int64_t hidden = Positive(config, "hidden_size");
  const int64_t heads = Positive(config, "num_attention_heads");
  return heads > 0 && hidden % heads == 0 ? hidden / heads : 0;
}

Json RelationJson(const std::vector<Relation>& steps) {
  constexpr size_t kMaxOrder = 4096;  // lines of a permutation that are listed
  Json list = Json::array();
  for (const Relation& step : steps) {
    Json one = {{"id", step.id}, {"from", step.from_a ? "a" : "b"}};
    if (step.id == "scaled" || step.id == "shifted") {
      one["constant"] = NumberJson(step.constant);
      one["through_fp32"] = step.through_fp32;
    }
    if (!step.order.empty()) {
      int64_t moved = 0;
      for (size_t i = 0; i < step.order.size(); ++i) {
        moved += step.order[i] != static_cast<int64_t>(i) ? 1 : 0;
      }
      one["lines"] = step.order.size();
      one["moved"] = moved;
      if (step.order.size() <= kMaxOrder) one["order"] = step.order;
    }
    list.push_back(std::move(one));
  }
  return list;
}

Json LoneJson(const std::vector<LoneTensor>& tensors) {
  Json list = Json::array();
  for (const LoneTensor& tensor : tensors) {
    list.push_back({{"name", tensor.name},
                    {"dtype", DTypeName(tensor.dtype)},
                    {"shape", tensor.shape},
                    {"same_as", tensor.same_as.empty() ? Json() : Json(tensor.same_as)}});
  }
  return list;
}

// What a differing pair is said to be, also the key by which they are counted.
std::string Verdict(const TensorDifference& d) {
  if (!d.relation.empty()) {
    std::string text;
    for (const Relation& step : d.relation) text += (text.empty() ? "" : ", ") + step.id;
    return text;
  }
  return d.same_as_a.empty() ? "other" : "same-as-another";
}

std::map<std::string, int64_t> Counts(const CheckpointDifference& d) {
  std::map<std::string, int64_t> counts;
  for (const TensorDifference& tensor : d.tensors) {
    ++counts[tensor.difference == Difference::kNone ? "same" : Verdict(tensor)];
  }
  return counts;
}

Json ToJson(const CheckpointDifference& d, const DiffOptions& options, int64_t head_dim) {
  Json tensors = Json::array();
  for (const TensorDifference& tensor : d.tensors) {
    if (tensor.difference == Difference::kNone) {
      if (options.all) {
        tensors.push_back({{"name", tensor.name},
                           {"difference", "none"},
                           {"dtype", {DTypeName(tensor.dtype_a), DTypeName(tensor.dtype_b)}},
                           {"shape", {tensor.shape_a, tensor.shape_b}}});
      }
      continue;
    }
    Json one = PairJson(tensor.difference, tensor.dtype_a, tensor.dtype_b, tensor.shape_a,
                        tensor.shape_b, tensor.metrics);
    one["name"] = tensor.name;
    one["verdict"] = Verdict(tensor);
    one["relation"] = RelationJson(tensor.relation);
    one["same_as"] = tensor.same_as_a.empty() ? Json() : Json(tensor.same_as_a);
    tensors.push_back(std::move(one));
  }
  return {{"kind", "checkpoints"},
          {"a", options.a},
          {"b", options.b},
          {"same", d.same()},
          {"head_dim", head_dim == 0 ? Json() : Json(head_dim)},
          {"in_both", d.tensors.size()},
          {"counts", Counts(d)},
          {"only_a", LoneJson(d.only_a)},
          {"only_b", LoneJson(d.only_b)},
          {"tensors", std::move(tensors)}};
}

std::string Explained(const TensorDifference& d) {
  std::string text;
  for (const Relation& step : d.relation) {
    text += text.empty() ? (step.from_a ? "the second is the first " : "the first is the second ")
                         : ", then ";
    text += DescribeRelation(step);
  }
  if (!d.same_as_a.empty()) {
    if (!text.empty()) text += "; ";
    text += "the second is the first's " + ShownName(d.same_as_a);
  }
  if (!text.empty()) return text;
  const Metrics& m = d.metrics;
  if (!m.not_comparable.empty()) return m.not_comparable + ", and no known relation";
  return fmt::format(
      "no known relation: {} of {} differ, max abs {:.3g}, max rel {:.3g}, max ulp {:.4g}, rms "
      "{:.3g}, 1-cosine {:.2g}",
      m.differing, m.elements, m.max_abs, m.max_rel, m.max_ulp, m.rms, 1 - m.cosine);
}

void PrintLone(const std::vector<LoneTensor>& tensors, const char* where, const char* other,
               const DiffOptions& options) {
  for (const LoneTensor& tensor : tensors) {
    if (tensor.name.find(options.only) == std::string::npos) continue;
    fmt::print("only in the {}: {}  {} {}{}\n", where, ShownName(tensor.name),
               DTypeName(tensor.dtype), ShapeToString(tensor.shape),
               tensor.same_as.empty()
                   ? ""
                   : fmt::format(": the {}'s {}", other, ShownName(tensor.same_as)));
  }
}

void Print(const CheckpointDifference& d, const DiffOptions& options) {
  for (const TensorDifference& tensor : d.tensors) {
    const bool same = tensor.difference == Difference::kNone;
    if (same && !options.all) continue;
    if (tensor.name.find(options.only) == std::string::npos) continue;
    fmt::print("{}  {}\n", ShownName(tensor.name),
               ShownPair(tensor.dtype_a, tensor.dtype_b, tensor.shape_a, tensor.shape_b));
    fmt::print("  {}\n", same ? "the same bytes" : Explained(tensor));
  }
  PrintLone(d.only_a, "first", "second", options);
  PrintLone(d.only_b, "second", "first", options);
  fmt::print("{} tensors in both", d.tensors.size());
  const std::map<std::string, int64_t> counts = Counts(d);
  for (const auto& [verdict, count] : counts) fmt::print("; {} {}", count, verdict);
  fmt::print("\n{} only in the first, {} only in the second\n", d.only_a.size(), d.only_b.size());
}

}  // namespace

int DiffCheckpoints(const DiffOptions& options) {
  const std::vector<SafetensorsFile> a = OpenWeights(options.a), b = OpenWeights(options.b);
  CheckpointOptions how;
  how.head_dim = options.head_dim;
  for (const std::string& path : {options.a, options.b}) {
    if (how.head_dim == 0) how.head_dim = HeadDim(path);
  }
  ProgressLine progress;
  constexpr int64_t kMegabyte = 1'000'000;
  how.progress = [&progress](int64_t done, int64_t total) {
    progress.Show(done / kMegabyte, total / kMegabyte, "MB of the weights");
  };
  const CheckpointDifference difference = CompareCheckpoints(a, b, how);
  progress.Clear();
  if (options.json) {
    fmt::print("{}\n", ToJson(difference, options, how.head_dim)
                           .dump(2, ' ', false, Json::error_handler_t::replace));
  } else {
    Print(difference, options);
  }
  return difference.same() ? 0 : 1;
}

}  // namespace samebits
