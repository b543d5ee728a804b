#include "samebits/checkpoint/checkpoint.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>

#include "samebits/base/error.h"
#include "samebits/base/json.h"

namespace samebits {
namespace {

constexpr int64_t kMaxIndexBytes = 64 << 20;
constexpr const char* kSingle = "model.safetensors";
constexpr const char* kIndex = "model.safetensors.index.json";

std::string Quoted(const std::string& name) { return Excerpt(Json(name)); }

// The shards that the index names, and which tensor is where.
std::map<std::string, std::string> ReadWeightMap(const std::string& path) {
  const Json json = ParseJson(ReadTextFile(path, kMaxIndexBytes), path);
  if (!json.is_object() || !json.contains("weight_map") || !json["weight_map"].is_object() ||
      json["weight_map"].empty()) {
    Fail(ErrorCode::kBadInput, "{}: expected an object with a non-empty object 'weight_map'", path);
  }
  std::map<std::string, std::string> result;
  for (const auto& [tensor, file] : json["weight_map"].items()) {
    if (!file.is_string()) {
      Fail(ErrorCode::kBadInput, "{}: weight_map: {}: expected a file name, found {}", path,
           Quoted(tensor), Excerpt(file));
    }
    const auto name = file.get<std::string>();
    const bool plain = !name.empty() && name.find('/') == std::string::npos &&
                       name.find('\\') == std::string::npos &&
                       name.find("..") == std::string::npos && name.find('\0') == std::string::npos;
    if (!plain) {
      Fail(ErrorCode::kBadInput, "{}: weight_map: {}: {} is not a plain file name beside the index",
           path, Quoted(tensor), Quoted(name));
    }
    result[tensor] = name;
  }
  return result;
}

// Buffers that older versions of transformers saved.
bool IsOldBuffer(const std::string& name) {
  return name.ends_with("rotary_emb.inv_freq") || name.ends_with("self_attn.bias") ||
         name.ends_with("self_attn.masked_bias");
}

}  // namespace

std::vector<SafetensorsFile> OpenWeightFiles(const std::string& folder) {
  namespace fs = std::filesystem;
  std::vector<SafetensorsFile> files;
  std::error_code ignored;
  if (fs::exists(fs::path(folder) / kSingle, ignored)) {
    files.push_back(SafetensorsFile::Open(folder + "/" + kSingle));
    return files;
  }
  const std::string index = folder + "/" + kIndex;
  if (!fs::exists(index, ignored)) {
    Fail(ErrorCode::kIo,
         "{}: neither {} nor {} is there; is this a Hugging Face checkpoint folder?", folder,
         kSingle, kIndex);
  }
  const std::map<std::string, std::string> weight_map = ReadWeightMap(index);
  std::set<std::string> names;
  for (const auto& [tensor, file] : weight_map) names.insert(file);
  std::map<std::string, std::string> found;
  for (const std::string& name : names) {
    files.push_back(SafetensorsFile::Open(fmt::format("{}/{}", folder, name)));
    for (const TensorEntry& entry : files.back().tensors()) {
      if (const auto other = found.find(entry.name); other != found.end()) {
        Fail(ErrorCode::kBadInput, "{}: tensor {} is in {} and in {}", folder, Quoted(entry.name),
             other->second, name);
      }
      found[entry.name] = name;
      const auto listed = weight_map.find(entry.name);
      if (listed == weight_map.end() || listed->second != name) {
        Fail(ErrorCode::kBadInput, "{}: tensor {} is in {}, the index says {}", index,
             Quoted(entry.name), name,
             listed == weight_map.end() ? "nothing of it" : listed->second);
      }
    }
  }
  for (const auto& [tensor, file] : weight_map) {
    if (!found.contains(tensor)) {
      Fail(ErrorCode::kBadInput, "{}: tensor {} should be in {}, and is not", index, Quoted(tensor),
           file);
    }
  }
  return files;
}

std::vector<ExpectedTensor> ExpectedTensors(const ModelConfig& c) {
  const int64_t q = c.num_attention_heads * c.head_dim, kv = c.num_key_value_heads * c.head_dim;
  std::vector<ExpectedTensor> result;
  result.push_back({"model.embed_tokens.weight", {c.vocab_size, c.hidden_size}});
  for (int64_t n = 0; n < c.num_hidden_layers; ++n) {
    const std::string layer = fmt::format("model.layers.{}.", n);
    const auto add = [&](const char* name, Shape shape) {
      result.push_back({layer + name, std::move(shape)});
    };
    add("input_layernorm.weight", {c.hidden_size});
    add("self_attn.q_proj.weight", {q, c.hidden_size});
    add("self_attn.k_proj.weight", {kv, c.hidden_size});
    add("self_attn.v_proj.weight", {kv, c.hidden_size});
    if (c.attention_bias) {
      add("self_attn.q_proj.bias", {q});
      add("self_attn.k_proj.bias", {kv});
      add("self_attn.v_proj.bias", {kv});
    }
    if (c.qk_norm) {
      add("self_attn.q_norm.weight", {c.head_dim});
      add("self_attn.k_norm.weight", {c.head_dim});
    }
    add("self_attn.o_proj.weight", {c.hidden_size, q});
    if (c.o_proj_bias) add("self_attn.o_proj.bias", {c.hidden_size});
    add("post_attention_layernorm.weight", {c.hidden_size});
    add("mlp.gate_proj.weight", {c.intermediate_size, c.hidden_size});
    add("mlp.up_proj.weight", {c.intermediate_size, c.hidden_size});
    add("mlp.down_proj.weight", {c.hidden_size, c.intermediate_size});
    if (c.mlp_bias) {
      add("mlp.gate_proj.bias", {c.intermediate_size});
      add("mlp.up_proj.bias", {c.intermediate_size});
      add("mlp.down_proj.bias", {c.hidden_size});
    }
  }
  result.push_back({"model.norm.weight", {c.hidden_size}});
  if (!c.tie_word_embeddings) {
    result.push_back({"lm_head.weight", {c.vocab_size, c.hidden_size}});
  }
  return result;
}

Checkpoint Checkpoint::Open(const std::string& folder) {
  std::error_code ignored;
  if (!std::filesystem::is_directory(folder, ignored)) {
    Fail(ErrorCode::kIo, "{}: not a folder; MODEL is a Hugging Face checkpoint folder", folder);
  }
  Checkpoint result;
  result.folder_ = folder;
  result.config_ = ReadModelConfig(folder);
  result.files_ = OpenWeightFiles(folder);
  std::set<std::string> expected;
  for (const ExpectedTensor& tensor : ExpectedTensors(result.config_)) {
    const TensorView* view = result.Find(tensor.name);
    if (view == nullptr) {
      Fail(ErrorCode::kBadInput, "{}: tensor '{}' {} is missing", folder, tensor.name,
           ShapeToString(tensor.shape));
    }
    if (view->shape != tensor.shape) {
      Fail(ErrorCode::kBadInput, "{}: tensor '{}': config.json asks for shape {}, the file has {}",
           folder, tensor.name, ShapeToString(tensor.shape), ShapeToString(view->shape));
    }
    if (view->dtype != DType::kF32 && view->dtype != DType::kBF16 && view->dtype != DType::kF16) {
      Fail(ErrorCode::kUnsupported, "{}: tensor '{}' is {}; supported are F32, BF16 and F16",
           folder, tensor.name, DTypeName(view->dtype));
    }
    expected.insert(tensor.name);
  }
  for (const std::string& name : expected) {  // what adds a bias takes both in one dtype
    if (!name.ends_with(".bias")) continue;
    const std::string weight = name.substr(0, name.size() - 4) + "weight";
    const DType bias_dtype = result.Find(name)->dtype, weight_dtype = result.Find(weight)->dtype;
    if (bias_dtype != weight_dtype) {
      Fail(ErrorCode::kUnsupported, "{}: tensor '{}' is {}, its weight {}; expected one dtype",
           folder, name, DTypeName(bias_dtype), DTypeName(weight_dtype));
    }
  }
  for (const SafetensorsFile& file : result.files_) {
    for (const TensorEntry& entry : file.tensors()) {
      const bool tied_head = result.config_.tie_word_embeddings && entry.name == "lm_head.weight";
      if (!expected.contains(entry.name) && !tied_head && !IsOldBuffer(entry.name)) {
        Fail(ErrorCode::kBadInput, "{}: tensor {} {} is no part of the architecture '{}'",
             file.path(), Quoted(entry.name), ShapeToString(entry.view.shape),
             result.config_.model_type);
      }
    }
  }
  return result;
}

const TensorView* Checkpoint::Find(std::string_view name) const {
  for (const SafetensorsFile& file : files_) {
    if (const TensorEntry* entry = file.Find(name)) return &entry->view;
  }
  return nullptr;
}

const TensorView& Checkpoint::Get(std::string_view name) const {
  const TensorView* view = Find(name);
  SAMEBITS_CHECK(view != nullptr, fmt::format("no weight '{}'", name));
  return *view;
}

}  // namespace samebits
