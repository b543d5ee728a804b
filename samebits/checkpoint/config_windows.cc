// Sliding windows in config.json, read as transformers 5.24 does: Mistral has one for all layers
// (4096 when the key is absent), Qwen2 and Qwen3 have one from layer max_window_layers on when
// use_sliding_window says so, or where layer_types does. Llama ignores the keys.
#include <algorithm>
#include <vector>

#include "samebits/base/error.h"
#include "samebits/checkpoint/config_keys.h"

namespace samebits {
namespace {

constexpr int64_t kMaxWindow = int64_t{1} << 31;

// layer_types: for each layer whether it slides; empty when the key is not there.
std::vector<bool> ReadLayerTypes(const Json& json, const std::string& place, ModelConfig& config) {
  if (!HasField(json, "layer_types")) return {};
  const Json& types = json["layer_types"];
  if (!types.is_array()) {
    Fail(ErrorCode::kBadInput, "{}: 'layer_types': expected a list, found {}", place,
         Excerpt(types));
  }
  if (static_cast<int64_t>(types.size()) != config.num_hidden_layers) {
    Fail(ErrorCode::kBadInput, "{}: 'layer_types': expected {} (num_hidden_layers), found {}",
         place, config.num_hidden_layers, types.size());
  }
  std::vector<bool> slides;
  slides.reserve(types.size());
  for (const Json& type : types) {
    if (type != "full_attention" && type != "sliding_attention") {
      config.unsupported.push_back(fmt::format(
          "layer_types has {}; supported: full_attention, sliding_attention", Excerpt(type)));
      return {};
    }
    slides.push_back(type == "sliding_attention");
  }
  return slides;
}

// A key that is absent has the default 4096; null means none: 0.
int64_t ReadWindow(const Json& json, const std::string& place) {
  if (!json.contains("sliding_window")) return 4096;
  if (json["sliding_window"].is_null()) return 0;
  return IntegerField(json, "sliding_window", 1, kMaxWindow, place);
}

}  // namespace

void ReadWindows(const Json& json, const std::string& place, ModelConfig& config) {
  const std::vector<bool> slides = ReadLayerTypes(json, place, config);
  const auto layers = static_cast<size_t>(config.num_hidden_layers);
  config.layer_windows.assign(layers, 0);
  if (config.model_type == "llama") {
    if (std::find(slides.begin(), slides.end(), true) != slides.end()) {
      config.unsupported.push_back("layer_types has \"sliding_attention\"; llama has none");
    }
    return;
  }
  if (config.model_type == "mistral") {
    const int64_t window = ReadWindow(json, place);
    config.layer_windows.assign(layers, window);
    if (std::find(slides.begin(), slides.end(), window == 0) != slides.end()) {
      config.unsupported.push_back(
          "layer_types differ from sliding_window, which mistral has for all layers");
    }
    return;
  }
  const bool use =
      HasField(json, "use_sliding_window") && BoolField(json, "use_sliding_window", place);
  const int64_t window = use ? ReadWindow(json, place) : 0;
  const int64_t first = HasField(json, "max_window_layers")
                            ? IntegerField(json, "max_window_layers", 0, int64_t{1} << 31, place)
                            : 28;
  for (size_t n = 0; n < layers; ++n) {
    const bool slide = slides.empty() ? static_cast<int64_t>(n) >= first : slides[n];
    if (!slide) continue;
    if (window == 0 && !slides.empty()) {
      Fail(ErrorCode::kBadInput,
           "{}: 'layer_types' has sliding_attention; expected use_sliding_window true and a "
           "sliding_window, found none",
           place);
    }
    config.layer_windows[n] = window;
  }
}

}  // namespace samebits
