// generation_config.json: defaults for sampling and stopping, as transformers' generate takes them.
#include <filesystem>

#include "samebits/base/error.h"
#include "samebits/base/json.h"
#include "samebits/engine/generate.h"

namespace samebits {
namespace {

constexpr int64_t kMaxConfigBytes = 1 << 20;
constexpr int64_t kMaxId = (int64_t{1} << 31) - 1;

std::vector<int64_t> ReadIds(const Json& value, const std::string& place) {
  std::vector<int64_t> ids;
  for (const Json& id : value.is_array() ? value : Json::array({value})) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() > static_cast<uint64_t>(kMaxId)) {
      Fail(ErrorCode::kBadInput, "{}: eos_token_id: expected token ids, found {}", place,
           Excerpt(value));
    }
    ids.push_back(id.get<int64_t>());
  }
  return ids;
}

// Each setting with the value that leaves the text as it is. false, 0 and null always do.
void ListLeftOut(const Json& json, std::vector<std::string>& left_out) {
  const std::vector<std::pair<const char*, Json>> neutral = {
      {"num_beams", 1},
      {"num_beam_groups", 1},
      {"typical_p", 1.0},
      {"epsilon_cutoff", 0},
      {"eta_cutoff", 0},
      {"no_repeat_ngram_size", 0},
      {"bad_words_ids", false},
      {"force_words_ids", false},
      {"encoder_repetition_penalty", 1.0},
      {"penalty_alpha", 0},
      {"sequence_bias", false},
      {"guidance_scale", 1.0},
      {"min_length", 0},
      {"min_new_tokens", 0},
      {"suppress_tokens", false},
      {"top_h", 0},
      {"max_time", false},
      {"stop_strings", false},
      {"forced_bos_token_id", false},
      {"forced_eos_token_id", false},
      {"begin_suppress_tokens", false},
      {"exponential_decay_length_penalty", false}};
  for (const auto& [key, value] : neutral) {
    if (!HasField(json, key)) continue;
    const Json& found = json[key];
    if (found == value || found == 0 || found == false || (found.is_array() && found.empty())) {
      continue;
    }
    left_out.push_back(fmt::format("{} = {}", key, Excerpt(found)));
  }
}

}  // namespace

GenerationDefaults ReadGenerationDefaults(const std::string& folder, const ModelConfig& config) {
  GenerationDefaults result;
  result.stop_ids = config.eos_token_ids;
  constexpr int64_t kTopK = 50;  // transformers' own, where nobody says one
  result.sampled.temperature = 1;
  result.sampled.top_k = kTopK;
  const std::string place = folder + "/generation_config.json";
  std::error_code ignored;
  if (!std::filesystem::exists(place, ignored)) return result;
  const Json json = ParseJson(ReadTextFile(place, kMaxConfigBytes), place);
  if (!json.is_object()) {
    Fail(ErrorCode::kBadInput, "{}: expected an object, found {}", place, Excerpt(json));
  }
  // As transformers does: where it names stop tokens, they count alone.
  if (HasField(json, "eos_token_id")) result.stop_ids = ReadIds(json["eos_token_id"], place);
  if (HasField(json, "max_new_tokens")) {
    result.max_tokens = IntegerField(json, "max_new_tokens", 1, kMaxId, place);
  }
  SamplingOptions& sampling = result.sampling;
  if (HasField(json, "repetition_penalty")) {
    sampling.repetition_penalty = NumberField(json, "repetition_penalty", 1e-6, 1e6, place);
  }
  const bool sample = HasField(json, "do_sample") && BoolField(json, "do_sample", place);
  const auto number = [&](const char* key, double low, double high, double otherwise) {
    return HasField(json, key) ? NumberField(json, key, low, high, place) : otherwise;
  };
  // Read also where sampling is off: a broken value is an error all the same.
  const double temperature = number("temperature", 0, 1e6, 1.0);
  const int64_t top_k =
      HasField(json, "top_k") ? IntegerField(json, "top_k", 0, kMaxId, place) : kTopK;
  const double top_p = number("top_p", 0, 1, 1.0), min_p = number("min_p", 0, 1, 0.0);
  result.sampled = sampling;
  result.sampled.temperature = temperature;
  result.sampled.top_k = top_k;
  result.sampled.top_p = top_p;
  result.sampled.min_p = min_p;
  if (sample) sampling = result.sampled;
  ListLeftOut(json, result.left_out);
  return result;
}

}  // namespace samebits
