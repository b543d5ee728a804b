// samebits inspect: what a checkpoint or a safetensors file holds. Touches no values.
#include <fmt/format.h>

#include <filesystem>
#include <map>

#include "apps/samebits/commands.h"
#include "samebits/base/error.h"
#include "samebits/base/json.h"
#include "samebits/checkpoint/checkpoint.h"

namespace samebits {
namespace {

struct InspectOptions {
  std::string path;
  bool json = false;
};

std::string Bytes(int64_t bytes) {
  if (bytes >= 1'000'000'000) return fmt::format("{:.2f} GB", static_cast<double>(bytes) / 1e9);
  if (bytes >= 1'000'000) return fmt::format("{:.2f} MB", static_cast<double>(bytes) / 1e6);
  return fmt::format("{} bytes", bytes);
}

struct Totals {
  int64_t elements = 0, bytes = 0;
};

Json Tensors(const std::vector<const SafetensorsFile*>& files, Totals& totals) {
  Json list = Json::array();
  for (const SafetensorsFile* file : files) {
    for (const TensorEntry& entry : file->tensors()) {
      totals.elements += entry.view.elements();
      totals.bytes += entry.view.bytes();
      list.push_back({{"name", entry.name},
                      {"dtype", DTypeName(entry.view.dtype)},
                      {"shape", entry.view.shape},
                      {"bytes", entry.view.bytes()},
                      {"file", std::filesystem::path(file->path()).filename().string()}});
    }
  }
  return list;
}

void PrintTensors(const Json& tensors) {
  // A name can be anything: no control characters on a terminal, no column of megabytes.
  const auto shown = [](const Json& t) {
    const std::string quoted = Excerpt(t["name"]);
    return quoted.size() == t["name"].get_ref<const std::string&>().size() + 2
               ? quoted.substr(1, quoted.size() - 2)
               : quoted;
  };
  size_t width = 4;
  for (const Json& t : tensors) width = std::max(width, shown(t).size());
  for (const Json& t : tensors) {
    fmt::print("  {:<{}}  {:<5} {:<18} {:>12}\n", shown(t), width, t["dtype"].get<std::string>(),
               Excerpt(t["shape"]), Bytes(t["bytes"].get<int64_t>()));
  }
}

Json ConfigJson(const ModelConfig& c) {
  return {{"model_type", c.model_type},
          {"vocab_size", c.vocab_size},
          {"hidden_size", c.hidden_size},
          {"intermediate_size", c.intermediate_size},
          {"num_hidden_layers", c.num_hidden_layers},
          {"num_attention_heads", c.num_attention_heads},
          {"num_key_value_heads", c.num_key_value_heads},
          {"head_dim", c.head_dim},
          {"max_position_embeddings", c.max_position_embeddings},
          {"rms_norm_eps", c.rms_norm_eps},
          {"context_length", c.context_length},
          {"rope_type", RopeKindName(c.rope.kind)},
          {"rope_theta", c.rope.theta},
          {"rope_factor", c.rope.factor},
          {"sliding_window_layers", std::count_if(c.layer_windows.begin(), c.layer_windows.end(),
                                                  [](int64_t window) { return window > 0; })},
          {"hidden_act", c.hidden_act},
          {"tie_word_embeddings", c.tie_word_embeddings},
          {"attention_bias", c.attention_bias},
          {"dtype", ModelDTypeName(c.dtype)}};
}

void InspectFile(const InspectOptions& options) {
  const SafetensorsFile file = SafetensorsFile::Open(options.path);
  Totals totals;
  const Json tensors = Tensors({&file}, totals);
  if (options.json) {
    fmt::print("{}\n", Json({{"metadata", file.metadata()},
                             {"tensors", tensors},
                             {"elements", totals.elements},
                             {"bytes", totals.bytes}})
                           .dump(2, ' ', false, Json::error_handler_t::replace));
    return;
  }
  fmt::print("{}: {} tensors, {} values, {}\n", options.path, tensors.size(), totals.elements,
             Bytes(totals.bytes));
  for (const auto& [key, value] : file.metadata()) {
    fmt::print("  {} = {}\n", Excerpt(Json(key)), Excerpt(Json(value)));
  }
  PrintTensors(tensors);
}

void InspectModel(const InspectOptions& options) {
  const ModelConfig config = ReadModelConfig(options.path);
  const Checkpoint checkpoint = Checkpoint::Open(options.path);
  std::vector<const SafetensorsFile*> files;
  for (const SafetensorsFile& file : checkpoint.files()) files.push_back(&file);
  Totals totals;
  const Json tensors = Tensors(files, totals);
  if (options.json) {
    fmt::print("{}\n", Json({{"config", ConfigJson(config)},
                             {"parameters", totals.elements},
                             {"bytes", totals.bytes},
                             {"files", files.size()},
                             {"unsupported", config.unsupported},
                             {"tensors", tensors}})
                           .dump(2, ' ', false, Json::error_handler_t::replace));
    return;
  }
  fmt::print("{}: {}, {} parameters, {} in {} file{}\n", options.path, config.model_type,
             totals.elements, Bytes(totals.bytes), files.size(), files.size() == 1 ? "" : "s");
  const Json settings = ConfigJson(config);
  for (const auto& [key, value] : settings.items()) {
    fmt::print("  {:<24} {}\n", key, value.is_string() ? value.get<std::string>() : value.dump());
  }
  if (config.unsupported.empty()) {
    fmt::print("supported: yes\n");
  } else {
    fmt::print("supported: no\n");
    for (const std::string& reason : config.unsupported) fmt::print("  {}\n", reason);
  }
  PrintTensors(tensors);
}

}  // namespace

void RegisterInspect(CLI::App& app, int&) {
  auto options = std::make_shared<InspectOptions>();
  CLI::App* command =
      app.add_subcommand("inspect", "show what a checkpoint or safetensors file holds");
  command->footer("Example: samebits inspect models/nano");
  command->add_option("MODEL|FILE", options->path, "checkpoint folder or .safetensors file")
      ->required();
  command->add_flag("--json", options->json, "print JSON");
  command->callback([options] {
    std::error_code ignored;
    if (std::filesystem::is_directory(options->path, ignored)) {
      InspectModel(*options);
    } else {
      InspectFile(*options);
    }
  });
}

}  // namespace samebits
