#include "samebits/compare/checkpoints.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <string_view>

#include "samebits/base/error.h"

namespace samebits {
namespace {

using Tensors = std::map<std::string, const TensorView*>;

Tensors ByName(const std::vector<SafetensorsFile>& files) {
  Tensors tensors;
  for (const SafetensorsFile& file : files) {
    for (const TensorEntry& entry : file.tensors()) tensors[entry.name] = &entry.view;
  }
  return tensors;
}

std::string_view Bytes(const TensorView& view) {
  return {reinterpret_cast<const char*>(view.data), static_cast<size_t>(view.bytes())};
}

bool SameKind(const TensorView& a, const TensorView& b) {
  return a.dtype == b.dtype && a.shape == b.shape;
}

// One value repeated: the like of it is everywhere and says nothing.
bool IsConstant(const TensorView& view) {
  const auto size = static_cast<size_t>(DTypeSize(view.dtype));
  const std::string_view bytes = Bytes(view);
  return bytes.size() <= size || bytes.substr(size) == bytes.substr(0, bytes.size() - size);
}

// Finds tensors by their bytes. Every tensor is hashed as a whole once at most, and only if some
// samples of it are those of the tensor that is looked for.
class ContentIndex {
 public:
  explicit ContentIndex(const Tensors& tensors) {
    for (const auto& [name, view] : tensors) {
      index_[Samples(*view)].push_back({&name, view});
    }
  }

  // The first name by which the bytes, dtype and shape of `wanted` are found; "" when there is
  // none.
  std::string Find(const TensorView& wanted, const std::string& other_than) {
    if (IsConstant(wanted)) return "";
    const auto found = index_.find(Samples(wanted));
    if (found == index_.end()) return "";
    const uint64_t hash = std::hash<std::string_view>()(Bytes(wanted));
    for (Entry& entry : found->second) {
      if (*entry.name == other_than) continue;
      if (!entry.hashed) {
        entry.hash = std::hash<std::string_view>()(Bytes(*entry.view));
        entry.hashed = true;
      }
      if (entry.hash == hash && Bytes(*entry.view) == Bytes(wanted)) return *entry.name;
    }
    return "";
  }

 private:
  struct Entry {
    const std::string* name = nullptr;
    const TensorView* view = nullptr;
    uint64_t hash = 0;
    bool hashed = false;
  };

  static std::string Samples(const TensorView& view) {
    constexpr size_t kSamples = 16, kBytes = 64;
    const std::string_view bytes = Bytes(view);
    std::string samples;
    for (size_t i = 0; i < kSamples; ++i) {
      samples += bytes.substr(bytes.size() / kSamples * i, kBytes);
    }
    return fmt::format("{} {} {:x}", DTypeName(view.dtype), ShapeToString(view.shape),
                       std::hash<std::string>()(samples));
  }

  std::map<std::string, std::vector<Entry>> index_;
};

class Comparer {
 public:
  Comparer(const Tensors& a, const Tensors& b, const CheckpointOptions& options)
      : a_(a), b_(b), options_(options), index_a_(a), index_b_(b) {
    for (const auto& [name, view] : a) {
      if (b.contains(name)) total_ += view->bytes();
    }
  }

  CheckpointDifference Run() {
    CheckpointDifference result;
    for (const auto& [name, view] : a_) {
      if (const auto other = b_.find(name); other != b_.end()) {
        result.tensors.push_back(Compare(name, *view, *other->second));
      } else {
        result.only_a.push_back({name, view->dtype, view->shape, index_b_.Find(*view, name)});
      }
    }
    for (const auto& [name, view] : b_) {
      if (a_.contains(name)) continue;
      result.only_b.push_back({name, view->dtype, view->shape, index_a_.Find(*view, name)});
    }
    return result;
  }

 private:
  TensorDifference Compare(const std::string& name, const TensorView& a, const TensorView& b) {
    TensorDifference d;
    d.name = name;
    d.dtype_a = a.dtype;
    d.dtype_b = b.dtype;
    d.shape_a = a.shape;
    d.shape_b = b.shape;
    const bool same = SameBytes(a, b);
    if (!same) {
      d.metrics = CompareTensors(a, b);
      d.difference = DifferenceOf(a, b, d.metrics);
      if (d.difference == Difference::kNone) d.difference = Difference::kValues;  // bits of NaNs
      d.same_as_a = index_a_.Find(b, name);
      d.relation = FindRelation(a, b, options_.head_dim);
    }
    before_ += a.bytes();
    Report(before_);
    return d;
  }

  bool SameBytes(const TensorView& a, const TensorView& b) {
    if (!SameKind(a, b)) return false;
    constexpr int64_t kPiece = 64 << 20;  // between two reports of how far it is
    for (int64_t at = 0; at < a.bytes(); at += kPiece) {
      const auto count = static_cast<size_t>(std::min(kPiece, a.bytes() - at));
      if (std::memcmp(a.data + at, b.data + at, count) != 0) return false;
      Report(before_ + at);
    }
    return true;
  }

  void Report(int64_t done) const {
    if (options_.progress) options_.progress(done, total_);
  }

  const Tensors &a_, &b_;
  const CheckpointOptions& options_;
  ContentIndex index_a_, index_b_;
  int64_t before_ = 0, total_ = 0;
};

}  // namespace

bool CheckpointDifference::same() const {
  return only_a.empty() && only_b.empty() &&
         std::all_of(tensors.begin(), tensors.end(),
                     [](const TensorDifference& d) { return d.difference == Difference::kNone; });
}

CheckpointDifference CompareCheckpoints(const std::vector<SafetensorsFile>& a,
                                        const std::vector<SafetensorsFile>& b,
                                        const CheckpointOptions& options) {
  const Tensors in_a = ByName(a), in_b = ByName(b);
  return Comparer(in_a, in_b, options).Run();
}

}  // namespace samebits
