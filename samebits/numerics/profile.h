// A profile: in which order a framework added on some machine, for exactly the operations and
// shapes that were probed there (docs/profile-format.md). Made by `python -m samebits probe`. What
// was not probed is not in it, and nothing is guessed: a look-up without an entry is an error that
// names the command which would make one.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "samebits/numerics/sum_rule.h"
#include "samebits/numerics/torch_functions.h"

namespace samebits {

// The products that a model meets.
enum class ProductOp : uint8_t {
  kLinear,          // x W^T
  kScores,          // eager attention: q k^T, one matrix of a batch of batch * heads
  kContext,         // eager attention: probs v
  kSdpaScores,      // the same two of one block of the flash kernel
  kSdpaContext,     // onto nothing
  kSdpaAccumulate,  // onto what the blocks of keys before gave
};
constexpr size_t kProductOps = 6;

// kLinear: rows, in_features and out_features of x W^T + bias.
// Attention: rows (queries), keys and head_dim; matrices: batch * heads, and for the flash kernel
// its work items. Eager attention: batch and kv_heads too, since what torch multiplies is a copy of
// the repeated keys or not. Flash kernel: packed, FlashBlock::packed.
struct ProductShape {
  int64_t rows = 0, in_features = 0, out_features = 0;
  bool bias = false;
  int64_t keys = 0, head_dim = 0, matrices = 0;
  int64_t batch = 0, kv_heads = 0;
  bool packed = false;
};

class Profile {
 public:
  // Throws Error: unreadable, no JSON, another format or version, values out of range, unknown
  // keys in orders and functions, a digest that does not fit.
  static Profile Open(const std::string& path);
  static Profile Parse(std::string_view json, const std::string& place);

  const std::string& path() const { return path_; }
  const std::string& digest() const { return digest_; }
  const std::string& framework_version() const { return framework_version_; }
  const std::string& cpu() const { return cpu_; }
  DType dtype() const { return dtype_; }
  int64_t threads() const { return threads_; }  // of the framework
  const TorchFunctions& functions() const { return functions_; }
  // Address modulo 64 of each weight in the probing process, by checkpoint name.
  const std::map<std::string, int64_t>& weight_alignment() const { return weight_alignment_; }

  struct Found {
    const SumRule* rule;
    bool proven;
  };
  // Throws Error(kBadInput) when no entry covers the shape.
  Found Find(ProductOp op, const ProductShape& shape) const;

  // Entries whose proof failed or is missing, a line each: what a replay can not promise.
  std::vector<std::string> Unproven() const;

 private:
  struct Range {
    int64_t low = 0, high = 0;
    bool Has(int64_t value) const { return value >= low && value <= high; }
  };
  struct Entry {
    Range rows, keys, matrices;
    bool square = false;  // keys are as many as rows
    int64_t in_features = 0, out_features = 0, head_dim = 0, batch = 0, kv_heads = 0;
    bool bias = false, packed = false;
    size_t rule = 0;
    Proof proof;
    bool Covers(const ProductShape& shape) const;
  };
  void ReadEntries(const Json& json, const char* key);
  Entry ReadEntry(const Json& json, ProductOp op, const std::string& place) const;
  Range ReadRange(const Json& json, const char* key, const std::string& place) const;
  std::string Line(ProductOp op, const Entry& entry) const;

  std::string path_, digest_, framework_version_, cpu_;
  DType dtype_ = DType::kF32;
  int64_t threads_ = 1;
  std::map<std::string, int64_t> weight_alignment_;
  std::vector<SumRule> rules_;
  std::array<std::vector<Entry>, kProductOps> entries_;
  TorchFunctions functions_;
};

}  // namespace samebits
