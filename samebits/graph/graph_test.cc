// The graph's names and shapes are those of docs/trace-format.md, which is read here; its weights
// are those that the checkpoint reader asks for.
#include "samebits/graph/graph.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <set>
#include <sstream>

#include "samebits/base/error.h"
#include "samebits/checkpoint/checkpoint.h"

namespace samebits {
namespace {

constexpr int64_t kTokens = 5;

// All sizes differ, so that a swapped axis shows.
ModelConfig SmallConfig(const std::string& model_type, bool tied) {
  ModelConfig config;
  config.model_type = model_type;
  config.vocab_size = 131;
  config.hidden_size = 72;
  config.intermediate_size = 100;
  config.num_hidden_layers = 3;
  config.num_attention_heads = 6;
  config.num_key_value_heads = 2;
  config.head_dim = 14;
  config.max_position_embeddings = 64;
  config.rms_norm_eps = 1e-5;
  config.rope.theta = 5e5;
  config.tie_word_embeddings = tied;
  config.attention_bias = model_type == "qwen2" || model_type == "qwen3";
  config.o_proj_bias = model_type == "qwen3";
  config.qk_norm = model_type == "qwen3";
  if (model_type != "llama") config.layer_windows = {0, 7, 8};
  return config;
}

// "[T, H*D]" under the sizes of a configuration.
std::vector<int64_t> Evaluate(std::string_view shape, const ModelConfig& c) {
  const std::map<char, int64_t> sizes = {{'T', kTokens},
                                         {'S', kTokens},
                                         {'H', c.num_attention_heads},
                                         {'K', c.num_key_value_heads},
                                         {'D', c.head_dim},
                                         {'E', c.hidden_size},
                                         {'F', c.intermediate_size},
                                         {'V', c.vocab_size}};
  std::vector<int64_t> result;
  bool multiply = false;
  for (char letter : shape) {
    if (letter == '*') multiply = true;
    if (!sizes.contains(letter)) continue;
    if (multiply) {
      result.back() *= sizes.at(letter);
    } else {
      result.push_back(sizes.at(letter));
    }
    multiply = false;
  }
  return result;
}

// Names between backquotes in one cell; ".up_proj" takes the place of its predecessor's last part.
std::vector<std::string> Names(const std::string& cell) {
  std::vector<std::string> names;
  for (size_t at = cell.find('`'); at != std::string::npos; at = cell.find('`', at + 1)) {
    const size_t end = cell.find('`', at + 1);
    std::string name = cell.substr(at + 1, end - at - 1);
    if (name[0] == '.') name.insert(0, names.back(), 0, names.back().rfind('.'));
    names.push_back(name);
    at = end;
  }
  return names;
}

// The table of docs/trace-format.md for a configuration: tensor -> shape.
std::map<std::string, std::vector<int64_t>> Documented(const ModelConfig& config) {
  std::ifstream file(SAMEBITS_SOURCE_DIR "/docs/trace-format.md");
  std::map<std::string, std::vector<int64_t>> result;
  bool in_table = false;
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("## ")) in_table = line == "## Tensors";
    if (!in_table || !line.starts_with("| `")) continue;
    std::istringstream cells(line.substr(1));
    std::string names, shape;
    std::getline(cells, names, '|');
    std::getline(cells, shape, '|');
    for (const std::string& name : Names(names)) {
      const size_t n = name.find(".N");
      const int64_t copies = n == std::string::npos ? 1 : config.num_hidden_layers;
      for (int64_t layer = 0; layer < copies; ++layer) {
        std::string full = name;
        if (n != std::string::npos) full.replace(n + 1, 1, std::to_string(layer));
        result[full] = Evaluate(shape, config);
      }
    }
  }
  return result;
}

std::map<std::string, std::vector<int64_t>> Outputs(const Graph& graph) {
  std::map<std::string, std::vector<int64_t>> result;
  for (const Node& node : graph.nodes) {
    for (const std::string& name : node.outputs) {
      EXPECT_FALSE(result.contains(name)) << name << " is computed twice";
      result[name] = OutputShape(graph, node, name, kTokens);
    }
  }
  return result;
}

class GraphTest : public testing::TestWithParam<std::tuple<std::string, bool>> {
 protected:
  ModelConfig config_ = SmallConfig(std::get<0>(GetParam()), std::get<1>(GetParam()));
  Graph graph_ = BuildGraph(config_);
};

TEST_P(GraphTest, NamesAndShapesAreThoseOfTheTraceFormat) {
  auto documented = Documented(config_);
  ASSERT_EQ(documented.size(), 5U + 20U * 3U) << "the table of docs/trace-format.md was not read";
  if (config_.model_type != "qwen3") {  // "Qwen3 only"
    std::erase_if(documented, [](const auto& entry) {
      return entry.first.ends_with(".q_norm") || entry.first.ends_with(".k_norm");
    });
  }
  EXPECT_EQ(Outputs(graph_), documented);
}

TEST_P(GraphTest, WeightsAreThoseOfTheCheckpoint) {
  std::map<std::string, Shape> expected;
  for (const ExpectedTensor& tensor : ExpectedTensors(config_)) {
    expected[tensor.name] = tensor.shape;
  }
  std::set<std::string> used;
  for (const Node& node : graph_.nodes) {
    for (const std::string& name : node.weights) {
      ASSERT_TRUE(expected.contains(name)) << name;
      used.insert(name);
      const Shape& shape = expected[name];
      if (node.kind == OpKind::kLinear && shape.size() == 2) {
        EXPECT_EQ(shape, (Shape{node.attributes.out_features, node.attributes.in_features}))
            << name;
      }
    }
  }
  EXPECT_EQ(used.size(), expected.size());
}

TEST_P(GraphTest, EveryInputIsComputedBefore) {
  std::set<std::string, std::less<>> known = {std::string(kInputIds), std::string(kPositions)};
  for (const Node& node : graph_.nodes) {
    for (const std::string& input : node.inputs) {
      EXPECT_TRUE(known.contains(input)) << node.name << " reads " << input;
    }
    known.insert(node.outputs.begin(), node.outputs.end());
  }
  EXPECT_EQ(graph_.nodes.back().name, "lm_head");
}

TEST_P(GraphTest, HeadAndBiases) {
  EXPECT_EQ(graph_.nodes.back().weights,
            std::vector<std::string>{config_.tie_word_embeddings ? "model.embed_tokens.weight"
                                                                 : "lm_head.weight"});
  std::set<std::string> with_bias;
  for (const Node& node : graph_.nodes) {
    if (node.kind != OpKind::kLinear || node.weights.size() < 2) continue;
    EXPECT_EQ(node.weights[1], node.name + ".bias");
    with_bias.insert(node.name.substr(node.name.rfind('.') + 1));
  }
  if (config_.model_type == "qwen3") {  // with attention_bias
    EXPECT_THAT(with_bias, testing::ElementsAre("k_proj", "o_proj", "q_proj", "v_proj"));
  } else if (config_.model_type == "qwen2") {
    EXPECT_THAT(with_bias, testing::ElementsAre("k_proj", "q_proj", "v_proj"));
  } else {
    EXPECT_THAT(with_bias, testing::IsEmpty());
  }
}

TEST_P(GraphTest, Attributes) {
  for (const Node& node : graph_.nodes) {
    const Attributes& a = node.attributes;
    switch (node.kind) {
      case OpKind::kRmsNorm:
        EXPECT_EQ(a.eps, 1e-5);
        EXPECT_EQ(a.in_features, node.name.ends_with("_norm") ? 14 : 72);
        break;
      case OpKind::kRotary:
        EXPECT_EQ(a.rope.theta, 5e5);
        EXPECT_EQ(a.head_dim, 14);
        break;
      case OpKind::kRope:
        EXPECT_EQ(a.heads, node.name.ends_with("q_rope") ? 6 : 2);
        break;
      case OpKind::kAttention:
        EXPECT_EQ(a.heads, 6);
        EXPECT_EQ(a.kv_heads, 2);
        EXPECT_EQ(a.window, config_.model_type == "llama" ? 0 : config_.layer_windows[node.layer]);
        EXPECT_EQ(a.scale, static_cast<float>(0.2672612419124244));  // 14 ** -0.5 in Python
        break;
      case OpKind::kActivation:
        EXPECT_EQ(a.activation, "silu");
        break;
      default:
        break;
    }
  }
}

TEST_P(GraphTest, LayersAndProducers) {
  for (const Node& node : graph_.nodes) {
    for (const std::string& name : node.outputs) EXPECT_EQ(graph_.Producer(name), &node);
    const bool inside = node.name.starts_with("model.layers.");
    EXPECT_EQ(node.layer, inside ? node.name[std::string("model.layers.").size()] - '0' : -1);
  }
  EXPECT_EQ(graph_.Producer(kInputIds), nullptr);
  EXPECT_EQ(graph_.Producer("model.layers.3"), nullptr);
}

INSTANTIATE_TEST_SUITE_P(Families, GraphTest,
                         testing::Combine(testing::Values("llama", "mistral", "qwen2", "qwen3"),
                                          testing::Bool()),
                         [](const auto& it) {
                           return std::get<0>(it.param) +
                                  (std::get<1>(it.param) ? "_tied" : "_untied");
                         });

TEST(BuildGraph, ResidualsAndTheGatedUnitReadTheRightTensors) {
  const Graph graph = BuildGraph(SmallConfig("qwen2", false));
  const auto inputs = [&](const char* name) { return graph.Producer(name)->inputs; };
  using testing::ElementsAre;
  EXPECT_THAT(inputs("model.layers.1.attn_residual"),
              ElementsAre("model.layers.0", "model.layers.1.self_attn.o_proj"));
  EXPECT_THAT(inputs("model.layers.1"),
              ElementsAre("model.layers.1.attn_residual", "model.layers.1.mlp.down_proj"));
  EXPECT_THAT(inputs("model.layers.0.mlp.act"), ElementsAre("model.layers.0.mlp.gate_proj"));
  EXPECT_THAT(inputs("model.layers.0.mlp.gated"),
              ElementsAre("model.layers.0.mlp.act", "model.layers.0.mlp.up_proj"));
  EXPECT_THAT(inputs("model.layers.0.self_attn.scores"),
              ElementsAre("model.layers.0.self_attn.q_rope", "model.layers.0.self_attn.k_rope",
                          "model.layers.0.self_attn.v_proj"));
  EXPECT_THAT(inputs("model.layers.0.self_attn.o_proj"),
              ElementsAre("model.layers.0.self_attn.context"));
  EXPECT_THAT(inputs("model.norm"), ElementsAre("model.layers.2"));
}

TEST(BuildGraph, Qwen3NormalisesHeadsBeforeItRotatesThem) {
  const Graph graph = BuildGraph(SmallConfig("qwen3", false));
  const auto inputs = [&](const char* name) { return graph.Producer(name)->inputs; };
  using testing::ElementsAre;
  EXPECT_THAT(inputs("model.layers.0.self_attn.q_norm"),
              ElementsAre("model.layers.0.self_attn.q_proj"));
  EXPECT_EQ(inputs("model.layers.0.self_attn.q_rope")[0], "model.layers.0.self_attn.q_norm");
  EXPECT_EQ(inputs("model.layers.0.self_attn.k_rope")[0], "model.layers.0.self_attn.k_norm");
  EXPECT_THAT(graph.Producer("model.layers.2.self_attn.k_norm")->weights,
              ElementsAre("model.layers.2.self_attn.k_norm.weight"));
}

TEST(BuildGraph, BiasesOfLlamaAreThoseOfItsConfiguration) {
  ModelConfig config = SmallConfig("llama", false);
  config.mlp_bias = true;
  std::set<std::string> with_bias;
  for (const Node& node : BuildGraph(config).nodes) {
    if (node.weights.size() > 1) with_bias.insert(node.name.substr(node.name.rfind('.') + 1));
  }
  EXPECT_THAT(with_bias, testing::ElementsAre("down_proj", "gate_proj", "up_proj"));
}

TEST(BuildGraph, UnsupportedConfigurationsAreRefusedWithAllReasons) {
  ModelConfig config = SmallConfig("qwen2", false);
  config.unsupported = {"hidden_act is 'gelu'", "mlp_bias is true"};
  try {
    BuildGraph(config);
    FAIL() << "built";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
    EXPECT_THAT(error.what(), testing::HasSubstr("hidden_act is 'gelu'"));
    EXPECT_THAT(error.what(), testing::HasSubstr("mlp_bias is true"));
  }
}

TEST(BuildGraph, UnknownArchitecturesAreRefusedByName) {
  try {
    BuildGraph(SmallConfig("mamba", false));
    FAIL() << "built";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
    EXPECT_THAT(error.what(), testing::HasSubstr("mamba"));
  }
}

}  // namespace
}  // namespace samebits
