// Ids and texts against what the `tokenizers` library gave
// (tests/fixtures/make_tokenizer_cases.py): the cases of cases.json, and 20,000 random texts that
// are made here from the same seed.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "samebits/base/error.h"
#include "samebits/base/json.h"
#include "samebits/text/tokenizer.h"

namespace samebits {
namespace {

const std::string kFolder = SAMEBITS_SOURCE_DIR "/tests/fixtures/tokenizer/";
constexpr int64_t kMaxBytes = 64 << 20;

Json Load(const std::string& name) {
  return ParseJson(ReadTextFile(kFolder + name, kMaxBytes), name);
}

class Generator {  // splitmix64
 public:
  explicit Generator(uint64_t seed) : state_(seed) {}
  uint64_t Below(uint64_t n) {
    state_ += 0x9e3779b97f4a7c15U;
    uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
    return (z ^ (z >> 31)) % n;
  }

 private:
  uint64_t state_;
};

std::string RandomText(Generator& generator, const Json& rules) {
  const Json& pools = rules["pools"];
  const uint64_t length = generator.Below(rules["most"].get<uint64_t>());
  std::vector<size_t> chosen(1 + generator.Below(3));
  for (size_t& pool : chosen) pool = generator.Below(pools.size());
  std::string text;
  for (uint64_t i = 0; i < length; ++i) {
    const Json& pool = pools[chosen[generator.Below(chosen.size())]];
    if (pool[0].is_string()) {
      text += pool[generator.Below(pool.size())].get<std::string>();
      continue;
    }
    const auto low = pool[0].get<uint64_t>(), high = pool[1].get<uint64_t>();
    const auto code = static_cast<uint32_t>(low + generator.Below(high - low + 1));
    AppendUtf8(code >= 0xd800 && code <= 0xdfff ? 0xfffd : code, text);
  }
  return text;
}

void AddHash(uint64_t& hash, const std::string& bytes) {  // FNV-1a, the length first
  const auto put = [&](uint8_t byte) { hash = (hash ^ byte) * 0x100000001b3U; };
  for (int i = 0; i < 4; ++i) put(static_cast<uint8_t>(bytes.size() >> (8 * i)));
  for (const char c : bytes) put(static_cast<uint8_t>(c));
}

std::string AsBytes(const std::vector<int64_t>& ids) {
  std::string bytes;
  bytes.reserve(4 * ids.size());
  for (const int64_t id : ids) {
    for (int i = 0; i < 4; ++i) bytes.push_back(static_cast<char>(id >> (8 * i)));
  }
  return bytes;
}

class TokenizerFixture : public testing::TestWithParam<std::string> {
 protected:
  std::string Path() const {
    return SAMEBITS_SOURCE_DIR "/" + Load("manifest.json")["files"][GetParam()].get<std::string>();
  }
  Tokenizer Open() const { return Tokenizer::Parse(ReadTextFile(Path(), kMaxBytes), Path()); }
};

TEST_P(TokenizerFixture, EveryKindOfText) {
  const Tokenizer tokenizer = Open();
  const Json recorded = Load(GetParam() + ".cases.json");
  size_t at = 0;
  // In the order of the file, which a sorted object does not keep.
  using Ordered = nlohmann::ordered_json;
  const Ordered cases = Ordered::parse(ReadTextFile(kFolder + "cases.json", kMaxBytes));
  EXPECT_GE(cases.size(), 84U);
  for (const auto& [kind, texts] : cases.items()) {
    for (const auto& item : texts) {
      ASSERT_LT(at, recorded.size());
      const auto text = item.get<std::string>();
      const Json& one = recorded[at++];
      const auto ids = one[0].get<std::vector<int64_t>>();
      EXPECT_EQ(tokenizer.Encode(text), ids) << kind << ": " << text;
      const std::string whole = one[1].is_null() ? text : one[1].get<std::string>();
      const std::string shown = one[2].is_null() ? whole : one[2].get<std::string>();
      EXPECT_EQ(tokenizer.Decode(ids, false), whole) << kind;
      EXPECT_EQ(tokenizer.Decode(ids, true), shown) << kind;
    }
  }
  EXPECT_EQ(at, recorded.size());
}

TEST_P(TokenizerFixture, RandomTexts) {
  const Tokenizer tokenizer = Open();
  const Json rules = Load("random.json"), hashes = Load("hashes.json")[GetParam()];
  Generator generator(rules["seed"].get<uint64_t>());
  const auto count = rules["count"].get<size_t>();
  ASSERT_EQ(count, 20000U);
  const size_t block = count / hashes.size();
  uint64_t hash = 0;
  for (size_t i = 0; i < count; ++i) {
    if (i % block == 0) hash = 0xcbf29ce484222325U;
    const std::vector<int64_t> ids = tokenizer.Encode(RandomText(generator, rules));
    AddHash(hash, AsBytes(ids));
    AddHash(hash, tokenizer.Decode(ids, false));
    AddHash(hash, tokenizer.Decode(ids, true));
    if (i % block == block - 1) {
      EXPECT_EQ(fmt::format("{:016x}", hash), hashes[i / block].get<std::string>())
          << "texts " << i + 1 - block << " to " << i;
    }
  }
}

// Texts are cut wherever that is allowed, and often: what matters are the characters on both sides
// of a line end, also after they were normalized.
TEST_P(TokenizerFixture, ThreadsChangeNoId) {
  // U+FE70 is a letter; under NFKC a blank and a mark.
  const std::vector<std::string> parts = {
      "\n",     "\n",     "\n",     "\r",     " ",       "\t",         "a",      "B",      "1",
      ".",      "/",      "'s",     "\u00e9", "e\u0301", "\u0301",     "\u3000", "\u4e2d", "\u3002",
      "\ufe70", "\u00a8", "\u1100", "\u1161", "\u017f",  "<|im_end|>", "</s>",   "\xff"};
  Generator generator(7);
  std::vector<std::string> texts;
  for (int i = 0; i < 2000; ++i) {
    std::string text;
    for (uint64_t left = generator.Below(40); left > 0; --left) {
      text += parts[generator.Below(parts.size())];
    }
    texts.push_back(std::move(text));
  }
  std::string lines;
  const Json kinds = Load("cases.json");
  for (const auto& [kind, cases] : kinds.items()) {
    for (const Json& one : cases) lines += one.get<std::string>() + "\nand ";
  }
  texts.push_back(lines);
  const std::vector<std::string_view> views(texts.begin(), texts.end());
  Json file = ParseJson(ReadTextFile(Path(), kMaxBytes), Path());
  int compared = 0;
  const auto compare = [&](const std::string& what) {
    std::optional<Tokenizer> tokenizer;
    try {
      tokenizer = Tokenizer::Parse(file.dump(), Path());
    } catch (const Error& error) {  // Metaspace behind Prepend
      ASSERT_EQ(error.code(), ErrorCode::kUnsupported) << error.what();
      return;
    }
    const std::vector<std::vector<int64_t>> batch = tokenizer->EncodeBatch(views, true, 3, 1);
    ASSERT_EQ(batch.size(), texts.size());
    for (size_t i = 0; i < texts.size(); ++i) {
      EXPECT_EQ(batch[i], tokenizer->Encode(texts[i])) << what << ", text " << i;
    }
    ++compared;
  };
  compare("as it is");
  // Normalized added tokens forbid cuts.
  for (Json& token : file["added_tokens"]) token["normalized"] = false;
  for (const char* normalizer :
       {R"({"type": "NFC"})", R"({"type": "NFKC"})", R"({"type": "NFD"})",
        R"({"type": "Prepend", "prepend": "B"})",
        R"({"type": "Replace", "pattern": {"String": "\na"}, "content": "\n"})"}) {
    file["normalizer"] = Json::parse(normalizer);
    compare(normalizer);
  }
  EXPECT_GE(compared, 4);
}

INSTANTIATE_TEST_SUITE_P(Kinds, TokenizerFixture,
                         testing::Values("nano", "qwen2.5", "qwen3", "llama3", "tekken", "o200k",
                                         "smol", "gpt2_prefix", "other", "mistral_old",
                                         "mistral_meta", "metaspace_unk"),
                         [](const auto& it) {
                           std::string name = it.param;
                           for (char& c : name) c = c == '.' ? '_' : c;
                           return name;
                         });

TEST(InvalidUtf8, IsReplacedAsPythonDoes) {
  for (const Json& one : Load("invalid.json")) {
    const auto hex = one[0].get<std::string>();
    std::string bytes;
    for (size_t i = 0; i < hex.size(); i += 2) {
      bytes.push_back(static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16)));
    }
    const auto expected = one[1].get<std::string>();
    EXPECT_EQ(ReplaceInvalidUtf8(bytes), expected) << hex;
    EXPECT_EQ(IsValidUtf8(bytes), bytes == expected) << hex;
  }
}

}  // namespace
}  // namespace samebits
