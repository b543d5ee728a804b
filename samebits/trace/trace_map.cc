#include "samebits/trace/trace_map.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <set>

#include "samebits/base/error.h"

namespace samebits {
namespace {

constexpr int64_t kMaxSize = int64_t{1} << 40;

bool IsDigit(char c) { return c >= '0' && c <= '9'; }

// A pattern with {N} (one number) and, where allowed, *.
std::optional<std::string> MatchNumber(std::string_view pattern, std::string_view name,
                                       bool stars) {
  // Position by position, with the place of the last star to go back to.
  size_t p = 0, n = 0, star = std::string_view::npos, star_at = 0;
  std::string number;
  while (n < name.size() || p < pattern.size()) {
    if (stars && p < pattern.size() && pattern[p] == '*') {
      star = p++;
      star_at = n;
      continue;
    }
    if (pattern.substr(p).starts_with("{N}") && n < name.size() && IsDigit(name[n])) {
      const size_t begin = n;
      while (n < name.size() && IsDigit(name[n])) ++n;
      number = std::string(name.substr(begin, n - begin));
      p += 3;
      continue;
    }
    if (p < pattern.size() && n < name.size() && pattern[p] == name[n]) {
      ++p;
      ++n;
      continue;
    }
    if (star == std::string_view::npos || star_at >= name.size()) return std::nullopt;
    p = star + 1;
    n = ++star_at;
  }
  return number;
}

std::string WithNumber(std::string name, const std::string& number) {
  const size_t at = name.find("{N}");
  return at == std::string::npos ? name : name.replace(at, 3, number);
}

// Integers of a list, each in [low, high]; "T" is kTokens where that is allowed.
std::vector<int64_t> IntegerList(const Json& json, const std::string& place, int64_t low,
                                 int64_t high, bool tokens = false) {
  std::vector<int64_t> values;
  if (!json.is_array() || json.empty() || json.size() > 8) {
    Fail(ErrorCode::kBadInput, "{}: expected a list of 1 to 8 integers, found {}", place,
         Excerpt(json));
  }
  for (const Json& value : json) {
    if (tokens && value == "T") {
      values.push_back(kTokens);
      continue;
    }
    if (!value.is_number_integer() || value.get<int64_t>() < low || value.get<int64_t>() > high) {
      Fail(ErrorCode::kBadInput, "{}: expected integers from {} to {}{}, found {}", place, low,
           high, tokens ? " or \"T\"" : "", Excerpt(value));
    }
    values.push_back(value.get<int64_t>());
  }
  return values;
}

void CheckKeys(const Json& json, const std::string& place, const std::set<std::string>& known) {
  if (!json.is_object()) {
    Fail(ErrorCode::kBadInput, "{}: expected an object, found {}", place, Excerpt(json));
  }
  for (const auto& [key, value] : json.items()) {
    if (known.contains(key)) continue;
    Fail(ErrorCode::kBadInput, "{}: unknown key {}; expected {}", place, Excerpt(Json(key)),
         fmt::join(known, ", "));
  }
}

void CheckReshape(const std::vector<int64_t>& shape, const std::string& place) {
  if (std::count(shape.begin(), shape.end(), kInferred) > 1) {
    Fail(ErrorCode::kBadInput, "{}: more than one -1", place);
  }
}

MapRule ParseRule(const Json& json, const std::string& place) {
  CheckKeys(json, place, {"from", "to", "take", "transpose", "reshape", "split", "then_reshape"});
  MapRule rule;
  rule.from = StringField(json, "from", place);
  if (rule.from.find("{N}") != rule.from.rfind("{N}")) {
    Fail(ErrorCode::kBadInput, "{}: 'from': more than one {{N}}", place);
  }
  if (HasField(json, "to") && json["to"].is_array()) {
    for (const Json& name : json["to"]) {
      if (!name.is_string()) {
        Fail(ErrorCode::kBadInput, "{}: 'to': expected names, found {}", place, Excerpt(name));
      }
      rule.to.push_back(name.get<std::string>());
    }
  } else {
    rule.to = {StringField(json, "to", place)};
  }
  for (const std::string& to : rule.to) {
    if (to.find("{N}") != std::string::npos && rule.from.find("{N}") == std::string::npos) {
      Fail(ErrorCode::kBadInput, "{}: {{N}} in 'to' ({}) and none in 'from' ({})", place,
           Excerpt(Json(to)), Excerpt(Json(rule.from)));
    }
  }
  if (HasField(json, "take")) {
    if (!json["take"].is_array()) {
      Fail(ErrorCode::kBadInput, "{}: 'take': expected a list of [axis, index]", place);
    }
    for (const Json& pair : json["take"]) {
      const auto values = IntegerList(pair, place + ": 'take'", 0, kMaxSize);
      if (values.size() != 2) {
        Fail(ErrorCode::kBadInput, "{}: 'take': expected [axis, index], found {}", place,
             Excerpt(pair));
      }
      rule.take.emplace_back(values[0], values[1]);
    }
  }
  if (HasField(json, "transpose")) {
    rule.transpose = IntegerList(json["transpose"], place + ": 'transpose'", 0, 7);
  }
  if (HasField(json, "reshape")) {
    rule.reshape = IntegerList(json["reshape"], place + ": 'reshape'", kInferred, kMaxSize, true);
  }
  if (HasField(json, "then_reshape")) {
    rule.then_reshape =
        IntegerList(json["then_reshape"], place + ": 'then_reshape'", kInferred, kMaxSize, true);
  }
  CheckReshape(rule.reshape, place + ": 'reshape'");
  CheckReshape(rule.then_reshape, place + ": 'then_reshape'");
  if (HasField(json, "split")) {
    const std::string where = place + ": 'split'";
    CheckKeys(json["split"], where, {"axis", "sizes"});
    rule.split_axis = IntegerField(json["split"], "axis", -8, 7, where);
    if (!HasField(json["split"], "sizes")) Fail(ErrorCode::kBadInput, "{}: no 'sizes'", where);
    rule.split_sizes = IntegerList(json["split"]["sizes"], where + " 'sizes'", 1, kMaxSize);
  }
  const size_t parts = rule.split_axis ? rule.split_sizes.size() : 1;
  if (rule.to.size() != parts) {
    Fail(ErrorCode::kBadInput, "{}: 'to' has {} names for {} parts", place, rule.to.size(), parts);
  }
  return rule;
}

// One tensor on its way through a rule.
struct Piece {
  TensorView view;
  std::shared_ptr<const void> owned;
};

// Copies what `index` picks: element i of the result is element index(i) of the source.
template <typename Index>
Piece Gather(const Piece& piece, Shape shape, Index&& index) {
  auto tensor = std::make_shared<Tensor>(piece.view.dtype, std::move(shape));
  const auto size = static_cast<size_t>(DTypeSize(piece.view.dtype));
  for (int64_t i = 0; i < tensor->elements(); ++i) {
    std::memcpy(tensor->data() + static_cast<size_t>(i) * size,
                piece.view.data + static_cast<size_t>(index(i)) * size, size);
  }
  return {tensor->view(), tensor};
}

int64_t Product(const Shape& shape, size_t begin, size_t end) {
  int64_t product = 1;
  for (size_t i = begin; i < end; ++i) product *= shape[i];
  return product;
}

Piece TakeRange(const Piece& piece, size_t axis, int64_t begin, int64_t count, bool keep_axis) {
  const Shape& from = piece.view.shape;
  const int64_t inner = Product(from, axis + 1, from.size());
  Shape shape = from;
  shape[axis] = count;
  const int64_t length = from[axis];
  Piece result;
  if (Product(from, 0, axis) == 1) {  // a part that lies together
    result = piece;
    result.view.shape = shape;
    result.view.data += begin * inner * DTypeSize(piece.view.dtype);
  } else {
    result = Gather(piece, shape, [&](int64_t i) {
      const int64_t row = i / (count * inner), rest = i % (count * inner);
      return row * length * inner + begin * inner + rest;
    });
  }
  if (!keep_axis) {
    result.view.shape.erase(result.view.shape.begin() + static_cast<std::ptrdiff_t>(axis));
  }
  return result;
}

Piece Transpose(const Piece& piece, const std::vector<int64_t>& order) {
  const Shape& from = piece.view.shape;
  std::vector<int64_t> strides(from.size(), 1);
  for (size_t d = from.size(); d-- > 1;) strides[d - 1] = strides[d] * from[d];
  Shape shape;
  for (const int64_t axis : order) shape.push_back(from[static_cast<size_t>(axis)]);
  return Gather(piece, shape, [&](int64_t i) {
    int64_t at = 0;
    for (size_t d = shape.size(); d-- > 0;) {
      at += i % shape[d] * strides[static_cast<size_t>(order[d])];
      i /= shape[d];
    }
    return at;
  });
}

void Reshape(Piece& piece, const std::vector<int64_t>& sizes, int64_t tokens,
             const std::string& place) {
  Shape shape;
  int64_t known = 1;
  const int64_t elements = piece.view.elements();
  bool fits = true;
  for (const int64_t size : sizes) {
    shape.push_back(size == kTokens ? tokens : size);
    if (size == kInferred) continue;
    // More than there are elements can not fit; and nothing overflows.
    const int64_t factor = std::max<int64_t>(1, shape.back());
    fits = fits && shape.back() <= elements && known <= std::max<int64_t>(1, elements) / factor;
    if (fits) known *= factor;
  }
  for (int64_t& size : shape) {
    if (fits && size == kInferred) size = elements / known;
  }
  if (!fits || NumElements(shape) != elements) {
    Fail(ErrorCode::kBadInput, "{}: {} can not be reshaped to {}", place,
         ShapeToString(piece.view.shape), ShapeToString(shape));
  }
  piece.view.shape = shape;
}

class Mapper {
 public:
  Mapper(const TensorFile& file, const TraceMap& map) : file_(file), map_(map) {}

  TensorFile Run() {
    result_.path = file_.path;
    result_.owned = file_.owned;
    result_.metadata = file_.metadata;
    for (const auto& [key, value] : map_.metadata) result_.metadata[key] = value;
    result_.metadata.try_emplace("format", "samebits-trace-1");
    const std::optional<int64_t> tokens = result_.StatedTokens();
    if (!tokens) {
      Fail(ErrorCode::kBadInput, "{}: no 'input_ids', and none in 'metadata' of {}", file_.path,
           map_.path);
    }
    tokens_ = *tokens;  // 0 for what is no list: the trace will say so
    std::set<size_t> used;
    for (const NamedTensor& tensor : file_.tensors) Map(tensor, used);
    for (size_t i = 0; i < map_.rules.size(); ++i) {
      if (used.contains(i)) continue;
      Fail(ErrorCode::kBadInput, "{}: 'from' {}: no tensor of {} has this name", map_.path,
           Excerpt(Json(map_.rules[i].from)), file_.path);
    }
    std::sort(result_.tensors.begin(), result_.tensors.end(),
              [](const NamedTensor& a, const NamedTensor& b) { return a.name < b.name; });
    return std::move(result_);
  }

 private:
  void Map(const NamedTensor& tensor, std::set<size_t>& used) {
    const std::string place = fmt::format("{}: tensor {}", file_.path, Excerpt(Json(tensor.name)));
    const bool skipped = std::any_of(map_.skip.begin(), map_.skip.end(), [&](const std::string& s) {
      return MatchNumber(s, tensor.name, true).has_value();
    });
    const MapRule* found = nullptr;
    std::string number;
    for (size_t i = 0; i < map_.rules.size(); ++i) {
      const auto match = MatchNumber(map_.rules[i].from, tensor.name, false);
      if (!match) continue;
      if (found != nullptr) {
        Fail(ErrorCode::kBadInput, "{}: 'from' {} and {} both fit {}", map_.path,
             Excerpt(Json(found->from)), Excerpt(Json(map_.rules[i].from)),
             Excerpt(Json(tensor.name)));
      }
      found = &map_.rules[i];
      number = *match;
      used.insert(i);
    }
    if (found != nullptr) return Apply(*found, number, tensor, place);
    if (!skipped) Add(tensor.name, {tensor.view, nullptr}, place);
  }

  void Apply(const MapRule& rule, const std::string& number, const NamedTensor& tensor,
             const std::string& place) {
    Piece piece{tensor.view, nullptr};
    for (const auto& [axis, index] : rule.take) {
      const Shape& shape = piece.view.shape;
      if (axis >= static_cast<int64_t>(shape.size()) || index >= shape[static_cast<size_t>(axis)]) {
        Fail(ErrorCode::kBadInput, "{}: 'take' [{}, {}] of shape {}", place, axis, index,
             ShapeToString(shape));
      }
      piece = TakeRange(piece, static_cast<size_t>(axis), index, 1, false);
    }
    if (!rule.transpose.empty()) {
      std::vector<int64_t> sorted = rule.transpose;
      std::sort(sorted.begin(), sorted.end());
      bool permutation = sorted.size() == piece.view.shape.size();
      for (size_t i = 0; i < sorted.size(); ++i) {
        permutation = permutation && sorted[i] == static_cast<int64_t>(i);
      }
      if (!permutation) {
        Fail(ErrorCode::kBadInput, "{}: 'transpose' [{}] is no order of the axes of {}", place,
             fmt::join(rule.transpose, ", "), ShapeToString(piece.view.shape));
      }
      piece = Transpose(piece, rule.transpose);
    }
    if (!rule.reshape.empty()) Reshape(piece, rule.reshape, tokens_, place);
    if (!rule.split_axis) {
      if (!rule.then_reshape.empty()) Reshape(piece, rule.then_reshape, tokens_, place);
      return Add(WithNumber(rule.to[0], number), piece, place);
    }
    const auto dims = static_cast<int64_t>(piece.view.shape.size());
    const int64_t axis = *rule.split_axis < 0 ? *rule.split_axis + dims : *rule.split_axis;
    int64_t sum = 0;
    for (const int64_t size : rule.split_sizes) sum += std::min(size, kMaxSize);
    if (axis < 0 || axis >= dims || sum != piece.view.shape[static_cast<size_t>(axis)]) {
      Fail(ErrorCode::kBadInput, "{}: 'split' into [{}] along axis {} of shape {}", place,
           fmt::join(rule.split_sizes, ", "), *rule.split_axis, ShapeToString(piece.view.shape));
    }
    int64_t begin = 0;
    for (size_t i = 0; i < rule.split_sizes.size(); ++i) {
      Piece part = TakeRange(piece, static_cast<size_t>(axis), begin, rule.split_sizes[i], true);
      if (part.owned == nullptr) part.owned = piece.owned;
      begin += rule.split_sizes[i];
      if (!rule.then_reshape.empty()) Reshape(part, rule.then_reshape, tokens_, place);
      Add(WithNumber(rule.to[i], number), part, place);
    }
  }

  void Add(const std::string& name, const Piece& piece, const std::string& place) {
    if (!names_.insert(name).second) {
      Fail(ErrorCode::kBadInput, "{}: becomes {}, as another tensor does", place,
           Excerpt(Json(name)));
    }
    result_.tensors.push_back({name, piece.view});
    if (piece.owned != nullptr) result_.owned.push_back(piece.owned);
  }

  const TensorFile& file_;
  const TraceMap& map_;
  TensorFile result_;
  std::set<std::string> names_;
  int64_t tokens_ = 0;
};

}  // namespace

TraceMap ParseTraceMap(const std::string& text, const std::string& place) {
  const Json json = ParseJson(text, place);
  CheckKeys(json, place, {"metadata", "tensors", "skip"});
  TraceMap map;
  map.path = place;
  if (HasField(json, "metadata")) {
    if (!json["metadata"].is_object()) {
      Fail(ErrorCode::kBadInput, "{}: 'metadata': expected an object", place);
    }
    for (const auto& [key, value] : json["metadata"].items()) {
      map.metadata[key] = value.is_string() ? value.get<std::string>() : value.dump();
    }
  }
  if (HasField(json, "tensors")) {
    if (!json["tensors"].is_array()) {
      Fail(ErrorCode::kBadInput, "{}: 'tensors': expected a list of rules", place);
    }
    for (size_t i = 0; i < json["tensors"].size(); ++i) {
      map.rules.push_back(
          ParseRule(json["tensors"][i], fmt::format("{}: 'tensors' [{}]", place, i)));
    }
  }
  if (HasField(json, "skip")) {
    if (!json["skip"].is_array()) {
      Fail(ErrorCode::kBadInput, "{}: 'skip': expected a list of names", place);
    }
    for (const Json& name : json["skip"]) {
      if (!name.is_string()) {
        Fail(ErrorCode::kBadInput, "{}: 'skip': expected names, found {}", place, Excerpt(name));
      }
      map.skip.push_back(name.get<std::string>());
    }
  }
  return map;
}

TraceMap OpenTraceMap(const std::string& path) {
  constexpr int64_t kMaxBytes = 1 << 24;
  return ParseTraceMap(ReadTextFile(path, kMaxBytes), path);
}

TensorFile ApplyMap(const TensorFile& file, const TraceMap& map) { return Mapper(file, map).Run(); }

}  // namespace samebits
