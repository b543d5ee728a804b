// config.json as transformers 4 and 5 write it, and one case for everything that is refused or
// named as not supported.
#include "samebits/checkpoint/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "samebits/base/errors_testing.h"
#include "samebits/base/json.h"

namespace samebits {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::StartsWith;

// Qwen2.5-0.5B-Instruct's file, written by transformers 4.43.
constexpr const char* kQwen4 = R"({
  "architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 151643,
  "eos_token_id": 151645, "hidden_act": "silu", "hidden_size": 896, "initializer_range": 0.02,
  "intermediate_size": 4864, "max_position_embeddings": 32768, "max_window_layers": 21,
  "model_type": "qwen2", "num_attention_heads": 14, "num_hidden_layers": 24,
  "num_key_value_heads": 2, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0,
  "sliding_window": 32768, "tie_word_embeddings": true, "torch_dtype": "bfloat16",
  "transformers_version": "4.43.1", "use_cache": true, "use_sliding_window": false,
  "vocab_size": 151936})";

// The same architecture as transformers 5.23 writes it.
constexpr const char* kQwen5 = R"({
  "attention_dropout": 0.0, "bos_token_id": 151643, "dtype": "bfloat16",
  "eos_token_id": [151645, 151643], "hidden_act": "silu", "hidden_size": 896,
  "initializer_range": 0.02, "intermediate_size": 4864,
  "layer_types": ["full_attention", "full_attention"], "max_position_embeddings": 32768,
  "max_window_layers": 28, "model_type": "qwen2", "num_attention_heads": 14,
  "num_hidden_layers": 2, "num_key_value_heads": 2, "pad_token_id": null, "rms_norm_eps": 1e-06,
  "rope_parameters": {"rope_theta": 1000000.0, "rope_type": "default"}, "sliding_window": null,
  "tie_word_embeddings": true, "transformers_version": "5.23.0", "use_cache": true,
  "use_sliding_window": false, "vocab_size": 151936})";

// SmolLM2-135M's, written by transformers 4.40 and edited for other libraries.
constexpr const char* kLlama4 = R"({
  "architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
  "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu", "hidden_size": 576,
  "initializer_range": 0.041666666666666664, "intermediate_size": 1536, "is_llama_config": true,
  "max_position_embeddings": 8192, "mlp_bias": false, "model_type": "llama",
  "num_attention_heads": 9, "num_hidden_layers": 30, "num_key_value_heads": 3, "pad_token_id": 2,
  "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_interleaved": false, "rope_scaling": null,
  "rope_theta": 100000, "tie_word_embeddings": true, "torch_dtype": "bfloat16",
  "transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16"}},
  "transformers_version": "4.42.3", "use_cache": true, "vocab_size": 49152})";

constexpr const char* kLlama5 = R"({
  "attention_bias": false, "attention_dropout": 0.0, "bos_token_id": 1, "dtype": "float16",
  "eos_token_id": 2, "head_dim": 64, "hidden_act": "silu", "hidden_size": 576,
  "initializer_range": 0.02, "intermediate_size": 1536, "max_position_embeddings": 2048,
  "mlp_bias": false, "model_type": "llama", "num_attention_heads": 9, "num_hidden_layers": 2,
  "num_key_value_heads": 3, "pad_token_id": null, "pretraining_tp": 1, "rms_norm_eps": 1e-06,
  "rope_parameters": {"rope_theta": 100000.0, "rope_type": "default"},
  "tie_word_embeddings": false, "transformers_version": "5.23.0", "use_cache": true,
  "vocab_size": 49152})";

ModelConfig Parse(const std::string& text) { return ParseModelConfig(text, "config.json"); }

// `base` with keys set; an edit of "absent" takes the key out.
std::string Edited(const char* base, const Json& edits) {
  Json json = Json::parse(base);
  for (const auto& [key, value] : edits.items()) {
    json[key] = value;
    if (value == "absent") json.erase(key);
  }
  return json.dump();
}

TEST(Config, Qwen2OfTransformers4) {
  const ModelConfig c = Parse(kQwen4);
  EXPECT_EQ(c.model_type, "qwen2");
  EXPECT_EQ(c.vocab_size, 151936);
  EXPECT_EQ(c.hidden_size, 896);
  EXPECT_EQ(c.intermediate_size, 4864);
  EXPECT_EQ(c.num_hidden_layers, 24);
  EXPECT_EQ(c.num_attention_heads, 14);
  EXPECT_EQ(c.num_key_value_heads, 2);
  EXPECT_EQ(c.head_dim, 64);
  EXPECT_EQ(c.max_position_embeddings, 32768);
  EXPECT_EQ(c.rms_norm_eps, 1e-6);
  EXPECT_EQ(c.rope_theta, 1e6);
  EXPECT_EQ(c.hidden_act, "silu");
  EXPECT_TRUE(c.tie_word_embeddings);
  EXPECT_TRUE(c.attention_bias);
  EXPECT_EQ(c.dtype, DType::kBF16);
  EXPECT_THAT(c.eos_token_ids, ElementsAre(151645));
  EXPECT_EQ(c.bos_token_id, 151643);
  EXPECT_THAT(c.unsupported, IsEmpty());
}

TEST(Config, Qwen2OfTransformers5) {
  const ModelConfig c = Parse(kQwen5);
  EXPECT_EQ(c.rope_theta, 1e6);
  EXPECT_EQ(c.dtype, DType::kBF16);
  EXPECT_THAT(c.eos_token_ids, ElementsAre(151645, 151643));
  EXPECT_THAT(c.unsupported, IsEmpty());
}

TEST(Config, LlamaOfTransformers4) {
  const ModelConfig c = Parse(kLlama4);
  EXPECT_EQ(c.model_type, "llama");
  EXPECT_FALSE(c.attention_bias);
  EXPECT_EQ(c.head_dim, 64);
  EXPECT_EQ(c.rope_theta, 1e5);
  EXPECT_EQ(c.rms_norm_eps, 1e-5);
  EXPECT_THAT(c.unsupported, IsEmpty());
}

TEST(Config, LlamaOfTransformers5) {
  const ModelConfig c = Parse(kLlama5);
  EXPECT_FALSE(c.tie_word_embeddings);
  EXPECT_EQ(c.rope_theta, 1e5);
  EXPECT_EQ(c.dtype, DType::kF16);
  EXPECT_THAT(c.unsupported, IsEmpty());
}

TEST(Config, WhatIsLeftOutHasTransformersDefaults) {
  const ModelConfig c = Parse(R"({"model_type": "llama", "vocab_size": 100, "hidden_size": 64,
      "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4})");
  EXPECT_EQ(c.num_key_value_heads, 4);
  EXPECT_EQ(c.head_dim, 16);
  EXPECT_EQ(c.rms_norm_eps, 1e-6);
  EXPECT_EQ(c.rope_theta, 10000.0);
  EXPECT_EQ(c.hidden_act, "silu");
  EXPECT_FALSE(c.tie_word_embeddings);
  EXPECT_EQ(c.dtype, DType::kF32);
  EXPECT_THAT(c.eos_token_ids, IsEmpty());
  EXPECT_EQ(c.bos_token_id, -1);
}

TEST(Config, NullIsAsLeftOut) {
  const ModelConfig c = Parse(Edited(kQwen4, {{"num_key_value_heads", nullptr},
                                              {"head_dim", nullptr},
                                              {"rope_scaling", nullptr},
                                              {"eos_token_id", nullptr},
                                              {"bos_token_id", nullptr},
                                              {"torch_dtype", nullptr},
                                              {"quantization_config", nullptr},
                                              {"layer_types", nullptr},
                                              {"new_key", nullptr}}));
  EXPECT_EQ(c.num_key_value_heads, 14);
  EXPECT_EQ(c.dtype, DType::kF32);
  EXPECT_THAT(c.unsupported, IsEmpty());
}

TEST(Config, DTypeGoesBeforeTorchDType) {
  EXPECT_EQ(Parse(Edited(kQwen4, {{"dtype", "float16"}})).dtype, DType::kF16);
}

TEST(Config, RopeParametersGoBeforeTheOldKey) {
  const ModelConfig c = Parse(Edited(kQwen5, {{"rope_theta", 10000.0}}));
  EXPECT_EQ(c.rope_theta, 1e6);
}

TEST(Config, OldSpellingOfNoScaling) {
  EXPECT_THAT(Parse(Edited(kQwen4, {{"rope_scaling", {{"type", "default"}}}})).unsupported,
              IsEmpty());
}

// Legal settings that change the result and are not done: named, never ignored.
TEST(Config, NotSupportedIsNamed) {
  struct Case {
    const char* base;
    Json edit;
    const char* named;
  };
  const Case cases[] = {
      {kLlama5, {{"attention_bias", true}}, "attention_bias"},
      {kLlama5, {{"mlp_bias", true}}, "mlp_bias"},
      {kQwen4, {{"use_sliding_window", true}}, "use_sliding_window"},
      {kQwen4, {{"is_encoder_decoder", true}}, "is_encoder_decoder"},
      {kQwen4, {{"add_cross_attention", true}}, "add_cross_attention"},
      {kLlama4, {{"rope_interleaved", true}}, "rope_interleaved"},
      {kQwen4, {{"hidden_act", "gelu"}}, "hidden_act is \"gelu\""},
      {kQwen4, {{"quantization_config", {{"quant_method", "gptq"}}}}, "quantization_config"},
      {kLlama4, {{"pretraining_tp", 2}}, "pretraining_tp is 2"},
      {kLlama5, {{"partial_rotary_factor", 0.5}}, "partial_rotary_factor is 0.5"},
      {kQwen5, {{"layer_types", {"full_attention", "sliding_attention"}}}, "sliding_attention"},
      {kQwen4, {{"rope_scaling", {{"type", "yarn"}, {"factor", 4.0}}}}, "rope_scaling.type"},
      {kQwen4, {{"rope_scaling", {{"rope_type", "llama3"}}}}, "rope_scaling.rope_type"},
      {kQwen5, {{"rope_parameters", {{"rope_type", "linear"}, {"factor", 2}}}}, "\"linear\""},
      {kQwen5, {{"rope_parameters", {{"rope_theta", 1e4}, {"factor", 2}}}}, "\"factor\" = 2"},
      {kQwen5, {{"rope_parameters", {{"partial_rotary_factor", 0.5}}}}, "partial_rotary_factor"},
      {kQwen4, {{"logit_scale", 0.5}}, "unknown key \"logit_scale\" = 0.5"},
      {kQwen4, {{"qk_norm", true}}, "unknown key \"qk_norm\""},
  };
  for (const Case& c : cases) {
    const ModelConfig config = Parse(Edited(c.base, c.edit));
    EXPECT_THAT(config.unsupported, ElementsAre(HasSubstr(c.named))) << c.edit;
  }
}

TEST(Config, NotSupportedAtAll) {
  const auto error = [](const Json& edit) {
    return ErrorOf(ErrorCode::kUnsupported, [&] { Parse(Edited(kQwen4, edit)); });
  };
  EXPECT_THAT(error({{"model_type", "gpt2"}}), HasSubstr("model_type \"gpt2\""));
  EXPECT_THAT(error({{"model_type", "qwen2_moe"}}), HasSubstr("qwen2 and llama"));
  EXPECT_THAT(error({{"torch_dtype", "float8_e4m3fn"}}), HasSubstr("torch_dtype"));
  EXPECT_THAT(error({{"dtype", "int8"}}), HasSubstr("dtype \"int8\""));
}

TEST(Config, SizesThatAreNone) {
  for (const char* key : {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
                          "num_attention_heads", "num_key_value_heads"}) {
    for (const Json& value :
         {Json(0), Json(-1), Json(1.5), Json(64.0), Json("64"), Json(true), Json::array({64}),
          Json(int64_t{1} << 40), Json(~uint64_t{0}), Json(1e30)}) {
      EXPECT_THAT(
          ErrorOf(ErrorCode::kBadInput,
                  [&] {
                    Parse(Edited(kQwen4, {{key, value}}));
                  }),
          AllOf(StartsWith("config.json: '"), HasSubstr(key), HasSubstr("expected an integer")))
          << key << value;
    }
    if (std::string(key) == "num_key_value_heads") continue;
    EXPECT_THAT(ErrorOf(ErrorCode::kBadInput,
                        [&] {
                          Parse(Edited(kQwen4, {{key, "absent"}}));
                        }),
                AllOf(HasSubstr(key), HasSubstr("found nothing")));
  }
}

TEST(Config, InvalidValuesAreNamed) {
  struct Case {
    Json edit;
    const char* named;
  };
  const Case cases[] = {
      {{{"model_type", "absent"}}, "model_type"},
      {{{"model_type", 2}}, "model_type"},
      {{{"num_hidden_layers", 10001}}, "num_hidden_layers"},
      {{{"num_attention_heads", 15}}, "num_attention_heads"},
      {{{"num_key_value_heads", 3}}, "num_key_value_heads"},
      {{{"num_key_value_heads", 28}}, "num_key_value_heads"},
      {{{"head_dim", 0}}, "head_dim"},
      {{{"head_dim", 63}}, "head_dim"},
      {{{"head_dim", 1 << 24}}, "head_dim"},
      {{{"head_dim", "64"}}, "head_dim"},
      {{{"max_position_embeddings", 0}}, "max_position_embeddings"},
      {{{"max_position_embeddings", int64_t{1} << 40}}, "max_position_embeddings"},
      {{{"rms_norm_eps", -1e-6}}, "rms_norm_eps"},
      {{{"rms_norm_eps", 2}}, "rms_norm_eps"},
      {{{"rms_norm_eps", "1e-6"}}, "rms_norm_eps"},
      {{{"rope_theta", 0}}, "rope_theta"},
      {{{"rope_theta", -1e6}}, "rope_theta"},
      {{{"rope_theta", 1e300}}, "rope_theta"},
      {{{"rope_theta", "big"}}, "rope_theta"},
      {{{"rope_parameters", {1, 2}}}, "rope_parameters"},
      {{{"rope_parameters", {{"rope_theta", 0}}}}, "rope_parameters: 'rope_theta'"},
      {{{"rope_parameters", {{"rope_type", 3}}}}, "rope_parameters: 'rope_type'"},
      {{{"rope_scaling", "linear"}}, "rope_scaling"},
      {{{"hidden_act", 1}}, "hidden_act"},
      {{{"tie_word_embeddings", "yes"}}, "tie_word_embeddings"},
      {{{"tie_word_embeddings", 1}}, "tie_word_embeddings"},
      {{{"torch_dtype", 16}}, "torch_dtype"},
      {{{"eos_token_id", "two"}}, "eos_token_id"},
      {{{"eos_token_id", -1}}, "eos_token_id"},
      {{{"eos_token_id", {1, 2.5}}}, "eos_token_id"},
      {{{"eos_token_id", {{"id", 1}}}}, "eos_token_id"},
      {{{"eos_token_id", int64_t{1} << 31}}, "eos_token_id"},
      {{{"bos_token_id", -2}}, "bos_token_id"},
      {{{"bos_token_id", ~uint64_t{0}}}, "bos_token_id"},  // not -1
      {{{"use_sliding_window", "no"}}, "use_sliding_window"},
      {{{"layer_types", "full_attention"}}, "layer_types"},
  };
  for (const Case& c : cases) {
    EXPECT_THAT(ErrorOf(ErrorCode::kBadInput, [&] { Parse(Edited(kQwen4, c.edit)); }),
                AllOf(StartsWith("config.json: "), HasSubstr(c.named)))
        << c.edit;
  }
}

TEST(Config, WhatIsNoObject) {
  for (const char* text : {"", "[]", "null", "3", "{", "{\"model_type\": \"qwen2\"",
                           "{\"hidden_size\": 1, \"hidden_size\": 1}"}) {
    EXPECT_THAT(ErrorOf(ErrorCode::kBadInput, [&] { Parse(text); }), StartsWith("config.json: "));
  }
}

TEST(Config, ReadFromAFolder) {
  const TempFolder folder;
  EXPECT_THAT(ErrorOf(ErrorCode::kIo, [&] { ReadModelConfig(folder.path()); }),
              StartsWith(folder / "config.json"));
  folder.Write("config.json", kQwen5);
  EXPECT_EQ(ReadModelConfig(folder.path()).hidden_size, 896);
}

TEST(Config, CorpusIsJudgedAsItsNamesSay) {
  int files = 0;
  for (const auto& entry :
       std::filesystem::directory_iterator(SAMEBITS_SOURCE_DIR "/tests/corpus/config")) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with("ok_") && !name.starts_with("bad_")) continue;
    ++files;
    bool fine = false;
    try {
      fine = ParseModelConfig(ReadBytes(entry.path()), name).unsupported.empty();
    } catch (const Error&) {  // refused
    }
    EXPECT_EQ(fine, name.starts_with("ok_")) << name;
  }
  EXPECT_GE(files, 30);
}

}  // namespace
}  // namespace samebits
