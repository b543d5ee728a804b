#include "samebits/text/tokenizer_json.h"

#include <simdjson.h>

#include <algorithm>
#include <utility>

#include "samebits/base/error.h"
#include "samebits/base/json.h"

namespace samebits {
namespace {

namespace dom = simdjson::dom;

constexpr int kMaxDepth = 32;
constexpr size_t kExcerpt = 60;

// The settings of a file are small: they are copied to where fields are read with their places.
Json ToJson(const dom::element& element, const std::string& place, int depth) {
  if (depth == kMaxDepth) Fail(ErrorCode::kBadInput, "{}: nested too deep", place);
  switch (element.type()) {
    case dom::element_type::OBJECT: {
      Json result = Json::object();
      for (const auto& [key, value] : dom::object(element)) {
        const bool added = result.emplace(std::string(key), ToJson(value, place, depth + 1)).second;
        if (!added) Fail(ErrorCode::kBadInput, "{}: key '{}' is there twice", place, key);
      }
      return result;
    }
    case dom::element_type::ARRAY: {
      Json result = Json::array();
      for (const dom::element& item : dom::array(element)) {
        result.push_back(ToJson(item, place, depth + 1));
      }
      return result;
    }
    case dom::element_type::INT64:
      return int64_t(element);
    case dom::element_type::UINT64:
      return uint64_t(element);
    case dom::element_type::DOUBLE:
      return double(element);
    case dom::element_type::STRING:
      return std::string(std::string_view(element));
    case dom::element_type::BOOL:
      return bool(element);
    case dom::element_type::NULL_VALUE:
      break;
  }
  return nullptr;
}

// simdjson reads numbers from 2^63 as unsigned and all else that is whole as signed; the checks of
// base/json.h ask nlohmann for "unsigned" where a number is not negative.
Json Settings(const dom::element& element, const std::string& place) {
  Json json = ToJson(element, place, 0);
  const auto fix = [](auto&& self, Json& value) -> void {
    if (value.is_number_integer() && !value.is_number_unsigned() && value.get<int64_t>() >= 0) {
      value = value.get<uint64_t>();
    }
    if (value.is_structured()) {
      for (Json& item : value) self(self, item);
    }
  };
  fix(fix, json);
  return json;
}

std::string Show(const dom::element& element) {
  if (element.is_object()) return "an object";
  const std::string text = simdjson::minify(element);
  return text.size() > kExcerpt ? text.substr(0, kExcerpt) + "..." : text;
}

dom::element ParseDocument(dom::parser& parser, std::string_view text, const std::string& place) {
  dom::element document;
  const auto error = parser.parse(text.data(), text.size()).get(document);
  if (error != simdjson::SUCCESS) {
    Fail(ErrorCode::kBadInput, "{}: not valid JSON: {}", place, simdjson::error_message(error));
  }
  return document;
}

// The members of an object by name, each at most once.
class Members {
 public:
  Members(const dom::element& element, std::string place) : place_(std::move(place)) {
    if (!element.is_object()) return;
    for (const auto& field : dom::object(element)) {
      if (Find(field.key) != nullptr) {
        Fail(ErrorCode::kBadInput, "{}: key '{}' is there twice", place_, field.key);
      }
      // An object with more keys than any tokenizer.json is none; no time for more of them.
      if (fields_.size() == 256) Fail(ErrorCode::kBadInput, "{}: more than 256 keys", place_);
      fields_.emplace_back(field.key, field.value);
    }
  }

  const dom::element* Find(std::string_view key) const {
    const auto found = std::find_if(fields_.begin(), fields_.end(),
                                    [&](const auto& field) { return field.first == key; });
    return found == fields_.end() ? nullptr : &found->second;
  }
  const dom::element& Get(std::string_view key) const {
    const dom::element* found = Find(key);
    if (found == nullptr) Fail(ErrorCode::kBadInput, "{}: '{}' is missing", place_, key);
    return *found;
  }
  // Present and not null.
  bool Has(std::string_view key) const {
    const dom::element* found = Find(key);
    return found != nullptr && !found->is_null();
  }
  bool Flag(std::string_view key) const {
    if (!Has(key)) return false;
    bool value = false;
    if (Get(key).get(value) == simdjson::SUCCESS) return value;
    Fail(ErrorCode::kBadInput, "{}: '{}': expected true or false, found {}", place_, key,
         Show(Get(key)));
  }

 private:
  std::string place_;
  std::vector<std::pair<std::string_view, dom::element>> fields_;
};

Vocabulary ReadVocabulary(const dom::object& vocab, const std::string& place) {
  size_t count = 0, bytes = 0;
  for (const auto& [key, value] : vocab) {
    ++count;
    bytes += key.size();
  }
  Vocabulary vocabulary;
  vocabulary.Reserve(count, bytes);
  // Ids are places in a list: they may have holes, but not be mostly holes.
  const uint64_t limit = 8 * count + 4096;
  for (const auto& [token, value] : vocab) {
    uint64_t id = 0;
    if (value.get(id) != simdjson::SUCCESS || id >= uint64_t{1} << 31) {
      Fail(ErrorCode::kBadInput, "{}: vocab: expected a token id, found {}", place, Show(value));
    }
    if (id >= limit) {
      Fail(ErrorCode::kUnsupported,
           "{}: vocab: the id {} in a vocabulary of {} tokens; supported: "
           "below {}",
           place, id, count, limit);
    }
    if (!vocabulary.Add(token, static_cast<uint32_t>(id))) {
      Fail(ErrorCode::kBadInput, "{}: vocab: '{}' is there twice", place, token);
    }
  }
  if (const int64_t id = vocabulary.IndexIds(); id >= 0) {
    Fail(ErrorCode::kBadInput, "{}: vocab: two tokens have the id {}", place, id);
  }
  return vocabulary;
}

// ["a", "b"] or "a b"; false when it is neither.
bool ReadMerge(const dom::element& merge, std::string_view& left, std::string_view& right) {
  std::string_view both;
  if (merge.get(both) == simdjson::SUCCESS) {
    const size_t space = both.find(' ');
    if (space == std::string_view::npos) return false;
    left = both.substr(0, space);
    right = both.substr(space + 1);
    return !left.empty() && !right.empty() && right.find(' ') == std::string_view::npos;
  }
  dom::array pair;
  if (merge.get(pair) != simdjson::SUCCESS || pair.size() != 2) return false;
  return pair.at(0).get(left) == simdjson::SUCCESS && pair.at(1).get(right) == simdjson::SUCCESS;
}

void ReadMerges(const dom::array& merges, const std::string& place, Bpe& bpe) {
  size_t count = 0;
  for ([[maybe_unused]] const dom::element& merge : merges) ++count;
  bpe.ReserveMerges(count);
  for (const dom::element& merge : merges) {
    std::string_view left, right;
    if (!ReadMerge(merge, left, right)) {
      Fail(ErrorCode::kBadInput, "{}: merges: expected two tokens, found {}", place, Show(merge));
    }
    if (!bpe.AddMerge(left, right)) {
      Fail(ErrorCode::kBadInput, "{}: merges: {} {}", place, Show(merge), Bpe::kMergeUnknown);
    }
  }
}

void ReadModel(const dom::element& element, const std::string& place, TokenizerParts& parts) {
  const std::string where = place + ": model";
  const Members model(element, where);
  std::string_view type = "BPE";  // files before 2020 do not say
  if (model.Has("type") && model.Get("type").get(type) != simdjson::SUCCESS) type = "";
  if (!element.is_object() || type != "BPE") {
    Fail(ErrorCode::kUnsupported, "{}: {}; supported is BPE only", where,
         element.is_object() && !type.empty() ? fmt::format("type '{}'", type) : Show(element));
  }
  const auto refuse = [&](const char* key) {
    Fail(ErrorCode::kUnsupported, "{}: {} {} is not supported", where, key, Show(model.Get(key)));
  };
  double dropout = 0;
  if (model.Has("dropout") &&
      (model.Get("dropout").get(dropout) != simdjson::SUCCESS || dropout != 0)) {
    refuse("dropout");
  }
  BpeSettings settings;
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    std::string_view text;
    if (model.Has(key) && (model.Get(key).get(text) != simdjson::SUCCESS || !text.empty())) {
      refuse(key);
    }
  }
  if (model.Has("unk_token")) {
    std::string_view text;
    if (model.Get("unk_token").get(text) != simdjson::SUCCESS) refuse("unk_token");
    settings.unk_token = text;
    settings.has_unk = true;
  }
  settings.fuse_unk = model.Flag("fuse_unk");
  settings.byte_fallback = model.Flag("byte_fallback");
  settings.ignore_merges = model.Flag("ignore_merges");
  settings.byte_level = parts.pre_tokenizer.byte_level();
  dom::object vocab;
  dom::array merges;
  if (model.Get("vocab").get(vocab) != simdjson::SUCCESS ||
      model.Get("merges").get(merges) != simdjson::SUCCESS) {
    Fail(ErrorCode::kBadInput, "{}: expected an object 'vocab' and a list 'merges'", where);
  }
  parts.bpe.SetVocabulary(ReadVocabulary(vocab, where));
  ReadMerges(merges, where, parts.bpe);
  parts.bpe.Finish(std::move(settings));
}

// A list of {"SpecialToken": {"id"}} and one {"Sequence": {"id": "A"}}: what it puts around the
// text goes around what is there.
void ReadTemplate(const Json& json, const std::string& place, TokenizerParts& parts) {
  if (!json.contains("single") || !json["single"].is_array()) {
    Fail(ErrorCode::kBadInput, "{}: a TemplateProcessing without a list 'single'", place);
  }
  std::vector<int64_t> around[2];
  size_t texts = 0;
  for (const Json& piece : json["single"]) {
    if (piece.is_object() && piece.size() == 1 && piece.contains("Sequence")) {
      ++texts;
      if (StringField(piece["Sequence"], "id", place) != "A" || texts > 1) {
        Fail(ErrorCode::kUnsupported, "{}: a template 'single' with more than the one text A",
             place);
      }
      continue;
    }
    if (!piece.is_object() || piece.size() != 1 || !piece.contains("SpecialToken")) {
      Fail(ErrorCode::kBadInput, "{}: expected a Sequence or a SpecialToken, found {}", place,
           Excerpt(piece));
    }
    const std::string id = StringField(piece["SpecialToken"], "id", place);
    if (!json.contains("special_tokens") || !json["special_tokens"].is_object() ||
        !json["special_tokens"].contains(id) || !json["special_tokens"][id].is_object() ||
        !json["special_tokens"][id].contains("ids") ||
        !json["special_tokens"][id]["ids"].is_array()) {
      Fail(ErrorCode::kBadInput, "{}: no ids for '{}' in 'special_tokens'", place, id);
    }
    for (const Json& number : json["special_tokens"][id]["ids"]) {
      if (!number.is_number_unsigned() || number.get<uint64_t>() >= uint64_t{1} << 31) {
        Fail(ErrorCode::kBadInput, "{}: '{}': expected a token id, found {}", place, id,
             Excerpt(number));
      }
      around[std::min<size_t>(texts, 1)].push_back(number.get<int64_t>());
    }
  }
  if (texts != 1) Fail(ErrorCode::kUnsupported, "{}: a template 'single' without the text", place);
  around[0].insert(around[0].end(), parts.prefix.begin(), parts.prefix.end());
  parts.prefix = std::move(around[0]);
  parts.suffix.insert(parts.suffix.end(), around[1].begin(), around[1].end());
}

void ReadPostProcessor(const Json& json, const std::string& place, int depth,
                       TokenizerParts& parts) {
  const std::string type = StringField(json, "type", place);
  if (type == "ByteLevel") return;  // moves offsets only
  if (type == "TemplateProcessing") return ReadTemplate(json, place, parts);
  if (type != "Sequence") {
    Fail(ErrorCode::kUnsupported,
         "{}: '{}' is not supported; supported: Sequence, ByteLevel, TemplateProcessing", place,
         type);
  }
  if (depth == kMaxDepth) Fail(ErrorCode::kBadInput, "{}: nested too deep", place);
  if (!json.contains("processors") || !json["processors"].is_array()) {
    Fail(ErrorCode::kBadInput, "{}: a Sequence without a list 'processors'", place);
  }
  for (const Json& item : json["processors"]) ReadPostProcessor(item, place, depth + 1, parts);
}

void RefuseTruncationAndPadding(const Members& file, const std::string& place) {
  if (file.Has("truncation")) {
    Fail(ErrorCode::kUnsupported,
         "{}: truncation is not supported: it would cut texts silently; set it to null", place);
  }
  if (!file.Has("padding")) return;
  // Padding to the longest of one text does nothing.
  const Json padding = Settings(file.Get("padding"), place + ": padding");
  const bool nothing = padding.is_object() && padding.contains("strategy") &&
                       padding["strategy"] == "BatchLongest" &&
                       !HasField(padding, "pad_to_multiple_of");
  if (!nothing) {
    Fail(ErrorCode::kUnsupported, "{}: padding {} is not supported; set it to null", place,
         Excerpt(padding));
  }
}

}  // namespace

TokenizerParts ParseTokenizerJson(std::string_view text, const std::string& place) {
  dom::parser parser;
  const dom::element document = ParseDocument(parser, text, place);
  const Members file(document, place);
  const dom::element& model = file.Get("model");
  RefuseTruncationAndPadding(file, place);
  TokenizerParts parts;
  const auto settings = [&](const char* key) {
    return Settings(file.Get(key), place + ": " + key);
  };
  if (file.Has("normalizer")) {
    parts.normalizer = Normalizer(settings("normalizer"), place + ": normalizer");
  }
  if (file.Has("pre_tokenizer")) {
    parts.pre_tokenizer = PreTokenizer(settings("pre_tokenizer"), place + ": pre_tokenizer");
  }
  if (parts.pre_tokenizer.needs_start() && parts.normalizer.moves_start()) {
    Fail(ErrorCode::kUnsupported,
         "{}: a Metaspace with prepend_scheme 'first' behind a normalizer that moves the start of "
         "the text is not supported",
         place);
  }
  ReadModel(model, place, parts);
  if (file.Has("added_tokens")) {
    parts.added = AddedTokens(settings("added_tokens"), parts.bpe.vocabulary(), parts.normalizer,
                              place + ": added_tokens");
  }
  if (file.Has("post_processor")) {
    ReadPostProcessor(settings("post_processor"), place + ": post_processor", 0, parts);
  }
  if (file.Has("decoder")) parts.decoder = Decoder(settings("decoder"), place + ": decoder");
  return parts;
}

}  // namespace samebits
