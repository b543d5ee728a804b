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
  EXPECT_EQ(c.rope.theta, 1e6);
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
  EXPECT_EQ(c.rope.theta, 1e6);
  EXPECT_EQ(c.dtype, DType::kBF16);
  EXPECT_THAT(c.eos_token_ids, ElementsAre(151645, 151643));
  EXPECT_THAT(c.unsupported, IsEmpty());
}

TEST(Config, LlamaOfTransformers4) {
  const ModelConfig c = Parse(kLlama4);
  EXPECT_EQ(c.model_type, "llama");
  EXPECT_FALSE(c.attention_bias);
  EXPECT_EQ(c.head_dim, 64);
  EXPECT_EQ(c.rope.theta, 1e5);
  EXPECT_EQ(c.rms_norm_eps, 1e-5);
  EXPECT_THAT(c.unsupported, IsEmpty());
}

TEST(Config, LlamaOfTransformers5) {
  const ModelConfig c = Parse(kLlama5);
  EXPECT_FALSE(c.tie_word_embeddings);
  EXPECT_EQ(c.rope.theta, 1e5);
  EXPECT_EQ(c.dtype, DType::kF16);
  EXPECT_THAT(c.unsupported, IsEmpty());
}

TEST(Config, WhatIsLeftOutHasTransformersDefaults) {
  const ModelConfig c = Parse(R"({"model_type": "llama", "vocab_size": 100, "hidden_size": 64,
      "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4})");
  EXPECT_EQ(c.num_key_value_heads, 4);
  EXPECT_EQ(c.head_dim, 16);
  EXPECT_EQ(c.rms_norm_eps, 1e-6);
  EXPECT_EQ(c.rope.theta, 10000.0);
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
  EXPECT_EQ(c.rope.theta, 1e6);
}

// What Qwen3 and Mistral add.
Json Small(const char* model_type) {
  return {{"model_type", model_type}, {"vocab_size", 100},      {"hidden_size", 64},
          {"intermediate_size", 128}, {"num_hidden_layers", 4}, {"num_attention_heads", 32},
          {"num_key_value_heads", 8}, {"head_dim", 16},         {"max_position_embeddings", 64}};
}

ModelConfig ParseWith(Json base, const Json& edits) {
  for (const auto& [key, value] : edits.items()) {
    base[key] = value;
    if (value == "absent") base.erase(key);
  }
  return Parse(base.dump());
}

TEST(Config, Qwen3) {
  const ModelConfig c = ParseWith(Small("qwen3"), {{"head_dim", "absent"}});
  EXPECT_TRUE(c.qk_norm);
  EXPECT_FALSE(c.attention_bias);
  EXPECT_FALSE(c.o_proj_bias);
  EXPECT_EQ(c.head_dim, 128);  // not hidden_size / num_attention_heads
  EXPECT_THAT(c.layer_windows, ElementsAre(0, 0, 0, 0));
  const ModelConfig biased = ParseWith(Small("qwen3"), {{"attention_bias", true}});
  EXPECT_TRUE(biased.attention_bias);
  EXPECT_TRUE(biased.o_proj_bias);
  EXPECT_THAT(biased.unsupported, IsEmpty());
}

TEST(Config, BiasesOfEachFamily) {
  const ModelConfig llama =
      ParseWith(Small("llama"), {{"attention_bias", true}, {"mlp_bias", true}});
  EXPECT_TRUE(llama.attention_bias);
  EXPECT_TRUE(llama.o_proj_bias);
  EXPECT_TRUE(llama.mlp_bias);
  const ModelConfig qwen2 = ParseWith(Small("qwen2"), {{"attention_bias", true}});
  EXPECT_TRUE(qwen2.attention_bias);
  EXPECT_FALSE(qwen2.o_proj_bias);
  const ModelConfig mistral = ParseWith(Small("mistral"), Json::object());
  EXPECT_FALSE(mistral.attention_bias);
  EXPECT_FALSE(mistral.qk_norm);
}

TEST(Config, AbsentSizesHaveTheFamilysDefaults) {
  const Json edits = {{"num_key_value_heads", "absent"}, {"max_position_embeddings", "absent"}};
  EXPECT_EQ(ParseWith(Small("mistral"), edits).num_key_value_heads, 8);
  EXPECT_EQ(ParseWith(Small("mistral"), edits).max_position_embeddings, 131072);
  EXPECT_EQ(ParseWith(Small("qwen2"), edits).num_key_value_heads, 32);
  EXPECT_EQ(ParseWith(Small("qwen3"), edits).max_position_embeddings, 32768);
  EXPECT_EQ(ParseWith(Small("llama"), edits).num_key_value_heads, 32);
  EXPECT_EQ(ParseWith(Small("llama"), edits).max_position_embeddings, 2048);
}

// As transformers 5 reads them: docs/architectures.md.
TEST(Config, Windows) {
  const auto windows = [](const char* type, const Json& edits) {
    const ModelConfig c = ParseWith(Small(type), edits);
    EXPECT_THAT(c.unsupported, IsEmpty());
    return c.layer_windows;
  };
  EXPECT_THAT(windows("mistral", Json::object()), ElementsAre(4096, 4096, 4096, 4096));
  EXPECT_THAT(windows("mistral", {{"sliding_window", nullptr}}), ElementsAre(0, 0, 0, 0));
  EXPECT_THAT(windows("mistral", {{"sliding_window", 7}}), ElementsAre(7, 7, 7, 7));
  EXPECT_THAT(windows("llama", {{"sliding_window", 7}}), ElementsAre(0, 0, 0, 0));
  for (const char* type : {"qwen2", "qwen3"}) {
    const Json first = {{"sliding_window", 7}, {"max_window_layers", 3}};
    EXPECT_THAT(windows(type, first), ElementsAre(0, 0, 0, 0));  // not used
    Json used = first;
    used["use_sliding_window"] = true;
    EXPECT_THAT(windows(type, used), ElementsAre(0, 0, 0, 7));
    used["max_window_layers"] = "absent";  // 28
    EXPECT_THAT(windows(type, used), ElementsAre(0, 0, 0, 0));
    used["max_window_layers"] = 0;
    used["sliding_window"] = "absent";
    EXPECT_THAT(windows(type, used), ElementsAre(4096, 4096, 4096, 4096));
    used["sliding_window"] = nullptr;
    EXPECT_THAT(windows(type, used), ElementsAre(0, 0, 0, 0));
    used["sliding_window"] = 9;
    used["layer_types"] = {"sliding_attention", "full_attention", "sliding_attention",
                           "full_attention"};
    EXPECT_THAT(windows(type, used), ElementsAre(9, 0, 9, 0));
  }
}

RopeParameters Rope(const Json& rope, const Json& more = Json::object()) {
  Json edits = more;
  edits["rope_scaling"] = rope;
  const ModelConfig c = ParseWith(Small("llama"), edits);
  EXPECT_THAT(c.unsupported, IsEmpty()) << rope;
  edits.erase("rope_scaling");
  edits["rope_parameters"] = rope;  // the new spelling means the same
  EXPECT_EQ(ParseWith(Small("llama"), edits).rope, c.rope);
  return c.rope;
}

TEST(Config, RopeOfEveryKind) {
  EXPECT_EQ(Rope({{"rope_type", "default"}}), RopeParameters{});
  RopeParameters r = Rope({{"type", "linear"}, {"factor", 4}}, {{"rope_theta", 5e5}});
  EXPECT_EQ(r.kind, RopeKind::kLinear);
  EXPECT_EQ(r.factor, 4);
  EXPECT_EQ(r.theta, 5e5);
  r = Rope({{"rope_type", "dynamic"}, {"factor", 2.5}, {"original_max_position_embeddings", 8}});
  EXPECT_EQ(r.kind, RopeKind::kDynamic);
  EXPECT_EQ(r.original_length, 64) << "max_position_embeddings, as transformers";
  const Json llama3 = {{"rope_type", "llama3"},
                       {"factor", 8.0},
                       {"low_freq_factor", 1.0},
                       {"high_freq_factor", 4.0},
                       {"original_max_position_embeddings", 16}};
  r = Rope(llama3);
  EXPECT_EQ(r.kind, RopeKind::kLlama3);
  EXPECT_EQ(r.original_length, 16);
  EXPECT_EQ(r.low_freq_factor, 1);
  EXPECT_EQ(r.high_freq_factor, 4);
  EXPECT_EQ(Rope(llama3, {{"original_max_position_embeddings", 32}}).original_length, 32);
  r = Rope({{"type", "yarn"}, {"factor", 4.0}});
  EXPECT_EQ(r.kind, RopeKind::kYarn);
  EXPECT_EQ(r.original_length, 64);
  EXPECT_EQ(r.beta_fast, 32);
  EXPECT_EQ(r.beta_slow, 1);
  EXPECT_TRUE(r.truncate);
  EXPECT_FALSE(r.attention_factor.has_value());
  r = Rope({{"rope_type", "yarn"},
            {"type", "linear"},  // rope_type goes first
            {"rope_theta", 1e6},
            {"factor", nullptr},
            {"original_max_position_embeddings", 16},
            {"attention_factor", 0.9},
            {"beta_fast", 16},
            {"beta_slow", 0},  // Python's `or`: the default
            {"mscale", 0.7},
            {"mscale_all_dim", 1.1},
            {"truncate", false}},
           {{"rope_theta", 2e4}});
  EXPECT_EQ(r.kind, RopeKind::kYarn);
  EXPECT_EQ(r.theta, 1e6);
  EXPECT_EQ(r.factor, 4) << "max_position_embeddings over the original";
  EXPECT_EQ(r.attention_factor, 0.9);
  EXPECT_EQ(r.beta_fast, 16);
  EXPECT_EQ(r.beta_slow, 1);
  EXPECT_EQ(r.mscale, 0.7);
  EXPECT_EQ(r.mscale_all_dim, 1.1);
  EXPECT_FALSE(r.truncate);
}

TEST(Config, RopeScalingGoesBeforeRopeParametersUnlessItIsEmpty) {
  const Json linear = {{"rope_type", "linear"}, {"factor", 2}};
  const Json yarn = {{"rope_type", "yarn"}, {"factor", 4}};
  const auto kind = [&](const Json& scaling) {
    return ParseWith(Small("llama"), {{"rope_scaling", scaling}, {"rope_parameters", yarn}})
        .rope.kind;
  };
  EXPECT_EQ(kind(linear), RopeKind::kLinear);
  EXPECT_EQ(kind(Json::object()), RopeKind::kYarn);
  EXPECT_EQ(kind(nullptr), RopeKind::kYarn);
}

TEST(Config, TheContextEndsWhereTheScalingEnds) {
  const auto length = [](const Json& rope) {
    return ParseWith(Small("llama"), {{"rope_scaling", rope}}).context_length;
  };
  EXPECT_EQ(length(nullptr), 64);
  EXPECT_EQ(length({{"type", "linear"}, {"factor", 2}}), 128);
  EXPECT_EQ(length({{"type", "dynamic"}, {"factor", 1.5}}), 96);
  EXPECT_EQ(length({{"type", "yarn"}, {"factor", 4}}), 256);
  EXPECT_EQ(length({{"type", "yarn"}, {"factor", 4}, {"original_max_position_embeddings", 16}}),
            64);
  EXPECT_EQ(length({{"type", "llama3"},
                    {"factor", 8},
                    {"low_freq_factor", 1},
                    {"high_freq_factor", 4},
                    {"original_max_position_embeddings", 16}}),
            64);
}

TEST(Config, HostileRopeNumbersAreNamed) {
  const Json bases[] = {
      {{"rope_type", "linear"}, {"factor", 2}},
      {{"rope_type", "dynamic"}, {"factor", 2}},
      {{"rope_type", "yarn"}, {"factor", 2}, {"original_max_position_embeddings", 16}},
      {{"rope_type", "llama3"},
       {"factor", 2},
       {"low_freq_factor", 1},
       {"high_freq_factor", 4},
       {"original_max_position_embeddings", 16}}};
  const Json values[] = {0, -1, 0.5, 1e308, -1e308, "2", true, Json::array({2}), 1e-300};
  const auto refused = [](const Json& rope, const char* named) {
    EXPECT_THAT(ErrorOf(ErrorCode::kBadInput,
                        [&] {
                          ParseWith(Small("llama"), {{"rope_scaling", rope}});
                        }),
                AllOf(StartsWith("config.json"), HasSubstr(named)))
        << rope;
  };
  for (const Json& base : bases) {
    for (const Json& value : values) {
      Json rope = base;
      rope["factor"] = value;
      refused(rope, "factor");
      rope = base;
      rope["rope_theta"] = value;
      if (value != 1.0) refused(rope, "rope_theta");
    }
    Json rope = base;
    rope.erase("factor");
    refused(rope, "factor");
  }
  Json rope = bases[2];
  rope["rope_theta"] = 1;
  refused(rope, "rope_theta");
  for (const char* key : {"attention_factor", "beta_fast", "beta_slow", "mscale"}) {
    for (const Json& value : {Json(-1), Json(1e308), Json("1"), Json(true)}) {
      rope = bases[2];
      rope[key] = value;
      refused(rope, key);
    }
  }
  rope = bases[2];
  rope["beta_slow"] = 33;
  refused(rope, "beta_slow");
  rope = bases[2];
  rope["truncate"] = 1;
  refused(rope, "truncate");
  for (const char* key : {"low_freq_factor", "high_freq_factor"}) {
    for (const Json& value : {Json(0), Json(-1), Json(1e308), Json("1")}) {
      rope = bases[3];
      rope[key] = value;
      refused(rope, key);
    }
  }
  rope = bases[3];
  rope["high_freq_factor"] = 1;
  refused(rope, "high_freq_factor");
  for (const Json& base : {bases[2], bases[3]}) {
    for (const Json& value :
         {Json(0), Json(-4), Json(int64_t{1} << 40), Json(1e300), Json(16.5), Json("16")}) {
      rope = base;
      rope["original_max_position_embeddings"] = value;
      refused(rope, "original_max_position_embeddings");
    }
  }
  EXPECT_THAT(ErrorOf(ErrorCode::kBadInput,
                      [&] {
                        ParseWith(Small("llama"), {{"rope_scaling", bases[1]}, {"head_dim", 2}});
                      }),
              HasSubstr("dynamic"));
}

TEST(Config, HostileWindowsAreNamed) {
  for (const Json& value : {Json(0), Json(-1), Json(int64_t{1} << 40), Json("7"), Json(1.5)}) {
    EXPECT_THAT(ErrorOf(ErrorCode::kBadInput,
                        [&] {
                          ParseWith(Small("mistral"), {{"sliding_window", value}});
                        }),
                HasSubstr("sliding_window"));
  }
  const auto error = [](const Json& edits) {
    return ErrorOf(ErrorCode::kBadInput, [&] { ParseWith(Small("qwen3"), edits); });
  };
  EXPECT_THAT(error({{"use_sliding_window", true}, {"max_window_layers", -1}}),
              HasSubstr("max_window_layers"));
  EXPECT_THAT(error({{"layer_types", {"full_attention"}}}), HasSubstr("expected 4"));
  const Json types = {"sliding_attention", "full_attention", "full_attention", "full_attention"};
  EXPECT_THAT(error({{"layer_types", types}}), HasSubstr("sliding_window"));
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
      {kQwen4, {{"mlp_bias", true}}, "mlp_bias"},
      {kQwen4, {{"is_encoder_decoder", true}}, "is_encoder_decoder"},
      {kQwen4, {{"add_cross_attention", true}}, "add_cross_attention"},
      {kLlama4, {{"rope_interleaved", true}}, "rope_interleaved"},
      {kQwen4, {{"hidden_act", "gelu"}}, "hidden_act is \"gelu\""},
      {kQwen4, {{"quantization_config", {{"quant_method", "gptq"}}}}, "quantization_config"},
      {kLlama4, {{"pretraining_tp", 2}}, "pretraining_tp is 2"},
      {kLlama5, {{"partial_rotary_factor", 0.5}}, "partial_rotary_factor is 0.5"},
      {kQwen5, {{"layer_types", {"full_attention", "chunked_attention"}}}, "chunked_attention"},
      {kQwen4, {{"rope_scaling", {{"type", "longrope"}}}}, "rope_scaling.type is \"longrope\""},
      {kQwen4, {{"rope_scaling", {{"rope_type", "su"}}}}, "rope_scaling.rope_type is \"su\""},
      {kQwen4, {{"rope_scaling", {{"type", "mrope"}}}}, "\"mrope\""},
      {kQwen5, {{"rope_parameters", {{"rope_theta", 1e4}, {"factor", 2}}}}, "\"factor\" = 2"},
      {kQwen5, {{"rope_parameters", {{"partial_rotary_factor", 0.5}}}}, "partial_rotary_factor"},
      {kQwen5,
       {{"rope_parameters", {{"full_attention", {{"rope_theta", 1e6}}}}}},
       "an embedding for each layer type"},
      {kQwen5,
       {{"rope_parameters", {{"rope_type", "linear"}, {"factor", 2}, {"mrope_section", {8, 12}}}}},
       "mrope_section"},
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
  EXPECT_THAT(error({{"model_type", "qwen2_moe"}}), HasSubstr("mistral, qwen2 and qwen3"));
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
      {{{"attention_bias", 1}, {"model_type", "llama"}}, "attention_bias"},
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
