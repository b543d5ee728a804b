// The rotary embedding in config.json, read as transformers 5.24 does (modeling_rope_utils.py):
// - rope_scaling, when it is there and not empty, takes the place of rope_parameters;
// - rope_theta inside of it goes before the one at top level;
// - rope_type goes before type; neither means default;
// - original_max_position_embeddings: at top level before the one inside, before
//   max_position_embeddings; kDynamic takes max_position_embeddings alone.
// Stricter than transformers, which warns only: factors below 1 and numbers that are none.
#include <algorithm>
#include <array>
#include <utility>

#include "samebits/base/error.h"
#include "samebits/checkpoint/config_keys.h"

namespace samebits {
namespace {

constexpr double kMaxFactor = 1e6;
constexpr int64_t kMaxContext = int64_t{1} << 31;

constexpr std::array kKindNames = {
    std::pair{RopeKind::kDefault, "default"}, std::pair{RopeKind::kLinear, "linear"},
    std::pair{RopeKind::kDynamic, "dynamic"}, std::pair{RopeKind::kYarn, "yarn"},
    std::pair{RopeKind::kLlama3, "llama3"},
};

// What scales an embedding. Those that a kind does not use change nothing, as in transformers.
constexpr std::array kScalingKeys = {"factor",           "original_max_position_embeddings",
                                     "attention_factor", "beta_fast",
                                     "beta_slow",        "mscale",
                                     "mscale_all_dim",   "truncate",
                                     "low_freq_factor",  "high_freq_factor"};

// The object that holds the settings; empty when there is none.
Json SettingsOf(const Json& json, const std::string& place, std::string& where) {
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    if (!HasField(json, key)) continue;
    where = fmt::format("{}: {}", place, key);
    if (!json[key].is_object()) {
      Fail(ErrorCode::kBadInput, "{}: expected an object, found {}", where, Excerpt(json[key]));
    }
    if (!json[key].empty()) return json[key];
  }
  return Json::object();
}

double Number(const Json& rope, const char* key, double low, double high, double otherwise,
              const std::string& where) {
  return HasField(rope, key) ? NumberField(rope, key, low, high, where) : otherwise;
}

// Settings that are there and that samebits does not run.
void ReadUnsupported(const Json& rope, const std::string& where, RopeKind kind,
                     ModelConfig& config) {
  const std::string name = where.substr(where.rfind(' ') + 1);
  for (const auto& [key, value] : rope.items()) {
    if (value.is_null() || key == "rope_theta" || key == "rope_type" || key == "type") continue;
    if (key == "partial_rotary_factor" && value == 1.0) continue;
    const bool scaling =
        std::find(kScalingKeys.begin(), kScalingKeys.end(), key) != kScalingKeys.end();
    if (scaling && kind != RopeKind::kDefault) continue;
    const char* why = value.is_object() ? "an embedding for each layer type is not supported"
                                        : "it changes the rotary embedding";
    config.unsupported.push_back(
        fmt::format("{}: {} = {}: {}", name, Excerpt(Json(key)), Excerpt(value), why));
    return;  // one line says enough
  }
}

void ReadYarn(const Json& rope, const std::string& where, ModelConfig& config) {
  RopeParameters& r = config.rope;
  if (!(r.theta > 1)) {
    Fail(ErrorCode::kBadInput, "{}: 'rope_theta': yarn needs more than 1, found {}", where,
         r.theta);
  }
  if (HasField(rope, "factor")) {
    r.factor = NumberField(rope, "factor", 1, kMaxFactor, where);
  } else {
    r.factor = static_cast<double>(config.max_position_embeddings) /
               static_cast<double>(r.original_length);
    if (!rope.contains("factor") || r.factor < 1 || r.factor > kMaxFactor) {
      Fail(ErrorCode::kBadInput, "{}: 'factor': expected a number from 1 to {:g}, found {}", where,
           kMaxFactor, rope.contains("factor") ? "null" : "nothing");
    }
  }
  // 0 means the default, as Python's `or` does.
  const auto beta = [&](const char* key, double otherwise) {
    const double value = Number(rope, key, 0, 1e6, 0, where);
    return value == 0 ? otherwise : value;
  };
  r.beta_fast = beta("beta_fast", 32);
  r.beta_slow = beta("beta_slow", 1);
  if (r.beta_fast < r.beta_slow || r.beta_slow < 1e-6) {
    Fail(ErrorCode::kBadInput,
         "{}: beta_slow {:g} and beta_fast {:g}: expected 1e-6 <= slow <= fast", where, r.beta_slow,
         r.beta_fast);
  }
  if (HasField(rope, "truncate")) r.truncate = BoolField(rope, "truncate", where);
  if (HasField(rope, "attention_factor")) {
    r.attention_factor = NumberField(rope, "attention_factor", 1e-6, kMaxFactor, where);
  }
  r.mscale = Number(rope, "mscale", 0, kMaxFactor, 0, where);
  r.mscale_all_dim = Number(rope, "mscale_all_dim", 0, kMaxFactor, 0, where);
}

void ReadLlama3(const Json& rope, const std::string& where, RopeParameters& r) {
  r.factor = NumberField(rope, "factor", 1, kMaxFactor, where);
  r.low_freq_factor = NumberField(rope, "low_freq_factor", 1e-6, kMaxFactor, where);
  r.high_freq_factor = NumberField(rope, "high_freq_factor", 1e-6, kMaxFactor, where);
  if (!(r.high_freq_factor > r.low_freq_factor)) {
    Fail(ErrorCode::kBadInput,
         "{}: 'high_freq_factor': expected more than low_freq_factor {:g}, found {:g}", where,
         r.low_freq_factor, r.high_freq_factor);
  }
}

int64_t OriginalLength(const Json& json, const Json& rope, const std::string& place,
                       const std::string& where, const ModelConfig& config) {
  constexpr const char* kKey = "original_max_position_embeddings";
  if (HasField(json, kKey)) return IntegerField(json, kKey, 1, kMaxContext, place);
  if (HasField(rope, kKey)) return IntegerField(rope, kKey, 1, kMaxContext, where);
  return config.max_position_embeddings;
}

// Where the context ends: the scaled length, where the file still has the length before scaling.
int64_t ContextLength(const ModelConfig& c) {
  double length = static_cast<double>(c.max_position_embeddings);
  if (c.rope.kind == RopeKind::kLinear || c.rope.kind == RopeKind::kDynamic) {
    length *= c.rope.factor;
  } else if (c.rope.kind == RopeKind::kYarn) {
    length = std::max(length, c.rope.factor * static_cast<double>(c.rope.original_length));
  }
  return static_cast<int64_t>(std::min(length, static_cast<double>(kMaxContext)));
}

}  // namespace

std::string_view RopeKindName(RopeKind kind) {
  for (const auto& [known, name] : kKindNames) {
    if (known == kind) return name;
  }
  return "";
}

std::optional<RopeKind> RopeKindFromName(std::string_view name) {
  for (const auto& [kind, known] : kKindNames) {
    if (known == name) return kind;
  }
  return std::nullopt;
}

void ReadRope(const Json& json, const std::string& place, ModelConfig& config) {
  std::string where = place;
  const Json rope = SettingsOf(json, place, where);
  RopeParameters& r = config.rope;
  const bool inside = HasField(rope, "rope_theta");
  if (HasField(json, "rope_theta")) r.theta = NumberField(json, "rope_theta", 1.0, 1e12, place);
  if (inside) r.theta = NumberField(rope, "rope_theta", 1.0, 1e12, where);
  config.context_length = config.max_position_embeddings;
  for (const char* key : {"rope_type", "type"}) {
    if (!HasField(rope, key)) continue;
    const std::string name = StringField(rope, key, where);
    const std::optional<RopeKind> kind = RopeKindFromName(name);
    if (!kind) {
      config.unsupported.push_back(
          fmt::format("{}.{} is {}; supported: default, linear, dynamic, yarn, llama3",
                      where.substr(where.rfind(' ') + 1), key, Excerpt(Json(name))));
      return;
    }
    r.kind = *kind;
    break;
  }
  ReadUnsupported(rope, where, r.kind, config);
  switch (r.kind) {
    case RopeKind::kDefault:
      break;
    case RopeKind::kLinear:
      r.factor = NumberField(rope, "factor", 1, kMaxFactor, where);
      break;
    case RopeKind::kDynamic:
      r.factor = NumberField(rope, "factor", 1, kMaxFactor, where);
      r.original_length = config.max_position_embeddings;
      if (config.head_dim < 4) {
        Fail(ErrorCode::kBadInput, "{}: dynamic scaling needs a head_dim of 4 or more, found {}",
             where, config.head_dim);
      }
      break;
    case RopeKind::kYarn:
      r.original_length = OriginalLength(json, rope, place, where, config);
      ReadYarn(rope, where, config);
      break;
    case RopeKind::kLlama3:
      r.original_length = OriginalLength(json, rope, place, where, config);
      ReadLlama3(rope, where, r);
      break;
  }
  config.context_length = ContextLength(config);
}

}  // namespace samebits
