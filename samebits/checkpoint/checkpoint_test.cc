// Folders in order and folders that contradict themselves: shards, index, names, shapes, dtypes.
#include "samebits/checkpoint/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "samebits/base/errors_testing.h"
#include "samebits/base/json.h"
#include "samebits/checkpoint/safetensors_testing.h"

namespace samebits {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

constexpr const char* kIndex = "model.safetensors.index.json";

// A checkpoint of one layer, as files that a test can change before it opens them.
class CheckpointTest : public testing::Test {
 protected:
  CheckpointTest() {
    config_ = {{"model_type", "qwen2"},    {"vocab_size", 10},
               {"hidden_size", 8},         {"intermediate_size", 12},
               {"num_hidden_layers", 1},   {"num_attention_heads", 2},
               {"num_key_value_heads", 1}, {"tie_word_embeddings", true},
               {"dtype", "bfloat16"}};
    for (const ExpectedTensor& t : Expected()) tensors_[t.name] = {t.name, DType::kBF16, t.shape};
  }

  std::vector<ExpectedTensor> Expected() const {
    return ExpectedTensors(ParseModelConfig(config_.dump(), "config.json"));
  }
  void WriteConfig() const { folder_.Write("config.json", config_.dump()); }
  std::vector<TensorSpec> All() const {
    std::vector<TensorSpec> all;
    for (const DType dtype : {DType::kI64, DType::kF32, DType::kBF16, DType::kF16}) {
      for (const auto& [name, spec] : tensors_) {
        if (spec.dtype == dtype) all.push_back(spec);
      }
    }
    return all;
  }
  void WriteSingle() const {
    WriteConfig();
    folder_.Write("model.safetensors", SafetensorsBytes(All(), {{"format", "pt"}}));
  }
  // Every second tensor into the second shard; `index` as it should be.
  Json WriteShards() const {
    WriteConfig();
    std::vector<TensorSpec> shards[2];
    Json index = {{"metadata", {{"total_size", 1}}}, {"weight_map", Json::object()}};
    int next = 0;
    for (const TensorSpec& spec : All()) {
      index["weight_map"][spec.name] = next == 0 ? "a.safetensors" : "b.safetensors";
      shards[next].push_back(spec);
      next = 1 - next;
    }
    folder_.Write("a.safetensors", SafetensorsBytes(shards[0]));
    folder_.Write("b.safetensors", SafetensorsBytes(shards[1]));
    return index;
  }
  void WriteIndex(const Json& index) const { folder_.Write(kIndex, index.dump()); }

  Checkpoint Open() const { return Checkpoint::Open(folder_.path()); }
  std::string OpenError(ErrorCode code = ErrorCode::kBadInput) const {
    std::string message = ErrorOf(code, [this] { Open(); });
    EXPECT_THAT(message, HasSubstr(folder_.path()));
    return message;
  }

  TempFolder folder_;
  Json config_;
  std::map<std::string, TensorSpec> tensors_;
};

TEST_F(CheckpointTest, ExpectedNamesAndShapes) {
  std::map<std::string, Shape> shapes;
  for (const ExpectedTensor& t : Expected()) shapes[t.name] = t.shape;
  const std::string layer = "model.layers.0.";
  const std::map<std::string, Shape> qwen2 = {
      {"model.embed_tokens.weight", {10, 8}},      {layer + "input_layernorm.weight", {8}},
      {layer + "self_attn.q_proj.weight", {8, 8}}, {layer + "self_attn.q_proj.bias", {8}},
      {layer + "self_attn.k_proj.weight", {4, 8}}, {layer + "self_attn.k_proj.bias", {4}},
      {layer + "self_attn.v_proj.weight", {4, 8}}, {layer + "self_attn.v_proj.bias", {4}},
      {layer + "self_attn.o_proj.weight", {8, 8}}, {layer + "post_attention_layernorm.weight", {8}},
      {layer + "mlp.gate_proj.weight", {12, 8}},   {layer + "mlp.up_proj.weight", {12, 8}},
      {layer + "mlp.down_proj.weight", {8, 12}},   {"model.norm.weight", {8}}};
  EXPECT_EQ(shapes, qwen2);
  config_["model_type"] = "llama";
  config_["head_dim"] = 6;  // not hidden_size / num_attention_heads
  config_["tie_word_embeddings"] = false;
  shapes.clear();
  for (const ExpectedTensor& t : Expected()) shapes[t.name] = t.shape;
  EXPECT_EQ(shapes.size(), 12U);  // no biases, and the head
  EXPECT_EQ(shapes.at("lm_head.weight"), (Shape{10, 8}));
  EXPECT_EQ(shapes.at(layer + "self_attn.q_proj.weight"), (Shape{12, 8}));
  EXPECT_EQ(shapes.at(layer + "self_attn.k_proj.weight"), (Shape{6, 8}));
  EXPECT_EQ(shapes.at(layer + "self_attn.o_proj.weight"), (Shape{8, 12}));
}

TEST_F(CheckpointTest, SingleFile) {
  tensors_["model.norm.weight"].data = ValueBytes<uint16_t>({1, 2, 3, 4, 5, 6, 7, 8});
  WriteSingle();
  const Checkpoint checkpoint = Open();
  EXPECT_EQ(checkpoint.folder(), folder_.path());
  EXPECT_EQ(checkpoint.config().hidden_size, 8);
  EXPECT_EQ(checkpoint.files().size(), 1U);
  EXPECT_EQ(checkpoint.Get("model.norm.weight").as<uint16_t>()[7], 8);
  EXPECT_EQ(checkpoint.Find("lm_head.weight"), nullptr);
}

TEST_F(CheckpointTest, EveryDTypeOfAModel) {
  tensors_["model.norm.weight"].dtype = DType::kF32;
  tensors_["model.embed_tokens.weight"].dtype = DType::kF16;
  WriteSingle();
  EXPECT_EQ(Open().Get("model.norm.weight").dtype, DType::kF32);
}

TEST_F(CheckpointTest, Sharded) {
  WriteIndex(WriteShards());
  const Checkpoint checkpoint = Open();
  EXPECT_EQ(checkpoint.files().size(), 2U);
  for (const ExpectedTensor& t : Expected()) EXPECT_EQ(checkpoint.Get(t.name).shape, t.shape);
}

TEST_F(CheckpointTest, IndexWithoutMetadata) {
  Json index = WriteShards();
  index.erase("metadata");
  WriteIndex(index);
  EXPECT_NO_THROW(Open());
}

TEST_F(CheckpointTest, NoFolderNoConfigNoWeights) {
  EXPECT_THAT(ErrorOf(ErrorCode::kIo, [&] { Checkpoint::Open(folder_ / "absent"); }),
              HasSubstr("not a folder"));
  EXPECT_THAT(OpenError(ErrorCode::kIo), HasSubstr("config.json"));
  WriteConfig();
  EXPECT_THAT(OpenError(ErrorCode::kIo), AllOf(HasSubstr("model.safetensors"), HasSubstr(kIndex)));
  const std::string file = folder_.Write("file", "x");
  EXPECT_THAT(ErrorOf(ErrorCode::kIo, [&] { Checkpoint::Open(file); }), HasSubstr("not a folder"));
}

TEST_F(CheckpointTest, IndexOfAnotherForm) {
  WriteShards();
  for (const char* text : {"", "[]", "{}", "{\"weight_map\": []}", "{\"weight_map\": {}}",
                           "{\"weight_map\": {\"a\": 1}}", "{\"weight_map\": {\"a\": null}}",
                           "{\"weight_map\": {\"a\": \"x\", \"a\": \"x\"}}"}) {
    folder_.Write(kIndex, text);
    EXPECT_THAT(OpenError(), HasSubstr(kIndex)) << text;
  }
}

TEST_F(CheckpointTest, ShardNamesStayInTheFolder) {
  const Json index = WriteShards();
  for (const char* name : {"", "..", "../a.safetensors", "/etc/passwd", "x/a.safetensors",
                           "a..safetensors", "..\\a.safetensors", "x\\a.safetensors"}) {
    Json edited = index;
    edited["weight_map"]["model.norm.weight"] = name;
    WriteIndex(edited);
    EXPECT_THAT(OpenError(), AllOf(HasSubstr("model.norm.weight"), HasSubstr("plain file name")))
        << name;
  }
  Json edited = index;
  edited["weight_map"]["model.norm.weight"] = std::string("a.safetensors\0x", 15);
  WriteIndex(edited);
  EXPECT_THAT(OpenError(), HasSubstr("plain file name"));
}

TEST_F(CheckpointTest, ShardThatIsMissingOrAFolder) {
  const Json index = WriteShards();
  WriteIndex(index);
  std::filesystem::remove(folder_ / "b.safetensors");
  EXPECT_THAT(OpenError(ErrorCode::kIo), HasSubstr("b.safetensors: can not be opened"));
  std::filesystem::create_directory(folder_ / "b.safetensors");
  EXPECT_THAT(OpenError(ErrorCode::kIo), HasSubstr("not a regular file"));
}

TEST_F(CheckpointTest, IndexAndShardsDisagree) {
  const Json index = WriteShards();
  Json extra = index;
  extra["weight_map"]["x"] = "a.safetensors";
  WriteIndex(extra);
  EXPECT_THAT(OpenError(), AllOf(HasSubstr("\"x\""), HasSubstr("and is not")));
  Json lacking = index;
  lacking["weight_map"].erase("model.norm.weight");
  WriteIndex(lacking);
  EXPECT_THAT(OpenError(), AllOf(HasSubstr("model.norm.weight"), HasSubstr("nothing of it")));
  Json other = index;
  std::string& file = other["weight_map"]["model.norm.weight"].get_ref<std::string&>();
  const std::string was = file;
  file = file == "a.safetensors" ? "b.safetensors" : "a.safetensors";
  WriteIndex(other);
  EXPECT_THAT(OpenError(), AllOf(HasSubstr("model.norm.weight"), HasSubstr("is in " + was)));
}

TEST_F(CheckpointTest, TensorInTwoShards) {
  Json index = WriteShards();
  const std::vector<TensorSpec> one = {tensors_["model.norm.weight"]};
  folder_.Write("c.safetensors", SafetensorsBytes(one));
  index["weight_map"]["model.norm.weight"] = "c.safetensors";
  WriteIndex(index);
  EXPECT_THAT(OpenError(), HasSubstr("model.norm.weight"));
}

TEST_F(CheckpointTest, MissingTensor) {
  for (const ExpectedTensor& t : Expected()) {
    const TensorSpec spec = tensors_.at(t.name);
    tensors_.erase(t.name);
    WriteSingle();
    EXPECT_THAT(OpenError(), AllOf(HasSubstr("'" + t.name + "'"), HasSubstr("is missing")));
    tensors_[t.name] = spec;
  }
}

TEST_F(CheckpointTest, SurplusTensor) {
  for (const char* name : {"model.layers.1.input_layernorm.weight", "model.norm.bias",
                           "model.layers.0.self_attn.o_proj.bias", "x"}) {
    tensors_[name] = {name, DType::kBF16, {8}};
    WriteSingle();
    EXPECT_THAT(OpenError(), AllOf(HasSubstr(name), HasSubstr("no part of the architecture")));
    tensors_.erase(name);
  }
}

TEST_F(CheckpointTest, OldBuffersAreLetPass) {
  const std::string name = "model.layers.0.self_attn.rotary_emb.inv_freq";
  tensors_[name] = {name, DType::kF32, {2}};
  WriteSingle();
  EXPECT_NO_THROW(Open());
}

TEST_F(CheckpointTest, WrongShape) {
  for (const ExpectedTensor& t : Expected()) {
    Shape& shape = tensors_.at(t.name).shape;
    for (const Shape& wrong : {Shape{}, Shape{0}, Shape{t.shape[0] + 1}, Shape{1, 1, 1}}) {
      shape = wrong;
      WriteSingle();
      EXPECT_THAT(OpenError(), AllOf(HasSubstr("'" + t.name + "'"),
                                     HasSubstr("asks for shape " + ShapeToString(t.shape))));
    }
    shape = t.shape;
  }
  // The same number of values in another order of axes.
  tensors_["model.layers.0.mlp.down_proj.weight"].shape = {12, 8};
  WriteSingle();
  EXPECT_THAT(OpenError(), HasSubstr("the file has [12, 8]"));
}

TEST_F(CheckpointTest, WrongDType) {
  tensors_["model.norm.weight"].dtype = DType::kI64;
  WriteSingle();
  EXPECT_THAT(OpenError(ErrorCode::kUnsupported),
              AllOf(HasSubstr("'model.norm.weight' is I64"), HasSubstr("F32, BF16 and F16")));
}

TEST_F(CheckpointTest, TiedWithAHead) {
  tensors_["lm_head.weight"] = {"lm_head.weight", DType::kBF16, {10, 8}};
  WriteSingle();
  EXPECT_NO_THROW(Open());
  config_["tie_word_embeddings"] = false;
  WriteSingle();
  EXPECT_NE(Open().Find("lm_head.weight"), nullptr);
}

TEST_F(CheckpointTest, UntiedWithoutAHead) {
  config_["tie_word_embeddings"] = false;
  WriteSingle();
  EXPECT_THAT(OpenError(), AllOf(HasSubstr("'lm_head.weight'"), HasSubstr("is missing")));
}

TEST_F(CheckpointTest, UnsupportedSettingsCanBeLookedAt) {
  config_["is_encoder_decoder"] = true;
  WriteSingle();
  EXPECT_EQ(Open().config().unsupported.size(), 1U);
}

TEST_F(CheckpointTest, MoreLayersThanWeights) {
  config_["num_hidden_layers"] = 10000;
  WriteSingle();
  EXPECT_THAT(OpenError(), HasSubstr("model.layers.1."));
}

TEST_F(CheckpointTest, BrokenShardIsNamed) {
  WriteIndex(WriteShards());
  folder_.Write("b.safetensors", ReadBytes(folder_ / "b.safetensors").substr(0, 100));
  EXPECT_THAT(OpenError(), AllOf(HasSubstr("b.safetensors"), Not(HasSubstr("a.safetensors"))));
}

}  // namespace
}  // namespace samebits
