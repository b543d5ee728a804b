#include "samebits/numerics/profile.h"

#include <algorithm>
#include <initializer_list>
#include <optional>

#include "samebits/base/error.h"
#include "samebits/checkpoint/digest.h"

namespace samebits {
namespace {

constexpr int64_t kMaxBytes = 1 << 28;
constexpr int64_t kMaxSize = int64_t{1} << 31;

const char* OpKey(ProductOp op) {
  switch (op) {
    case ProductOp::kLinear:
      return "linear";
    case ProductOp::kScores:
      return "scores";
    case ProductOp::kContext:
      return "context";
    case ProductOp::kSdpaScores:
      return "sdpa_scores";
    case ProductOp::kSdpaContext:
    case ProductOp::kSdpaAccumulate:
      return "sdpa_context";
  }
  return "";
}

const Json& Field(const Json& json, const char* key, const std::string& place) {
  if (!json.is_object() || !json.contains(key)) {
    Fail(ErrorCode::kBadInput, "{}: no '{}'", place, key);
  }
  return json.at(key);
}

const Json& ArrayField(const Json& json, const char* key, const std::string& place) {
  const Json& array = Field(json, key, place);
  if (!array.is_array()) {
    Fail(ErrorCode::kBadInput, "{}: '{}': expected a list, found {}", place, key, Excerpt(array));
  }
  return array;
}

// An unknown key could be a condition under which a rule was proven.
void CheckKeys(const Json& json, std::initializer_list<std::string_view> known,
               const std::string& place) {
  if (!json.is_object()) {
    Fail(ErrorCode::kBadInput, "{}: expected an object, found {}", place, Excerpt(json));
  }
  for (const auto& [key, value] : json.items()) {
    if (std::find(known.begin(), known.end(), key) != known.end()) continue;
    Fail(ErrorCode::kBadInput, "{}: unknown key {}; this samebits is too old for the profile?",
         place, Excerpt(Json(key)));
  }
}

std::map<std::string, int64_t> ReadAlignment(const Json& json, const std::string& place) {
  if (!json.is_object()) {
    Fail(ErrorCode::kBadInput, "{}: expected an object, found {}", place, Excerpt(json));
  }
  std::map<std::string, int64_t> alignment;
  for (const auto& item : json.items()) {
    alignment[item.key()] = IntegerField(json, item.key(), 0, 63, place);
  }
  return alignment;
}

std::string Describe(ProductOp op, const ProductShape& s) {
  if (op == ProductOp::kLinear) {
    return fmt::format("linear {} -> {} {} bias, {} rows", s.in_features, s.out_features,
                       s.bias ? "with" : "without", s.rows);
  }
  const std::string batch =
      s.batch == 0 ? "" : fmt::format(" (batch {}, kv_heads {})", s.batch, s.kv_heads);
  return fmt::format("{}, head_dim {}, {} matrices{}, {} rows, {} keys{}", OpKey(op), s.head_dim,
                     s.matrices, batch, s.rows, s.keys, s.packed ? ", packed" : "");
}

}  // namespace

Profile Profile::Open(const std::string& path) {
  return Parse(ReadTextFile(path, kMaxBytes), path);
}

Profile Profile::Parse(std::string_view text, const std::string& place) {
  Json json = ParseJson(text, place);
  if (!json.is_object() || !json.contains("format")) {
    Fail(ErrorCode::kBadInput, "{}: no 'format'; is this a profile?", place);
  }
  if (const std::string format = StringField(json, "format", place);
      format != "samebits-profile-1") {
    Fail(ErrorCode::kUnsupported, "{}: format {}: expected samebits-profile-1", place,
         Excerpt(Json(format)));
  }
  CheckKeys(json,
            {"format",
             "framework",
             "framework_version",
             "transformers_version",
             "cpu",
             "cpu_flags",
             "capability",
             "threads",
             "dtype",
             "rng",
             "model_type",
             "prompts",
             "steps",
             "batch",
             "weight_alignment",
             "rules",
             "linear",
             "scores",
             "context",
             "sdpa_scores",
             "sdpa_context",
             "functions",
             "digest"},
            place);
  Profile profile;
  profile.path_ = place;
  if (const std::string framework = StringField(json, "framework", place); framework != "torch") {
    Fail(ErrorCode::kUnsupported, "{}: framework {}: this engine replays torch alone", place,
         Excerpt(Json(framework)));
  }
  profile.framework_version_ = StringField(json, "framework_version", place);
  profile.cpu_ = StringField(json, "cpu", place);
  profile.threads_ = IntegerField(json, "threads", 1, 4096, place);
  const std::string dtype = StringField(json, "dtype", place);
  const std::optional<DType> known = ModelDTypeFromName(dtype);
  if (!known) {
    Fail(ErrorCode::kBadInput, "{}: dtype {}: expected float32, bfloat16 or float16", place,
         Excerpt(Json(dtype)));
  }
  profile.dtype_ = *known;
  profile.digest_ = StringField(json, "digest", place);
  if (json.contains("weight_alignment")) {
    profile.weight_alignment_ =
        ReadAlignment(json.at("weight_alignment"), place + ": 'weight_alignment'");
  }
  int64_t number = 0;
  for (const Json& rule : ArrayField(json, "rules", place)) {
    profile.rules_.push_back(ReadSumRule(rule, fmt::format("{}: rules[{}]", place, number++)));
  }
  for (const char* key : {"linear", "scores", "context", "sdpa_scores", "sdpa_context"}) {
    profile.ReadEntries(json, key);
  }
  profile.functions_ = ReadTorchFunctions(Field(json, "functions", place), place + ": 'functions'");
  json.erase("digest");
  const std::string found = Sha256(json.dump(-1, ' ', true, Json::error_handler_t::replace));
  if (found != profile.digest_) {
    Fail(ErrorCode::kBadInput,
         "{}: its digest is {}, its contents give {}; was it edited? python -m samebits probe "
         "makes a new one",
         place, Excerpt(Json(profile.digest_)), found);
  }
  return profile;
}

void Profile::ReadEntries(const Json& json, const char* key) {
  if (!json.contains(key)) return;
  int64_t number = 0;
  for (const Json& one : ArrayField(json, key, path_)) {
    const std::string place = fmt::format("{}: {}[{}]", path_, key, number++);
    ProductOp op = ProductOp::kLinear;
    for (ProductOp other : {ProductOp::kScores, ProductOp::kContext, ProductOp::kSdpaScores,
                            ProductOp::kSdpaContext}) {
      if (std::string_view(OpKey(other)) == key) op = other;
    }
    if (op == ProductOp::kSdpaContext && BoolField(one, "accumulate", place)) {
      op = ProductOp::kSdpaAccumulate;
    }
    entries_[static_cast<size_t>(op)].push_back(ReadEntry(one, op, place));
  }
}

Profile::Range Profile::ReadRange(const Json& json, const char* key,
                                  const std::string& place) const {
  const Json& pair = Field(json, key, place);
  if (!pair.is_array() || pair.size() != 2 || !pair[0].is_number_integer() ||
      !pair[1].is_number_integer()) {
    Fail(ErrorCode::kBadInput, "{}: '{}': expected [lowest, highest], found {}", place, key,
         Excerpt(pair));
  }
  const Range range{pair[0].get<int64_t>(), pair[1].get<int64_t>()};
  if (range.low < 1 || range.high < range.low || range.high > kMaxSize) {
    Fail(ErrorCode::kBadInput, "{}: '{}': expected 1 <= lowest <= highest, found {}", place, key,
         Excerpt(pair));
  }
  return range;
}

Profile::Entry Profile::ReadEntry(const Json& json, ProductOp op, const std::string& place) const {
  Entry entry;
  entry.rows = ReadRange(json, "rows", place);
  if (op == ProductOp::kLinear) {
    CheckKeys(json, {"in_features", "out_features", "bias", "rows", "rule", "proof"}, place);
    entry.in_features = IntegerField(json, "in_features", 1, kMaxSize, place);
    entry.out_features = IntegerField(json, "out_features", 1, kMaxSize, place);
    entry.bias = BoolField(json, "bias", place);
  } else {
    if (op == ProductOp::kScores || op == ProductOp::kContext) {
      CheckKeys(json,
                {"head_dim", "matrices", "batch", "kv_heads", "rows", "keys", "rule", "proof"},
                place);
      entry.batch = IntegerField(json, "batch", 1, kMaxSize, place);
      entry.kv_heads = IntegerField(json, "kv_heads", 1, kMaxSize, place);
    } else {
      CheckKeys(json,
                {"head_dim", "matrices", "rows", "keys", "accumulate", "packed", "rule", "proof"},
                place);
      entry.packed = json.contains("packed") && BoolField(json, "packed", place);
      if (op == ProductOp::kSdpaScores && json.contains("accumulate")) {
        Fail(ErrorCode::kBadInput, "{}: 'accumulate' goes with sdpa_context only", place);
      }
    }
    entry.head_dim = IntegerField(json, "head_dim", 1, kMaxSize, place);
    entry.matrices = ReadRange(json, "matrices", place);
    entry.square = Field(json, "keys", place) == "rows";
    if (!entry.square) entry.keys = ReadRange(json, "keys", place);
  }
  if (rules_.empty()) Fail(ErrorCode::kBadInput, "{}: 'rules' is empty", place);
  const auto last = static_cast<int64_t>(rules_.size()) - 1;
  entry.rule = static_cast<size_t>(IntegerField(json, "rule", 0, last, place));
  const Json& proof = Field(json, "proof", place);
  const std::string here = place + ": 'proof'";
  CheckKeys(proof, {"compared", "differing"}, here);
  entry.proof.compared = IntegerField(proof, "compared", 0, INT64_MAX, here);
  entry.proof.differing = IntegerField(proof, "differing", 0, entry.proof.compared, here);
  return entry;
}

bool Profile::Entry::Covers(const ProductShape& s) const {
  if (!rows.Has(s.rows) || in_features != s.in_features || out_features != s.out_features ||
      bias != s.bias || head_dim != s.head_dim || batch != s.batch || kv_heads != s.kv_heads ||
      packed != s.packed) {
    return false;
  }
  if (head_dim == 0) return true;
  return matrices.Has(s.matrices) && (square ? s.keys == s.rows : keys.Has(s.keys));
}

Profile::Found Profile::Find(ProductOp op, const ProductShape& shape) const {
  for (const Entry& entry : entries_[static_cast<size_t>(op)]) {
    if (entry.Covers(shape)) return {&rules_[entry.rule], entry.proof.Proven()};
  }
  // Decoding meets as many keys as the text has tokens; what a batch needs follows from its rows.
  Fail(ErrorCode::kBadInput,
       "{}: no entry for {} in {}; nothing is guessed. `python -m samebits probe --model DIR "
       "--dtype {} --threads {} --prompts {}` (with --steps for what is generated, --batch for "
       "padded batches) would make one",
       path_, Describe(op, shape), ModelDTypeName(dtype_), ModelDTypeName(dtype_), threads_,
       op == ProductOp::kLinear ? shape.rows : shape.keys);
}

std::string Profile::Line(ProductOp op, const Entry& entry) const {
  const ProductShape shape{entry.rows.low,
                           entry.in_features,
                           entry.out_features,
                           entry.bias,
                           entry.square ? entry.rows.low : entry.keys.low,
                           entry.head_dim,
                           entry.matrices.low,
                           entry.batch,
                           entry.kv_heads,
                           entry.packed};
  return fmt::format("{} (to {} rows): {} of {} values differed in its proof", Describe(op, shape),
                     entry.rows.high, entry.proof.differing, entry.proof.compared);
}

std::vector<std::string> Profile::Unproven() const {
  std::vector<std::string> lines;
  for (size_t op = 0; op < kProductOps; ++op) {
    for (const Entry& entry : entries_[op]) {
      if (!entry.proof.Proven()) lines.push_back(Line(static_cast<ProductOp>(op), entry));
    }
  }
  const auto function = [&](const char* name, const auto& found) {
    if (found && !found->proof.Proven()) {
      lines.push_back(fmt::format("{}: {} of {} values differed in its proof", name,
                                  found->proof.differing, found->proof.compared));
    }
  };
  function("sum", functions_.sum);
  function("softmax", functions_.softmax);
  function("silu", functions_.silu);
  function("sdpa", functions_.sdpa);
  for (const RotaryFunction& rotary : functions_.rotary) {
    function("rotary", std::optional(rotary));
  }
  return lines;
}

}  // namespace samebits
