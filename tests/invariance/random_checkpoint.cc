#include "tests/invariance/random_checkpoint.h"

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "samebits/base/error.h"
#include "samebits/base/json.h"
#include "samebits/checkpoint/checkpoint.h"
#include "samebits/tensor/convert.h"

namespace samebits {
namespace {

// SplitMix64; no library's distributions, which differ from one to another.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  double Uniform() {  // [0, 1)
    state_ += 0x9e3779b97f4a7c15U;
    uint64_t x = state_;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9U;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebU;
    return static_cast<double>((x ^ (x >> 31)) >> 11) * 0x1p-53;
  }
  double Normal() {  // a sum of twelve uniforms: mean 0, deviation 1
    double sum = -6;
    for (int i = 0; i < 12; ++i) sum += Uniform();
    return sum;
  }

 private:
  uint64_t state_;
};

// Norm weights around 1, biases with some tens as Qwen2.5 has, matrices that keep magnitudes.
double Value(const ExpectedTensor& tensor, Random& random) {
  if (tensor.name.ends_with("norm.weight")) return 0.5 + random.Uniform();
  if (tensor.name.ends_with(".bias")) {
    const double value = random.Normal();
    return random.Uniform() < 0.1 ? 10 * value : value;
  }
  if (tensor.name.starts_with("model.embed_tokens")) return random.Normal();
  return random.Normal() * 1.5 / std::sqrt(static_cast<double>(tensor.shape[1]));
}

void Append(std::string& data, double value, DType dtype) {
  if (dtype == DType::kF32) {
    const auto narrow = static_cast<float>(value);
    data.append(reinterpret_cast<const char*>(&narrow), 4);
  } else {
    const uint16_t bits = dtype == DType::kBF16 ? DoubleToBF16(value) : DoubleToF16(value);
    data.append(reinterpret_cast<const char*>(&bits), 2);
  }
}

void WriteFile(const std::string& path, const std::string& data) {
  std::ofstream file(path, std::ios::binary);
  file.write(data.data(), static_cast<std::streamsize>(data.size()));
  file.close();
  if (!file) Fail(ErrorCode::kIo, "{}: can not be written", path);
}

}  // namespace

void WriteRandomCheckpoint(const CheckpointSpec& spec, const std::string& folder) {
  Json config = {{"model_type", spec.model_type},
                 {"num_hidden_layers", spec.num_hidden_layers},
                 {"hidden_size", spec.hidden_size},
                 {"num_attention_heads", spec.num_attention_heads},
                 {"num_key_value_heads", spec.num_key_value_heads},
                 {"intermediate_size", spec.intermediate_size},
                 {"vocab_size", spec.vocab_size},
                 {"max_position_embeddings", spec.max_position_embeddings},
                 {"rms_norm_eps", 1e-6},
                 {"rope_theta", 10000.0},
                 {"hidden_act", "silu"},
                 {"tie_word_embeddings", spec.tied},
                 {"torch_dtype", ModelDTypeName(spec.stored)}};
  if (spec.model_type == "qwen3" || spec.model_type == "mistral") {
    config["head_dim"] = spec.head_dim;
  }
  if (spec.model_type == "mistral") config["sliding_window"] = nullptr;
  if (spec.sliding_window > 0) {
    config["sliding_window"] = spec.sliding_window;
    if (spec.model_type != "mistral") {
      config["use_sliding_window"] = true;
      config["max_window_layers"] = 1;
    }
  }
  if (*spec.rope_scaling != '\0') {
    config["rope_scaling"] = ParseJson(spec.rope_scaling, "rope_scaling");
  }
  const std::string text = config.dump(2) + "\n";
  WriteFile(folder + "/config.json", text);
  Random random(spec.seed);
  Json header = Json::object();
  std::string data;
  for (const ExpectedTensor& tensor : ExpectedTensors(ParseModelConfig(text, "config.json"))) {
    const size_t begin = data.size();
    for (int64_t i = 0; i < NumElements(tensor.shape); ++i) {
      Append(data, Value(tensor, random), spec.stored);
    }
    header[tensor.name] = {{"dtype", DTypeName(spec.stored)},
                           {"shape", tensor.shape},
                           {"data_offsets", {begin, data.size()}}};
  }
  std::string head = header.dump();
  head.resize((head.size() + 7) / 8 * 8, ' ');
  const auto length = static_cast<uint64_t>(head.size());
  std::string file(8, '\0');
  std::memcpy(file.data(), &length, 8);
  WriteFile(folder + "/model.safetensors", file + head + data);
}

TemporaryFolder::TemporaryFolder() {
  path_ = std::filesystem::temp_directory_path() / "samebits-XXXXXX";
  if (mkdtemp(path_.data()) == nullptr) {
    Fail(ErrorCode::kIo, "{}: can not be made: {}", path_, std::strerror(errno));
  }
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

}  // namespace samebits
