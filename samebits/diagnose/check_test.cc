// check on the embedded model and the recorded traces of its JAX ports, and on what is done to
// them.
#include "samebits/diagnose/check.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>

#include "samebits/base/errors_testing.h"
#include "samebits/tensor/convert.h"

namespace samebits {
namespace {

const std::string kNano = std::string(SAMEBITS_SOURCE_DIR) + "/models/nano";

class CheckTest : public testing::Test {
 protected:
  CheckTest() : checkpoint_(Checkpoint::Open(kNano)), graph_(BuildGraph(checkpoint_.config())) {}

  CheckResult Run(const Trace& trace) const {
    CheckOptions options;
    options.threads = 2;
    return Check(graph_, checkpoint_, trace, options);
  }

  static Trace Demo(const std::string& name) {
    return Trace::Open(kNano + "/demo/" + name + ".safetensors");
  }

  // A copy of the repaired port's trace in which `edit` may change values; false drops the tensor.
  template <typename Edit>
  Trace Edited(Edit&& edit, const std::string& demo = "port_repaired") {
    const Trace trace = Demo(demo);
    std::vector<TraceWriter::Plan> plans;
    std::vector<std::vector<std::byte>> data;
    for (const NamedTensor& entry : trace.tensors()) {
      std::vector<std::byte> bytes(entry.view.data, entry.view.data + entry.view.bytes());
      Shape shape = entry.view.shape;
      if (!edit(entry.name, shape, bytes)) continue;
      plans.push_back({entry.name, entry.view.dtype, shape});
      data.push_back(std::move(bytes));
    }
    path_ = testing::TempDir() + fmt::format("/samebits-check-{}.safetensors", getpid());
    std::map<std::string, std::string> metadata = trace.info().metadata;
    for (const auto& [key, value] : metadata_) metadata[key] = value;
    TraceWriter writer(path_, metadata, plans);
    for (size_t i = 0; i < plans.size(); ++i) {
      const int64_t bytes = NumElements(plans[i].shape) * DTypeSize(plans[i].dtype);
      writer.Write(plans[i].name, 0, data[i].data(), bytes);
    }
    writer.Finish();
    return Trace::Open(path_);
  }

  ~CheckTest() override {
    if (!path_.empty()) std::filesystem::remove(path_);
  }

  Checkpoint checkpoint_;
  Graph graph_;
  std::map<std::string, std::string> metadata_;  // that Edited writes beside the trace's own
  std::string path_;
};

const NodeResult& NodeOf(const CheckResult& result, const std::string& name) {
  for (const NodeResult& node : result.nodes) {
    if (node.name == name) return node;
  }
  ADD_FAILURE() << name;
  return result.nodes[0];
}

TEST_F(CheckTest, BuggyPortHasOneCause) {
  const CheckResult result = Run(Demo("port_buggy"));
  EXPECT_EQ(result.verdict, Grade::kBug);
  EXPECT_EQ(result.first_divergence, "model.layers.0.self_attn.q_proj");
  ASSERT_EQ(result.findings.size(), 1);
  const Finding& finding = result.findings[0];
  EXPECT_EQ(finding.cause, "weight-not-transposed");
  EXPECT_EQ(finding.nodes.size(), 8);  // q_proj and o_proj of four layers
  EXPECT_TRUE(finding.confirmed);
  EXPECT_EQ(finding.with_cause.outside, 0);
  EXPECT_GT(finding.with_graph.outside, finding.with_graph.elements * 9 / 10);
}

TEST_F(CheckTest, RepairedPortOnlyRounds) {
  const CheckResult result = Run(Demo("port_repaired"));
  EXPECT_EQ(result.verdict, Grade::kRounding);
  EXPECT_TRUE(result.findings.empty());
  EXPECT_EQ(result.first_divergence, "");
  ASSERT_EQ(result.chains.size(), 1);
  EXPECT_EQ(result.chains[0].chain, "bias-after-rounding");
  for (const NodeResult& node : result.nodes) {
    EXPECT_NE(node.grade, Grade::kUnknown) << node.name;
    EXPECT_EQ(node.base.outside, 0) << node.name;
  }
}

TEST_F(CheckTest, OneNanIsABug) {
  const std::string name = "model.layers.2.mlp.down_proj";
  const CheckResult result =
      Run(Edited([&](const std::string& tensor, Shape&, std::vector<std::byte>& bytes) {
        if (tensor == name) reinterpret_cast<uint16_t*>(bytes.data())[5] = 0x7fc0;
        return true;
      }));
  EXPECT_EQ(result.verdict, Grade::kBug);
  EXPECT_EQ(result.first_divergence, name);
  EXPECT_EQ(NodeOf(result, name).base.outside, 1);
  EXPECT_EQ(NodeOf(result, name).base.max_abs, std::numeric_limits<double>::infinity());
  // The next operation did not meet it: it was written into the trace alone.
  ASSERT_EQ(result.findings.size(), 1);
  EXPECT_EQ(result.findings[0].cause, "trace-tap-point");
  ASSERT_TRUE(result.non_finite.has_value());
  EXPECT_EQ(result.non_finite->node, name);
  EXPECT_EQ(result.non_finite->first, 5);
}

TEST_F(CheckTest, OneWrongValueIsABugAndBlamedThere) {
  const std::string name = "model.layers.1.self_attn.context";
  const CheckResult result =
      Run(Edited([&](const std::string& tensor, Shape&, std::vector<std::byte>& bytes) {
        if (tensor == name) {
          auto* values = reinterpret_cast<uint16_t*>(bytes.data());
          values[300] = FloatToBF16(BF16ToFloat(values[300]) * 1.1F + 0.1F);
        }
        return true;
      }));
  EXPECT_EQ(result.verdict, Grade::kBug);
  EXPECT_EQ(result.first_divergence, name);
  ASSERT_FALSE(result.findings.empty());
  EXPECT_EQ(result.findings[0].cause, "unexplained");
  EXPECT_EQ(NodeOf(result, name).base.outside, 1);
}

// A prefill and three cached steps, concatenated: the passes did not have the later keys.
TEST_F(CheckTest, ChunksAreJudgedAsOneSequence) {
  const Trace whole = Demo("port_repaired");
  const int64_t tokens = whole.tokens();
  metadata_["chunks"] = fmt::format("[{}, 1, 1, 1]", tokens - 3);
  const auto later_keys_are_zero = [&](const std::string& tensor, Shape&,
                                       std::vector<std::byte>& bytes) {
    if (tensor.ends_with(".scores")) {
      auto* values = reinterpret_cast<uint16_t*>(bytes.data());
      for (int64_t i = 0; i < static_cast<int64_t>(bytes.size()) / 2; ++i) {
        if (i % tokens > i / tokens % tokens) values[i] = 0;
      }
    }
    return true;
  };
  const CheckResult expected = Run(whole);
  const CheckResult result = Run(Edited(later_keys_are_zero));
  EXPECT_EQ(result.verdict, expected.verdict);
  ASSERT_EQ(result.nodes.size(), expected.nodes.size());
  for (size_t i = 0; i < result.nodes.size(); ++i) {
    const NodeResult &a = result.nodes[i], &b = expected.nodes[i];
    EXPECT_EQ(a.name, b.name);
    EXPECT_EQ(a.grade, b.grade) << a.name;
    EXPECT_EQ(a.identical_to, b.identical_to) << a.name;
    EXPECT_EQ(a.base.elements, b.base.elements) << a.name;
    EXPECT_EQ(a.base.not_equal, b.base.not_equal) << a.name;
    EXPECT_EQ(a.base.max_abs, b.base.max_abs) << a.name;
  }
  EXPECT_EQ(result.not_visible.size() + 1, expected.not_visible.size());  // the cache shows

  const std::string name = "model.layers.2.self_attn.k_rope";
  const CheckResult wrong =
      Run(Edited([&](const std::string& tensor, Shape& shape, std::vector<std::byte>& bytes) {
        if (tensor == name) {  // of the last step
          auto* values = reinterpret_cast<uint16_t*>(bytes.data());
          values[NumElements(shape) - 1] = FloatToBF16(7);
        }
        return later_keys_are_zero(tensor, shape, bytes);
      }));
  EXPECT_EQ(wrong.verdict, Grade::kBug);
  EXPECT_EQ(wrong.first_divergence, name);
}

TEST_F(CheckTest, BatchesAndPaddingAreRefused) {
  const auto as_it_is = [](const std::string&, Shape&, std::vector<std::byte>&) { return true; };
  const Trace whole = Demo("port_repaired");
  const std::string ids = whole.info().metadata.at("input_ids");
  metadata_ = {{"input_ids", fmt::format("[{0}, {0}]", ids)},
               {"positions", fmt::format("[{0}, {0}]", ids)}};
  EXPECT_NE(ErrorOf(ErrorCode::kUnsupported, [&] { Run(Edited(as_it_is)); })
                .find("a batch of 2 sequences; supported is one"),
            std::string::npos);
  std::string mask = "[0";
  for (int64_t i = 1; i < whole.tokens(); ++i) mask += ", 1";
  metadata_ = {{"attention_mask", mask + "]"}};
  EXPECT_NE(ErrorOf(ErrorCode::kUnsupported, [&] { Run(Edited(as_it_is)); }).find("padding"),
            std::string::npos);
}

// Its frequencies go by the length at each forward pass, which the judge does not follow.
TEST_F(CheckTest, ChunksWhereDynamicRopeScalesAreRefused) {
  const auto as_it_is = [](const std::string&, Shape&, std::vector<std::byte>&) { return true; };
  const int64_t tokens = Demo("port_repaired").tokens();
  metadata_["chunks"] = fmt::format("[{}, 1]", tokens - 1);
  graph_.config.rope.kind = RopeKind::kDynamic;
  graph_.config.rope.original_length = tokens - 1;
  EXPECT_NE(ErrorOf(ErrorCode::kUnsupported, [&] { Run(Edited(as_it_is)); }).find("dynamic"),
            std::string::npos);
  graph_.config.rope.original_length = tokens;
  EXPECT_NO_THROW(Run(Edited(as_it_is)));
  metadata_["chunks"] = fmt::format("[{}]", tokens);
  graph_.config.rope.original_length = tokens - 1;
  EXPECT_NO_THROW(Run(Edited(as_it_is)));
}

TEST_F(CheckTest, MissingTensorIsJudgedWithTheNextOne) {
  const CheckResult result =
      Run(Edited([&](const std::string& tensor, Shape&, std::vector<std::byte>&) {
        return tensor != "model.layers.3.self_attn.probs";
      }));
  EXPECT_EQ(result.verdict, Grade::kRounding);
  const NodeResult& probs = NodeOf(result, "model.layers.3.self_attn.probs");
  EXPECT_EQ(probs.inside, "model.layers.3.self_attn.context");
  EXPECT_TRUE(probs.measured);
  EXPECT_TRUE(NodeOf(result, "model.layers.3.self_attn.context").measured);
  EXPECT_FALSE(NodeOf(result, "model.layers.3.self_attn.o_proj").measured);
}

bool IsLayerOutput(const std::string& name) {
  return name.starts_with("model.layers.") && std::count(name.begin(), name.end(), '.') == 2;
}

TEST_F(CheckTest, LayerOutputsAloneShowTheCause) {
  const CheckResult result =
      Run(Edited([&](const std::string& tensor, Shape&,
                     std::vector<std::byte>&) { return IsLayerOutput(tensor); },
                 "port_buggy"));
  EXPECT_EQ(result.verdict, Grade::kBug);
  ASSERT_EQ(result.findings.size(), 1);
  EXPECT_EQ(result.findings[0].cause, "weight-not-transposed");
  EXPECT_EQ(result.findings[0].nodes.size(), 8);
  EXPECT_EQ(result.first_divergence, "model.layers.0.self_attn.q_proj");
  ASSERT_TRUE(result.findings[0].measured.has_value());
  EXPECT_GT(result.findings[0].measured->with_graph.rms, 0.1);
}

TEST_F(CheckTest, LayerOutputsOfAHealthyPortAreRounding) {
  const CheckResult result =
      Run(Edited([&](const std::string& tensor, Shape&, std::vector<std::byte>&) {
        return IsLayerOutput(tensor);
      }));
  EXPECT_EQ(result.verdict, Grade::kRounding);
  EXPECT_TRUE(result.findings.empty());
  EXPECT_EQ(result.judged_up_to, "model.layers.3");
  EXPECT_EQ(NodeOf(result, "lm_head").grade, Grade::kUnknown);
}

TEST_F(CheckTest, LogitsAloneTellABugFromRounding) {
  const auto logits = [&](const std::string& tensor, Shape&, std::vector<std::byte>&) {
    return tensor == "lm_head";
  };
  EXPECT_EQ(Run(Edited(logits)).verdict, Grade::kRounding);
#if !defined(__SANITIZE_ADDRESS__)  // some hundred runs of the whole model: minutes with it
  const CheckResult buggy = Run(Edited(logits, "port_buggy"));
  EXPECT_EQ(buggy.verdict, Grade::kBug);
  ASSERT_EQ(buggy.findings.size(), 1);
  EXPECT_EQ(buggy.findings[0].cause, "weight-not-transposed");
#endif
}

// A trace that ends in the middle says nothing about the model.
TEST_F(CheckTest, FirstLayerAloneIsUnknown) {
  const CheckResult result =
      Run(Edited([&](const std::string& tensor, Shape&, std::vector<std::byte>&) {
        return tensor == "model.layers.0";
      }));
  EXPECT_EQ(result.verdict, Grade::kUnknown);
}

TEST_F(CheckTest, WrongShapeIsAnError) {
  const Trace trace = Edited([&](const std::string& tensor, Shape& shape, std::vector<std::byte>&) {
    if (tensor == "model.norm") std::swap(shape[0], shape[1]);
    return true;
  });
  try {
    Run(trace);
    FAIL() << "a wrong shape was let pass";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("model.norm"), std::string::npos) << error.what();
  }
}

TEST_F(CheckTest, MaskedScoresMayHoldAnything) {
  const CheckResult result =
      Run(Edited([&](const std::string& tensor, Shape& shape, std::vector<std::byte>& bytes) {
        if (tensor.ends_with(".scores")) {
          auto* values = reinterpret_cast<uint16_t*>(bytes.data());
          const int64_t keys = shape[2];
          for (int64_t i = 0; i < NumElements(shape); ++i) {
            if (i % keys > i / keys % keys) values[i] = 0x7fc0;
          }
        }
        return true;
      }));
  EXPECT_EQ(result.verdict, Grade::kRounding);
}

TEST_F(CheckTest, MaskedProbabilityIsABug) {
  const CheckResult result =
      Run(Edited([&](const std::string& tensor, Shape&, std::vector<std::byte>& bytes) {
        if (tensor == "model.layers.0.self_attn.probs") {
          reinterpret_cast<uint16_t*>(bytes.data())[1] = FloatToBF16(0.001F);  // token 0, key 1
        }
        return true;
      }));
  EXPECT_EQ(result.verdict, Grade::kBug);
  EXPECT_EQ(result.first_divergence, "model.layers.0.self_attn.probs");
}

}  // namespace
}  // namespace samebits
