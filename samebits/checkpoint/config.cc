#include "samebits/checkpoint/config.h"

#include <algorithm>
#include <array>

#include "samebits/base/error.h"
#include "samebits/base/json.h"
#include "samebits/checkpoint/config_keys.h"

namespace samebits {
namespace {

constexpr int64_t kMaxConfigBytes = 16 << 20;
constexpr int64_t kMaxSize = 1 << 24;  // of any axis; products stay far below 2^63

// Keys that do not change what a forward pass computes, or that are read below.
constexpr std::array kKnownKeys = {
    // read
    "model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
    "num_attention_heads", "num_key_value_heads", "head_dim", "max_position_embeddings",
    "rms_norm_eps", "rope_theta", "rope_parameters", "rope_scaling", "hidden_act",
    "tie_word_embeddings", "attention_bias", "mlp_bias", "dtype", "torch_dtype", "eos_token_id",
    "bos_token_id", "use_sliding_window", "layer_types", "quantization_config",
    "partial_rotary_factor", "pretraining_tp", "is_encoder_decoder", "add_cross_attention",
    "sliding_window", "max_window_layers", "original_max_position_embeddings",
    // no effect on a forward pass without a cache of another length, training or other libraries
    "architectures", "attention_dropout", "initializer_range", "use_cache", "pad_token_id",
    "transformers_version", "_name_or_path", "auto_map", "chunk_size_feed_forward",
    "cross_attention_hidden_size", "finetuning_task", "id2label", "label2id", "output_attentions",
    "output_hidden_states", "problem_type", "return_dict", "sep_token_id", "decoder_start_token_id",
    "is_decoder", "task_specific_params", "tf_legacy_loss", "tie_encoder_decoder",
    "tokenizer_class", "use_bfloat16", "prefix", "pruned_heads", "torchscript",
    "transformers.js_config", "is_llama_config", "rope_interleaved", "_attn_implementation",
    "attn_implementation", "unsloth_version", "unsloth_fixed", "name_or_path",
    "attention_probs_dropout_prob", "hidden_dropout_prob", "resid_pdrop", "embd_pdrop",
    "num_labels"};

void ReadTokenIds(const Json& json, const std::string& place, ModelConfig& config) {
  if (HasField(json, "eos_token_id")) {
    const Json& eos = json["eos_token_id"];
    const Json list = eos.is_array() ? eos : Json::array({eos});
    for (const Json& id : list) {
      if (!id.is_number_unsigned() || id.get<uint64_t>() >= (uint64_t{1} << 31)) {
        Fail(ErrorCode::kBadInput, "{}: 'eos_token_id': expected token ids, found {}", place,
             Excerpt(eos));
      }
      config.eos_token_ids.push_back(id.get<int64_t>());
    }
  }
  if (HasField(json, "bos_token_id")) {
    config.bos_token_id = IntegerField(json, "bos_token_id", -1, (int64_t{1} << 31) - 1, place);
  }
}

// Settings that exist and that samebits does not run.
void ReadUnsupported(const Json& json, const std::string& place, ModelConfig& config) {
  auto& reasons = config.unsupported;
  const auto true_is_unsupported = [&](const char* key) {
    if (HasField(json, key) && BoolField(json, key, place)) {
      reasons.push_back(fmt::format("{} is true; supported: false", key));
    }
  };
  for (const char* key : {"is_encoder_decoder", "add_cross_attention", "rope_interleaved"}) {
    true_is_unsupported(key);
  }
  // Only these families have them; transformers would leave them out.
  if (config.model_type != "llama") true_is_unsupported("mlp_bias");
  if (config.model_type == "mistral") true_is_unsupported("attention_bias");
  if (config.hidden_act != "silu") {
    reasons.push_back(
        fmt::format("hidden_act is {}; supported: silu", Excerpt(Json(config.hidden_act))));
  }
  if (HasField(json, "quantization_config")) {
    reasons.push_back("quantization_config is set; supported: unquantised weights");
  }
  if (HasField(json, "partial_rotary_factor") && json["partial_rotary_factor"] != 1.0) {
    reasons.push_back(fmt::format("partial_rotary_factor is {}; supported: 1",
                                  Excerpt(json["partial_rotary_factor"])));
  }
  if (HasField(json, "pretraining_tp") && json["pretraining_tp"] != 1) {
    reasons.push_back(
        fmt::format("pretraining_tp is {}; supported: 1", Excerpt(json["pretraining_tp"])));
  }
  for (const auto& [key, value] : json.items()) {
    if (value.is_null() ||
        std::find(kKnownKeys.begin(), kKnownKeys.end(), key) != kKnownKeys.end()) {
      continue;
    }
    reasons.push_back(fmt::format("unknown key {} = {}: it may change what the model computes",
                                  Excerpt(Json(key)), Excerpt(value)));
  }
}

// What transformers takes where the file has no key; 0: derived from the others.
struct FamilyDefaults {
  const char* model_type;
  int64_t num_key_value_heads, head_dim, max_position_embeddings;
};
constexpr std::array kFamilies = {
    FamilyDefaults{"llama", 0, 0, 2048}, FamilyDefaults{"mistral", 8, 0, 4096 * 32},
    FamilyDefaults{"qwen2", 32, 0, 32768}, FamilyDefaults{"qwen3", 32, 128, 32768}};

// Null for a family that is not supported.
const FamilyDefaults* FindFamily(const std::string& model_type) {
  for (const FamilyDefaults& family : kFamilies) {
    if (model_type == family.model_type) return &family;
  }
  return nullptr;
}

void ReadBiases(const Json& json, const std::string& place, ModelConfig& config) {
  const auto set = [&](const char* key) {
    return HasField(json, key) && BoolField(json, key, place);
  };
  if (config.model_type == "qwen2") {
    config.attention_bias = true;  // and none on o_proj, whatever the file says
  } else if (config.model_type == "llama" || config.model_type == "qwen3") {
    config.attention_bias = config.o_proj_bias = set("attention_bias");
  }
  if (config.model_type == "llama") config.mlp_bias = set("mlp_bias");
  config.qk_norm = config.model_type == "qwen3";
}

void ReadSizes(const Json& json, const std::string& place, const FamilyDefaults& defaults,
               ModelConfig& config) {
  const auto size = [&](const char* key) { return IntegerField(json, key, 1, kMaxSize, place); };
  config.vocab_size = size("vocab_size");
  config.hidden_size = size("hidden_size");
  config.intermediate_size = size("intermediate_size");
  config.num_hidden_layers = IntegerField(json, "num_hidden_layers", 1, 10000, place);
  config.num_attention_heads = size("num_attention_heads");
  config.num_key_value_heads = config.num_attention_heads;
  if (HasField(json, "num_key_value_heads")) {
    config.num_key_value_heads = size("num_key_value_heads");
  } else if (!json.contains("num_key_value_heads") && defaults.num_key_value_heads != 0) {
    config.num_key_value_heads = defaults.num_key_value_heads;
  }
  if (HasField(json, "head_dim")) {
    config.head_dim = size("head_dim");
  } else if (defaults.head_dim != 0) {
    config.head_dim = defaults.head_dim;
  } else if (config.hidden_size % config.num_attention_heads == 0) {
    config.head_dim = config.hidden_size / config.num_attention_heads;
  } else {
    Fail(ErrorCode::kBadInput,
         "{}: hidden_size {} is no multiple of num_attention_heads {}, and there is no head_dim",
         place, config.hidden_size, config.num_attention_heads);
  }
  if (config.num_attention_heads % config.num_key_value_heads != 0) {
    Fail(ErrorCode::kBadInput,
         "{}: num_attention_heads {} is no multiple of num_key_value_heads {}", place,
         config.num_attention_heads, config.num_key_value_heads);
  }
  if (config.head_dim % 2 != 0) {
    Fail(ErrorCode::kBadInput, "{}: head_dim {} is odd: rotary embeddings need pairs", place,
         config.head_dim);
  }
  if (config.num_attention_heads * config.head_dim > kMaxSize) {
    Fail(ErrorCode::kBadInput, "{}: num_attention_heads {} times head_dim {} is beyond {}", place,
         config.num_attention_heads, config.head_dim, kMaxSize);
  }
  config.max_position_embeddings =
      HasField(json, "max_position_embeddings")
          ? IntegerField(json, "max_position_embeddings", 1, int64_t{1} << 31, place)
          : defaults.max_position_embeddings;
}

}  // namespace

ModelConfig ParseModelConfig(std::string_view text, const std::string& place) {
  const Json json = ParseJson(text, place);
  if (!json.is_object()) {
    Fail(ErrorCode::kBadInput, "{}: expected an object, found {}", place, Excerpt(json));
  }
  ModelConfig config;
  config.model_type = StringField(json, "model_type", place);
  const FamilyDefaults* family = FindFamily(config.model_type);
  if (family == nullptr) {
    Fail(ErrorCode::kUnsupported,
         "{}: model_type {}: supported are llama, mistral, qwen2 and qwen3", place,
         Excerpt(Json(config.model_type)));
  }
  ReadSizes(json, place, *family, config);
  // Without the key transformers takes 1e-6, for every family.
  if (HasField(json, "rms_norm_eps")) {
    config.rms_norm_eps = NumberField(json, "rms_norm_eps", 0.0, 1.0, place);
  }
  ReadRope(json, place, config);
  ReadWindows(json, place, config);
  if (HasField(json, "hidden_act")) config.hidden_act = StringField(json, "hidden_act", place);
  if (HasField(json, "tie_word_embeddings")) {
    config.tie_word_embeddings = BoolField(json, "tie_word_embeddings", place);
  }
  ReadBiases(json, place, config);
  const char* dtype_key = HasField(json, "dtype") ? "dtype" : "torch_dtype";
  if (HasField(json, dtype_key)) {
    const std::string name = StringField(json, dtype_key, place);
    const std::optional<DType> dtype = ModelDTypeFromName(name);
    if (!dtype) {
      Fail(ErrorCode::kUnsupported, "{}: {} {}: supported are float32, bfloat16 and float16", place,
           dtype_key, Excerpt(Json(name)));
    }
    config.dtype = *dtype;
  }
  ReadTokenIds(json, place, config);
  ReadUnsupported(json, place, config);
  return config;
}

ModelConfig ReadModelConfig(const std::string& folder) {
  const std::string path = folder + "/config.json";
  return ParseModelConfig(ReadTextFile(path, kMaxConfigBytes), path);
}

}  // namespace samebits
