// Profiles: what is read, what is refused and how it is said, and that a look-up never goes beyond
// what was proven.
#include "samebits/numerics/profile.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "samebits/base/errors_testing.h"
#include "samebits/checkpoint/digest.h"

namespace samebits {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

Json Good() {
  return Json::parse(R"({
    "format": "samebits-profile-1", "framework": "torch", "framework_version": "2.13.0",
    "transformers_version": "5.24.0", "cpu": "Zen", "cpu_flags": ["avx2"], "capability": "AVX2",
    "threads": 2, "dtype": "bfloat16", "rng": "torch", "model_type": "qwen2", "prompts": [5],
    "steps": 3, "batch": 1, "weight_alignment": {"lm_head.weight": 48},
    "rules": [{"bias": "last", "classes": [{"order": {"family": "chain"}}]},
              {"bias": "first", "classes": [{"order": {"family": "chain", "block": 192}}]}],
    "linear": [{"in_features": 8, "out_features": 16, "bias": false, "rows": [2, 5], "rule": 1,
                "proof": {"compared": 10, "differing": 0}},
               {"in_features": 8, "out_features": 16, "bias": true, "rows": [1, 1], "rule": 0,
                "proof": {"compared": 10, "differing": 3}}],
    "scores": [{"head_dim": 4, "matrices": [2, 3], "batch": 1, "kv_heads": 2, "rows": [2, 9],
                "keys": "rows", "rule": 0,
                "proof": {"compared": 10, "differing": 0}},
               {"head_dim": 4, "matrices": [2, 2], "batch": 1, "kv_heads": 2, "rows": [1, 1],
                "keys": [3, 8], "rule": 1,
                "proof": {"compared": 0, "differing": 0}}],
    "context": [],
    "sdpa_scores": [],
    "sdpa_context": [{"head_dim": 4, "matrices": [1, 2], "rows": [1, 4], "keys": [1, 6], "rule": 0,
                      "accumulate": false, "proof": {"compared": 10, "differing": 0}},
                     {"head_dim": 4, "matrices": [1, 2], "rows": [1, 4], "keys": [1, 6], "rule": 1,
                      "accumulate": true, "proof": {"compared": 10, "differing": 0}}],
    "functions": {"sum": {"family": "cascade", "lanes": 8,
                          "proof": {"compared": 7, "differing": 2}},
                  "softmax": {"lanes": 8, "exp": "exp_u20",
                              "proof": {"compared": 7, "differing": 0}}}
  })");
}

// The text with the digest that fits.
std::string Signed(Json json) {
  json.erase("digest");
  json["digest"] = Sha256(json.dump(-1, ' ', true));
  return json.dump();
}

Profile Read(const Json& json) { return Profile::Parse(Signed(json), "p.json"); }

std::string Refusal(const Json& json, ErrorCode code = ErrorCode::kBadInput) {
  return ErrorOf(code, [&] { Read(json); });
}

std::string RefusedText(const std::string& text) {
  return ErrorOf(ErrorCode::kBadInput, [&] { Profile::Parse(text, "p.json"); });
}

// An edit at a JSON pointer, and words of its message.
struct Edit {
  const char *pointer, *value, *message;
};

void ExpectRefused(const std::vector<Edit>& edits) {
  for (const Edit& edit : edits) {
    Json json = Good();
    json[Json::json_pointer(edit.pointer)] = Json::parse(edit.value);
    const std::string message = Refusal(json);
    EXPECT_THAT(message, HasSubstr(edit.message)) << edit.pointer << " " << edit.value;
    EXPECT_TRUE(message.starts_with("p.json: ")) << message;
    EXPECT_LT(message.size(), 400U) << message;
  }
}

TEST(Profile, ReadsWhatTheProbeWrites) {
  const Profile profile = Read(Good());
  EXPECT_EQ(profile.path(), "p.json");
  EXPECT_EQ(profile.framework_version(), "2.13.0");
  EXPECT_EQ(profile.cpu(), "Zen");
  EXPECT_EQ(profile.dtype(), DType::kBF16);
  EXPECT_EQ(profile.threads(), 2);
  EXPECT_EQ(profile.weight_alignment().at("lm_head.weight"), 48);
  EXPECT_EQ(profile.functions().softmax->lanes, 8);
  EXPECT_FALSE(profile.functions().silu.has_value());
  EXPECT_TRUE(profile.digest().starts_with("sha256:"));
}

TEST(Profile, SectionsWithoutEntriesMayBeLeftOut) {
  Json json = Good();
  for (const char* key : {"linear", "scores", "context", "sdpa_scores", "sdpa_context",
                          "weight_alignment", "capability"}) {
    json.erase(key);
  }
  const Profile profile = Read(json);
  EXPECT_TRUE(profile.weight_alignment().empty());
  EXPECT_THAT(ErrorOf(ErrorCode::kBadInput,
                      [&] { profile.Find(ProductOp::kLinear, {.rows = 2, .in_features = 8}); }),
              HasSubstr("no entry for linear 8 -> 0 without bias, 2 rows in bfloat16"));
}

TEST(Profile, RefusesWhatIsNoProfile) {
  EXPECT_THAT(RefusedText(""), HasSubstr("p.json: not valid JSON"));
  EXPECT_THAT(RefusedText("[1]"), HasSubstr("p.json: no 'format'; is this a profile?"));
  EXPECT_THAT(RefusedText("{}"), HasSubstr("no 'format'; is this a profile?"));
  EXPECT_THAT(RefusedText("3"), HasSubstr("no 'format'; is this a profile?"));
  const std::string text = Signed(Good());
  for (size_t size = 0; size < text.size(); size += 7) {
    EXPECT_THAT(RefusedText(text.substr(0, size)), HasSubstr("not valid JSON")) << size;
  }
  EXPECT_THAT(RefusedText(text + "x"), HasSubstr("not valid JSON"));
  EXPECT_THAT(RefusedText(text + std::string(1, '\0')), HasSubstr("NUL"));
  EXPECT_THAT(RefusedText("{\"format\": 1, \"format\": 2}"), HasSubstr("stands twice"));
  EXPECT_THAT(ErrorOf(ErrorCode::kIo, [] { Profile::Open("/no/such/profile.json"); }),
              HasSubstr("/no/such/profile.json: can not be opened"));
}

TEST(Profile, RefusesOtherFormatsAndFrameworks) {
  for (const char* format : {"samebits-profile-2", "samebits-trace-1", ""}) {
    Json json = Good();
    json["format"] = format;
    EXPECT_THAT(Refusal(json, ErrorCode::kUnsupported), HasSubstr("expected samebits-profile-1"));
  }
  Json json = Good();
  json["framework"] = "jax";
  EXPECT_THAT(Refusal(json, ErrorCode::kUnsupported),
              HasSubstr("framework \"jax\": this engine replays torch alone"));
}

TEST(Profile, RefusesValuesOfOtherTypesAndRanges) {
  ExpectRefused({
      {"/format", "1", "'format': expected a string, found 1"},
      {"/framework", "null", "'framework': expected a string"},
      {"/framework_version", "2", "'framework_version': expected a string"},
      {"/cpu", "[]", "'cpu': expected a string"},
      {"/threads", "0", "'threads': expected an integer from 1 to 4096, found 0"},
      {"/threads", "-1", "'threads'"},
      {"/threads", "4097", "'threads'"},
      {"/threads", "1.5", "'threads'"},
      {"/threads", "\"2\"", "'threads'"},
      {"/threads", "18446744073709551615", "'threads'"},
      {"/threads", "1e30", "'threads'"},
      {"/dtype", "\"float8\"", "dtype \"float8\": expected float32, bfloat16 or float16"},
      {"/dtype", "16", "'dtype': expected a string"},
      {"/weight_alignment", "[1]", "'weight_alignment': expected an object, found [1]"},
      {"/weight_alignment", "null", "'weight_alignment': expected an object"},
      {"/weight_alignment/lm_head.weight", "64", "expected an integer from 0 to 63, found 64"},
      {"/weight_alignment/lm_head.weight", "\"0\"", "'lm_head.weight'"},
      {"/rules", "{}", "'rules': expected a list, found {}"},
      {"/rules", "[]", "linear[0]: 'rules' is empty"},
      {"/rules/1", "7", "rules[1]: expected an object"},
      {"/rules/1/bias", "\"never\"", "rules[1]: 'bias'"},
      {"/rules/1/classes", "[]", "rules[1]: 'classes'"},
      {"/rules/1/classes/0/order/family", "\"spiral\"", "rules[1]: class 0: 'order': 'family'"},
      {"/rules/1/classes/0/order/block", "99999999999", "rules[1]: class 0: 'order': 'block'"},
      {"/functions", "[]", "'functions': expected an object"},
      {"/functions/sum/lanes", "3", "'functions'.sum: 'lanes'"},
      {"/linear", "3", "'linear': expected a list, found 3"},
      {"/colour", "\"blue\"", "unknown key \"colour\""},
  });
}

TEST(Profile, RefusesEntries) {
  ExpectRefused({
      {"/linear/0", "5", "linear[0]"},
      {"/linear/0/rows", "[0, 5]", "linear[0]: 'rows': expected 1 <= lowest <= highest"},
      {"/linear/0/rows", "[5, 4]", "expected 1 <= lowest <= highest, found [5,4]"},
      {"/linear/0/rows", "[-3, 4]", "expected 1 <= lowest <= highest"},
      {"/linear/0/rows", "[1, 99999999999]", "expected 1 <= lowest <= highest"},
      {"/linear/0/rows", "[1, 18446744073709551615]", "expected 1 <= lowest <= highest"},
      {"/linear/0/rows", "[1, 1e9]", "expected [lowest, highest]"},
      {"/linear/0/rows", "[1]", "expected [lowest, highest], found [1]"},
      {"/linear/0/rows", "[1, 2, 3]", "expected [lowest, highest]"},
      {"/linear/0/rows", "3", "expected [lowest, highest], found 3"},
      {"/linear/0/rows", "\"rows\"", "expected [lowest, highest]"},
      {"/linear/0/in_features", "0", "linear[0]: 'in_features'"},
      {"/linear/0/out_features", "9223372036854775808", "linear[0]: 'out_features'"},
      {"/linear/0/bias", "0", "linear[0]: 'bias': expected true or false"},
      {"/linear/0/rule", "2", "linear[0]: 'rule': expected an integer from 0 to 1, found 2"},
      {"/linear/0/rule", "-1", "linear[0]: 'rule'"},
      {"/linear/0/proof", "1", "linear[0]: 'proof': expected an object"},
      {"/linear/0/proof/compared", "-1", "linear[0]: 'proof': 'compared'"},
      {"/linear/0/proof/compared", "9223372036854775808", "'compared'"},
      {"/linear/0/proof/differing", "11", "'differing': expected an integer from 0 to 10"},
      {"/linear/0/proof/skipped", "1", "linear[0]: 'proof': unknown key \"skipped\""},
      {"/linear/0/threads", "3", "linear[0]: unknown key \"threads\""},
      {"/scores/0", "null", "scores[0]"},
      {"/scores/0/head_dim", "0", "scores[0]: 'head_dim'"},
      {"/scores/0/matrices", "2", "scores[0]: 'matrices': expected [lowest, highest]"},
      {"/scores/0/keys", "\"all\"", "scores[0]: 'keys': expected [lowest, highest]"},
      {"/scores/0/keys", "[4, 3]", "scores[0]: 'keys': expected 1 <= lowest <= highest"},
      {"/scores/0/batch", "0", "scores[0]: 'batch': expected an integer from 1"},
      {"/scores/0/kv_heads", "0", "scores[0]: 'kv_heads': expected an integer from 1"},
      {"/scores/0/accumulate", "true", "scores[0]: unknown key \"accumulate\""},
      {"/sdpa_context/0/batch", "1", "sdpa_context[0]: unknown key \"batch\""},
      {"/scores/0/in_features", "4", "scores[0]: unknown key \"in_features\""},
      {"/sdpa_context/0/accumulate", "1", "sdpa_context[0]: 'accumulate': expected true or false"},
  });
}

TEST(Profile, RefusesWhatIsMissing) {
  for (const char* key :
       {"framework", "framework_version", "cpu", "threads", "dtype", "rules", "functions"}) {
    Json json = Good();
    json.erase(key);
    EXPECT_THAT(Refusal(json), HasSubstr("'" + std::string(key) + "'"));
  }
  for (const auto& [section, number] :
       {std::pair("linear", 0), std::pair("scores", 1), std::pair("sdpa_context", 1)}) {
    for (const auto& [key, value] : Good()[section][number].items()) {
      Json json = Good();
      json[section][number].erase(key);
      EXPECT_THAT(Refusal(json), HasSubstr(fmt::format("{}[{}]: ", section, number)));
      EXPECT_THAT(Refusal(json), HasSubstr("'" + key + "'"));
    }
  }
}

TEST(Profile, RefusesADigestThatDoesNotFit) {
  Json json = Good();
  EXPECT_THAT(RefusedText(json.dump()), HasSubstr("'digest': expected a string, found nothing"));
  json["digest"] = "sha256:00";
  EXPECT_THAT(RefusedText(json.dump()), HasSubstr("its digest is \"sha256:00\", its contents give "
                                                  "sha256:"));
  EXPECT_THAT(RefusedText(json.dump()), HasSubstr("python -m samebits probe makes a new one"));
  json["digest"] = 7;
  EXPECT_THAT(RefusedText(json.dump()), HasSubstr("'digest': expected a string"));
  // An edit that breaks no rule is found, too; another order of keys and white space is none.
  json = Json::parse(Signed(Good()));
  json["linear"][0]["rule"] = 0;
  EXPECT_THAT(RefusedText(json.dump()), HasSubstr("was it edited?"));
  json["linear"][0]["rule"] = 1;
  EXPECT_NO_THROW(Profile::Parse(json.dump(3), "p.json"));
}

ProductShape Linear(int64_t rows, int64_t in, int64_t out, bool bias) {
  return {.rows = rows, .in_features = in, .out_features = out, .bias = bias};
}

ProductShape Attention(int64_t rows, int64_t keys, int64_t head_dim, int64_t matrices) {
  return {.rows = rows,
          .keys = keys,
          .head_dim = head_dim,
          .matrices = matrices,
          .batch = 1,
          .kv_heads = 2};
}

bool Covers(const Profile& profile, ProductOp op, const ProductShape& shape) {
  try {
    profile.Find(op, shape);
    return true;
  } catch (const Error&) {
    return false;
  }
}

TEST(Profile, FindsLinearLayersWithinTheirRangesOnly) {
  const Profile profile = Read(Good());
  const auto covers = [&](const ProductShape& s) { return Covers(profile, ProductOp::kLinear, s); };
  const Profile::Found found = profile.Find(ProductOp::kLinear, Linear(2, 8, 16, false));
  EXPECT_EQ(found.rule->bias, BiasRule::kFirst);
  EXPECT_TRUE(found.proven);
  EXPECT_TRUE(covers(Linear(5, 8, 16, false)));
  EXPECT_FALSE(covers(Linear(1, 8, 16, false)));
  EXPECT_FALSE(covers(Linear(6, 8, 16, false)));
  EXPECT_FALSE(covers(Linear(3, 7, 16, false)));
  EXPECT_FALSE(covers(Linear(3, 9, 16, false)));
  EXPECT_FALSE(covers(Linear(3, 8, 15, false)));
  EXPECT_FALSE(covers(Linear(3, 8, 17, false)));
  EXPECT_FALSE(covers(Linear(3, 16, 8, false)));
  EXPECT_FALSE(covers(Linear(3, 8, 16, true)));
  const Profile::Found other = profile.Find(ProductOp::kLinear, Linear(1, 8, 16, true));
  EXPECT_EQ(other.rule->bias, BiasRule::kLast);
  EXPECT_FALSE(other.proven);
  EXPECT_FALSE(covers(Linear(2, 8, 16, true)));
}

TEST(Profile, FindsAttentionWithinItsRangesOnly) {
  const Profile profile = Read(Good());
  const auto covers = [&](const ProductShape& s) { return Covers(profile, ProductOp::kScores, s); };
  // "rows": as many keys as rows.
  EXPECT_TRUE(covers(Attention(2, 2, 4, 2)));
  EXPECT_TRUE(covers(Attention(9, 9, 4, 3)));
  EXPECT_FALSE(covers(Attention(10, 10, 4, 2)));
  EXPECT_FALSE(covers(Attention(5, 6, 4, 2)));
  EXPECT_FALSE(covers(Attention(5, 4, 4, 2)));
  EXPECT_FALSE(covers(Attention(1, 1, 4, 2)));
  EXPECT_FALSE(covers(Attention(2, 2, 4, 1)));
  EXPECT_FALSE(covers(Attention(2, 2, 4, 4)));
  EXPECT_FALSE(covers(Attention(2, 2, 8, 2)));
  // One row over 3 to 8 keys.
  EXPECT_TRUE(covers(Attention(1, 3, 4, 2)));
  EXPECT_TRUE(covers(Attention(1, 8, 4, 2)));
  EXPECT_FALSE(covers(Attention(1, 2, 4, 2)));
  EXPECT_FALSE(covers(Attention(1, 9, 4, 2)));
  EXPECT_FALSE(covers(Attention(2, 3, 4, 2)));
  EXPECT_FALSE(covers(Attention(1, 3, 4, 3)));
  for (const auto& [batch, kv_heads] : {std::pair(2, 2), std::pair(1, 1), std::pair(0, 0)}) {
    ProductShape other = Attention(2, 2, 4, 2);
    other.batch = batch;
    other.kv_heads = kv_heads;
    EXPECT_FALSE(covers(other)) << batch << " " << kv_heads;
  }
  // Another product of the same shape is another product.
  EXPECT_FALSE(Covers(profile, ProductOp::kContext, Attention(2, 2, 4, 2)));
  EXPECT_FALSE(Covers(profile, ProductOp::kSdpaScores, Attention(2, 2, 4, 2)));
  ProductShape block = Attention(1, 3, 4, 2);  // inside the kernel it does not matter
  block.batch = block.kv_heads = 0;
  EXPECT_EQ(profile.Find(ProductOp::kSdpaContext, block).rule->bias, BiasRule::kLast);
  EXPECT_EQ(profile.Find(ProductOp::kSdpaAccumulate, block).rule->bias, BiasRule::kFirst);
}

TEST(Profile, AMissingEntrySaysWhatWouldMakeIt) {
  const Profile profile = Read(Good());
  EXPECT_THAT(
      ErrorOf(ErrorCode::kBadInput,
              [&] { profile.Find(ProductOp::kLinear, Linear(7, 8, 16, true)); }),
      HasSubstr("p.json: no entry for linear 8 -> 16 with bias, 7 rows in bfloat16; nothing is "
                "guessed. `python -m samebits probe --model DIR --dtype bfloat16 --threads 2 "
                "--prompts 7`"));
  EXPECT_THAT(ErrorOf(ErrorCode::kBadInput,
                      [&] { profile.Find(ProductOp::kContext, Attention(1, 12, 4, 2)); }),
              HasSubstr("no entry for context, head_dim 4, 2 matrices (batch 1, kv_heads "
                        "2), 1 rows, 12 keys in bfloat16"));
}

TEST(Profile, TheFirstEntryThatCoversAShapeCounts) {
  Json json = Good();
  json["linear"].insert(json["linear"].begin(), json["linear"][0]);
  json["linear"][0]["rule"] = 0;
  json["linear"][0]["rows"] = {4, 9};
  const Profile profile = Read(json);
  const auto bias = [&](int64_t rows) {
    return profile.Find(ProductOp::kLinear, Linear(rows, 8, 16, false)).rule->bias;
  };
  EXPECT_EQ(bias(3), BiasRule::kFirst);
  EXPECT_EQ(bias(4), BiasRule::kLast);
  EXPECT_EQ(bias(5), BiasRule::kLast);
}

TEST(Profile, ListsWhatIsNotProven) {
  EXPECT_THAT(
      Read(Good()).Unproven(),
      ElementsAre(HasSubstr("linear 8 -> 16 with bias, 1 rows (to 1 rows): 3 of 10 values"),
                  HasSubstr("scores, head_dim 4, 2 matrices (batch 1, kv_heads 2), 1 rows, 3 keys "
                            "(to 1 rows): 0 of 0"),
                  HasSubstr("sum: 2 of 7 values differed in its proof")));
  Json json = Good();
  json["linear"].erase(1);
  json["scores"].erase(1);
  json["functions"].erase("sum");
  EXPECT_THAT(Read(json).Unproven(), IsEmpty());
}

TEST(Profile, AnUnprovenRotaryIsListed) {
  Json json = Good();
  json["functions"]["rotary"] = Json::parse(
      R"([{"inv_freq": [1065353216], "scaling_bits": 1065353216, "positions": 9, "cos": [],
           "sin": [], "proof": {"compared": 18, "differing": 1}}])");
  EXPECT_THAT(Read(json).Unproven(), testing::Contains(HasSubstr("rotary")));
}

TEST(Profile, CorpusIsJudgedAsItsNamesSay) {
  int files = 0;
  for (const auto& entry :
       std::filesystem::directory_iterator(SAMEBITS_SOURCE_DIR "/tests/corpus/profile")) {
    const std::string name = entry.path().filename().string();
    ++files;
    if (name.starts_with("ok_")) {
      EXPECT_NO_THROW(Profile::Parse(ReadBytes(entry.path()), name)) << name;
    } else if (name.starts_with("bad_")) {
      EXPECT_THROW(Profile::Parse(ReadBytes(entry.path()), name), Error) << name;
    }
  }
  EXPECT_GE(files, 20);
}

}  // namespace
}  // namespace samebits
