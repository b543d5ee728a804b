// The section "functions" of a profile: read, written, and refused with the place named.
#include "samebits/numerics/torch_functions.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>

#include "samebits/base/errors_testing.h"

namespace samebits {
namespace {

Json Good() {
  return Json::parse(R"({
    "sum": {"family": "cascade", "lanes": 8, "proof": {"compared": 10, "differing": 0}},
    "softmax": {"lanes": 16, "exp": "sleef_expf_u10", "proof": {"compared": 10, "differing": 1}},
    "silu": {"exp": "sleef_expf_u10", "tail_exp": "glibc_expf", "block": 32, "grain": 32768,
             "proof": {"compared": 7, "differing": 0}},
    "sdpa": {"lanes": 16, "sums": 2, "exp": "fexp_u20", "tail_exp": "glibc_exp_rounded",
             "rescale_exp": "glibc_expf", "kv_split": 512,
             "q_splits": [{"min_q_len": 0, "size": 32}, {"min_q_len": 192, "size": 64}],
             "proof": {"compared": 0, "differing": 0}},
    "rotary": [{"inv_freq": [1065353216, 1008981770], "scaling_bits": 1065353216, "positions": 100,
                "cos": [[3, 0, -1], [3, 1, 1], [99, 0, 1]], "sin": [],
                "proof": {"compared": 400, "differing": 0}}]
  })");
}

std::string Refusal(const Json& json) {
  return ErrorOf(ErrorCode::kBadInput, [&] { ReadTorchFunctions(json, "p.json"); });
}

TEST(TorchFunctions, ReadsAndWritesBack) {
  const TorchFunctions f = ReadTorchFunctions(Good(), "p.json");
  EXPECT_EQ(f.sum->lanes, 8);
  EXPECT_TRUE(f.sum->proof.Proven());
  EXPECT_EQ(f.softmax->lanes, 16);
  EXPECT_FALSE(f.softmax->proof.Proven());
  EXPECT_EQ(f.silu->block, 32);
  EXPECT_EQ(f.silu->tail_exp, torch_math::Exp::kGlibc);
  EXPECT_EQ(f.sdpa->sums, 2);
  EXPECT_EQ(f.sdpa->q_splits[1].min_q_len, 192);
  EXPECT_FALSE(f.sdpa->proof.Proven());
  ASSERT_EQ(f.rotary.size(), 1U);
  EXPECT_EQ(f.rotary[0].inv_freq, (std::vector<float>{1.0F, 0.01F}));
  EXPECT_EQ(f.rotary[0].cos[1].ulps, 1);
  EXPECT_EQ(f.FindRotary({1.0F, 0.01F}, 1.0F), &f.rotary[0]);
  EXPECT_EQ(f.FindRotary({1.0F, 0.01F}, 2.0F), nullptr);
  EXPECT_EQ(f.FindRotary({1.0F}, 1.0F), nullptr);
  EXPECT_EQ(WriteTorchFunctions(f), Good());
}

TEST(TorchFunctions, AnEmptySectionHasNothing) {
  const TorchFunctions f = ReadTorchFunctions(Json::object(), "p.json");
  EXPECT_FALSE(f.sum || f.softmax || f.silu || f.sdpa);
  EXPECT_TRUE(f.rotary.empty());
  EXPECT_EQ(WriteTorchFunctions(f), Json::object());
}

TEST(TorchFunctions, RotaryOfATrace) {
  const Json json = Json::parse(R"({"inv_freq": [0], "attention_scaling": 1.25,
                                    "cos": [[7, 0, 2]], "sin": []})");
  const RotaryFunction rotary = ReadRotaryFunction(json, true, "t.safetensors: rotary");
  EXPECT_EQ(rotary.scaling, 1.25F);
  EXPECT_EQ(rotary.cos[0].position, 7);
  EXPECT_THAT(ErrorOf(ErrorCode::kBadInput, [&] { ReadRotaryFunction(json, false, "p"); }),
              testing::HasSubstr("attention_scaling"));
}

struct Bad {
  const char* pointer;  // what is replaced
  const char* value;
  const char* message;
};

TEST(TorchFunctions, BadFieldsAreNamed) {
  for (const Bad& bad : std::vector<Bad>{
           {"/sum/family", "\"pairwise\"", "p.json.sum: 'family'"},
           {"/sum/lanes", "12", "power of two"},
           {"/sum/lanes", "0", "p.json.sum: 'lanes'"},
           {"/sum/lanes", "\"8\"", "p.json.sum: 'lanes'"},
           {"/sum/colour", "1", "unknown key 'colour'"},
           {"/sum/proof", "3", "p.json.sum.proof"},
           {"/sum/proof/differing", "11", "p.json.sum.proof: 'differing'"},
           {"/softmax/exp", "\"exp\"", "unknown function \"exp\""},
           {"/silu/block", "-1", "p.json.silu: 'block'"},
           {"/silu/grain", "0", "p.json.silu: 'grain'"},
           {"/sdpa/sums", "3", "p.json.sdpa: 'sums'"},
           {"/sdpa/q_splits", "[]", "p.json.sdpa.q_splits"},
           {"/sdpa/q_splits/0/min_q_len", "1", "p.json.sdpa.q_splits: 'min_q_len'"},
           {"/sdpa/q_splits/1/min_q_len", "0", "p.json.sdpa.q_splits: 'min_q_len'"},
           {"/sdpa/q_splits/1/size", "0", "p.json.sdpa.q_splits: 'size'"},
           {"/sdpa/kv_split", "1e9", "p.json.sdpa: 'kv_split'"},
           {"/rotary", "{}", "'rotary'"},
           {"/rotary/0/inv_freq", "[]", "p.json.rotary[0]: 'inv_freq'"},
           {"/rotary/0/inv_freq/1", "2139095040", "are the bits of inf"},
           {"/rotary/0/inv_freq/1", "4294967296", "p.json.rotary[0].inv_freq"},
           {"/rotary/0/scaling_bits", "1.0", "'scaling_bits'"},
           {"/rotary/0/cos/0/0", "100", "p.json.rotary[0].cos"},
           {"/rotary/0/cos/0/1", "2", "p.json.rotary[0].cos"},
           {"/rotary/0/cos/1", "[3, 0, 1]", "out of order"},
           {"/rotary/0/cos/2", "[99, 0]", "[position, i, ulps]"},
           {"/rotary/0/cos/2/2", "1.5", "p.json.rotary[0].cos"},
           {"/extra", "{}", "unknown key 'extra'"},
       }) {
    Json json = Good();
    json[Json::json_pointer(bad.pointer)] = Json::parse(bad.value);
    EXPECT_THAT(Refusal(json), testing::HasSubstr(bad.message)) << bad.pointer;
  }
  for (const auto* key : {"sum", "softmax", "silu", "sdpa"}) {
    for (const auto& [field, value] : Good()[key].items()) {
      Json json = Good();
      json[key].erase(field);
      EXPECT_THAT(Refusal(json), testing::HasSubstr(field)) << key << "." << field;
    }
    Json json = Good();
    json[key] = Json::array();
    EXPECT_THAT(Refusal(json), testing::HasSubstr("expected an object"));
  }
  EXPECT_THAT(Refusal(Json(3)), testing::HasSubstr("expected an object"));
}

}  // namespace
}  // namespace samebits
