#include "samebits/text/pre_tokenizer.h"

#include <algorithm>
#include <utility>

#include "samebits/base/error.h"
#include "samebits/text/unicode.h"
#include "samebits/text/utf8.h"

namespace samebits {
namespace {

using Span = SearchPattern::Span;

constexpr int kMaxDepth = 8;

bool OptionalBool(const Json& json, const char* key, bool otherwise, const std::string& place) {
  return HasField(json, key) ? BoolField(json, key, place) : otherwise;
}

// Joins neighbours: keeps `into` and lets it reach to the end of the last.
std::vector<Span> Contiguous(const std::vector<Span>& spans) {
  std::vector<Span> result;
  bool previous = false;
  for (const Span& span : spans) {
    if (span.match == previous && !result.empty()) {
      result.back().end = span.end;
    } else {
      result.push_back(span);
    }
    previous = span.match;
  }
  return result;
}

std::vector<Span> MergedWithPrevious(const std::vector<Span>& spans) {
  std::vector<Span> result;
  bool previous = false;
  for (const Span& span : spans) {
    if (span.match && !previous && !result.empty()) {
      result.back().end = span.end;
    } else {
      result.push_back(span);
    }
    previous = span.match;
  }
  return result;
}

std::vector<Span> MergedWithNext(const std::vector<Span>& spans) {
  std::vector<Span> result;
  bool next = false;
  for (auto span = spans.rbegin(); span != spans.rend(); ++span) {
    if (span->match && !next && !result.empty()) {
      result.back().begin = span->begin;
    } else {
      result.push_back(*span);
    }
    next = span->match;
  }
  std::reverse(result.begin(), result.end());
  return result;
}

std::vector<Span> DigitSpans(std::string_view text) {
  const uint8_t* classes = CharClasses();
  std::vector<Span> spans;
  for (size_t i = 0, length = 0; i < text.size(); i += length) {
    const bool digit = (classes[DecodeUtf8(text.data() + i, length)] & kNumericFlag) != 0;
    if (!digit && !spans.empty() && !spans.back().match) {
      spans.back().end = i + length;
    } else {
      spans.push_back({i, i + length, digit});
    }
  }
  return spans;
}

}  // namespace

PreTokenizer::PreTokenizer(const Json& json, const std::string& place) { Add(json, place, 0); }

void PreTokenizer::Add(const Json& json, const std::string& place, int depth) {
  const std::string type = StringField(json, "type", place);
  if (byte_level_) {
    Fail(ErrorCode::kUnsupported, "{}: '{}' behind ByteLevel is not supported", place, type);
  }
  Stage stage;
  if (type == "Sequence") {
    if (depth == kMaxDepth) Fail(ErrorCode::kBadInput, "{}: nested too deep", place);
    if (!json.contains("pretokenizers") || !json["pretokenizers"].is_array()) {
      Fail(ErrorCode::kBadInput, "{}: a Sequence without a list 'pretokenizers'", place);
    }
    for (const Json& item : json["pretokenizers"]) Add(item, place, depth + 1);
  } else if (type == "Split") {
    AddSplit(json, place);
  } else if (type == "Metaspace") {
    AddMetaspace(json, place);
  } else if (type == "Digits") {
    stage.kind = Kind::kDigits;
    stage.individual_digits = OptionalBool(json, "individual_digits", false, place);
    stages_.push_back(std::move(stage));
  } else if (type == "ByteLevel") {
    if (OptionalBool(json, "add_prefix_space", true, place)) {
      stage.kind = Kind::kPrefixSpace;
      stages_.push_back(stage);
    }
    if (OptionalBool(json, "use_regex", true, place)) {
      stage.kind = Kind::kPieces;
      stage.first_piece = &Gpt2Piece;
      stages_.push_back(std::move(stage));
    }
    byte_level_ = true;
  } else {
    Fail(ErrorCode::kUnsupported,
         "{}: '{}' is not supported; supported: Sequence, Split, ByteLevel, Metaspace, Digits",
         place, type);
  }
}

void PreTokenizer::AddSplit(const Json& json, const std::string& place) {
  static constexpr std::pair<std::string_view, Behavior> kBehaviors[] = {
      {"Removed", Behavior::kRemoved},
      {"Isolated", Behavior::kIsolated},
      {"MergedWithPrevious", Behavior::kMergedWithPrevious},
      {"MergedWithNext", Behavior::kMergedWithNext},
      {"Contiguous", Behavior::kContiguous}};
  const std::string name = StringField(json, "behavior", place);
  const auto* behavior = std::find_if(std::begin(kBehaviors), std::end(kBehaviors),
                                      [&](const auto& one) { return one.first == name; });
  if (behavior == std::end(kBehaviors)) {
    Fail(ErrorCode::kBadInput, "{}: Split: unknown behavior '{}'", place, name);
  }
  Stage stage;
  stage.kind = Kind::kSplit;
  stage.behavior = behavior->second;
  stage.invert = OptionalBool(json, "invert", false, place);
  if (!json.contains("pattern")) Fail(ErrorCode::kBadInput, "{}: 'pattern' is missing", place);
  const Json& pattern = json["pattern"];
  if (pattern.is_object() && pattern.size() == 1 && pattern.contains("Regex") &&
      pattern["Regex"].is_string() && stage.behavior == Behavior::kIsolated && !stage.invert) {
    stage.first_piece = KnownPattern(pattern["Regex"].get_ref<const std::string&>());
  }
  if (stage.first_piece != nullptr) {
    stage.kind = Kind::kPieces;
  } else {
    stage.pattern = std::make_shared<const SearchPattern>(pattern, place);
  }
  stages_.push_back(std::move(stage));
}

void PreTokenizer::AddMetaspace(const Json& json, const std::string& place) {
  Stage stage;
  stage.kind = Kind::kMetaspace;
  stage.replacement = StringField(json, "replacement", place);
  if (stage.replacement.empty() || Utf8Length(stage.replacement[0]) != stage.replacement.size()) {
    Fail(ErrorCode::kBadInput, "{}: Metaspace: 'replacement' must be one character", place);
  }
  stage.split = OptionalBool(json, "split", true, place);
  if (!OptionalBool(json, "add_prefix_space", true, place)) stage.prepend = Prepend::kNever;
  if (HasField(json, "prepend_scheme")) {
    const std::string scheme = StringField(json, "prepend_scheme", place);
    if (scheme == "first") {
      stage.prepend = Prepend::kFirst;
    } else if (scheme == "never") {
      stage.prepend = Prepend::kNever;
    } else if (scheme == "always") {
      stage.prepend = Prepend::kAlways;
    } else {
      Fail(ErrorCode::kBadInput, "{}: Metaspace: unknown prepend_scheme '{}'", place, scheme);
    }
  }
  stages_.push_back(std::move(stage));
}

bool PreTokenizer::needs_start() const {
  return std::any_of(stages_.begin(), stages_.end(), [](const Stage& stage) {
    return stage.kind == Kind::kMetaspace && stage.prepend == Prepend::kFirst;
  });
}

// In none of the known patterns does a word go on with a letter behind a line end, and only of
// white space do they ask what comes next. Digits cuts by characters; what it leaves joined, the
// pattern cuts there.
bool PreTokenizer::ends_at_lines() const {
  const auto is = [this](auto&& wanted) {
    return std::all_of(stages_.begin(), stages_.end(), wanted);
  };
  return !is([](const Stage& stage) { return stage.kind == Kind::kDigits; }) &&
         is([](const Stage& stage) {
           return stage.kind == Kind::kPieces || stage.kind == Kind::kDigits;
         });
}

void PreTokenizer::Cut(const Stage& stage, std::string_view text, bool at_start,
                       const std::function<void(std::string_view, bool)>& next) const {
  std::string changed;
  std::vector<Span> spans;
  switch (stage.kind) {
    case Kind::kPieces:
      return;
    case Kind::kPrefixSpace:
      if (text[0] != ' ') {
        changed = " ";
        changed += text;
        text = changed;
      }
      return next(text, at_start);
    case Kind::kDigits:
      spans = DigitSpans(text);
      if (!stage.individual_digits) spans = Contiguous(spans);
      break;
    case Kind::kMetaspace: {
      changed.reserve(text.size() + text.size() / 2);
      for (const char c : text) c == ' ' ? changed += stage.replacement : changed += c;
      const bool prepend =
          stage.prepend == Prepend::kAlways || (stage.prepend == Prepend::kFirst && at_start);
      if (prepend && !changed.starts_with(stage.replacement)) {
        changed.insert(0, stage.replacement);
      }
      text = changed;
      if (!stage.split) return next(text, at_start);
      // Each replacement begins a piece; of several in a row each is one but for the last.
      size_t begin = 0;
      for (size_t at = text.find(stage.replacement, 1); at != std::string_view::npos;
           at = text.find(stage.replacement, at + 1)) {
        next(text.substr(begin, at - begin), at_start && begin == 0);
        begin = at;
      }
      return next(text.substr(begin), at_start && begin == 0);
    }
    case Kind::kSplit:
      spans = stage.pattern->Spans(text);
      if (stage.invert) {
        for (Span& span : spans) span.match = !span.match;
      }
      if (stage.behavior == Behavior::kMergedWithPrevious) spans = MergedWithPrevious(spans);
      if (stage.behavior == Behavior::kMergedWithNext) spans = MergedWithNext(spans);
      if (stage.behavior == Behavior::kContiguous) spans = Contiguous(spans);
      break;
  }
  const bool removes = stage.kind == Kind::kSplit && stage.behavior == Behavior::kRemoved;
  for (const Span& span : spans) {
    if (removes && span.match) continue;
    next(text.substr(span.begin, span.end - span.begin), at_start && span.begin == 0);
  }
}

}  // namespace samebits
