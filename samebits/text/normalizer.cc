#include "samebits/text/normalizer.h"

#include <algorithm>
#include <utility>

#include "samebits/base/error.h"
#include "samebits/text/utf8.h"

namespace samebits {
namespace {

constexpr int kMaxDepth = 8;

}  // namespace

SearchPattern::SearchPattern(const Json& json, const std::string& place) {
  const bool regex = json.is_object() && json.size() == 1 && json.contains("Regex");
  if (!regex && !(json.is_object() && json.size() == 1 && json.contains("String"))) {
    Fail(ErrorCode::kBadInput,
         "{}: expected a pattern {{\"String\": ..}} or {{\"Regex\": ..}}, "
         "found {}",
         place, Excerpt(json));
  }
  source_ = StringField(json, regex ? "Regex" : "String", place);
  if (regex) {
    regex_ = std::make_shared<const Regex>(source_, place);
  } else if (source_.empty()) {
    Fail(ErrorCode::kUnsupported, "{}: an empty pattern", place);
  }
}

bool SearchPattern::Find(std::string_view text, size_t from, size_t& begin, size_t& end) const {
  if (regex_) return regex_->Find(text, from, begin, end);
  begin = text.find(source_, from);
  end = begin + source_.size();
  return begin != std::string_view::npos;
}

std::vector<SearchPattern::Span> SearchPattern::Spans(std::string_view text) const {
  std::vector<Span> spans;
  size_t covered = 0, from = 0, begin = 0, end = 0;
  bool matched = false;
  while (from <= text.size() && Find(text, from, begin, end)) {
    if (begin == end && matched && end == covered) {  // an empty one right behind a match
      from += from < text.size() ? Utf8Length(text[from]) : 1;
      continue;
    }
    if (covered != begin) spans.push_back({covered, begin, false});
    spans.push_back({begin, end, true});
    covered = from = end;
    matched = true;
  }
  if (covered != text.size()) spans.push_back({covered, text.size(), false});
  return spans;
}

std::string SearchPattern::ReplaceAll(std::string_view text, std::string_view content) const {
  std::string result;
  if (regex_) {
    for (const Span& span : Spans(text)) {
      result += span.match ? content : text.substr(span.begin, span.end - span.begin);
    }
    return result;
  }
  size_t from = 0;
  for (size_t at = text.find(source_); at != std::string_view::npos;
       at = text.find(source_, from)) {
    result += text.substr(from, at - from);
    result += content;
    from = at + source_.size();
  }
  result += text.substr(from);
  return result;
}

Normalizer::Normalizer(const Json& json, const std::string& place) { Add(json, place, 0); }

void Normalizer::Add(const Json& json, const std::string& place, int depth) {
  const std::string type = StringField(json, "type", place);
  static constexpr std::pair<std::string_view, NormalForm> kForms[] = {{"NFC", NormalForm::kNfc},
                                                                       {"NFD", NormalForm::kNfd},
                                                                       {"NFKC", NormalForm::kNfkc},
                                                                       {"NFKD", NormalForm::kNfkd}};
  for (const auto& [name, form] : kForms) {
    if (type == name) {
      steps_.push_back({Kind::kForm, form, {}, nullptr});
      return;
    }
  }
  if (type == "Sequence") {
    if (depth == kMaxDepth) Fail(ErrorCode::kBadInput, "{}: nested too deep", place);
    if (!json.contains("normalizers") || !json["normalizers"].is_array()) {
      Fail(ErrorCode::kBadInput, "{}: a Sequence without a list 'normalizers'", place);
    }
    for (const Json& item : json["normalizers"]) Add(item, place, depth + 1);
  } else if (type == "Prepend") {
    steps_.push_back({Kind::kPrepend, {}, StringField(json, "prepend", place), nullptr});
  } else if (type == "Replace") {
    if (!json.contains("pattern")) Fail(ErrorCode::kBadInput, "{}: 'pattern' is missing", place);
    steps_.push_back({Kind::kReplace,
                      {},
                      StringField(json, "content", place),
                      std::make_shared<const SearchPattern>(json["pattern"], place)});
  } else {
    Fail(ErrorCode::kUnsupported,
         "{}: '{}' is not supported; supported: Sequence, NFC, NFD, NFKC, NFKD, Prepend, Replace",
         place, type);
  }
}

bool Normalizer::moves_start() const {
  return std::any_of(steps_.begin(), steps_.end(), [](const Step& step) {
    return step.kind == Kind::kPrepend || (step.kind == Kind::kReplace && step.content.empty());
  });
}

bool Normalizer::only_forms() const {
  return std::all_of(steps_.begin(), steps_.end(),
                     [](const Step& step) { return step.kind == Kind::kForm; });
}

std::string_view Normalizer::Run(std::string_view text, std::string& storage) const {
  for (const Step& step : steps_) {
    if (text.empty()) return text;
    switch (step.kind) {
      case Kind::kForm:
        text = Normalize(step.form, text, storage);
        break;
      case Kind::kPrepend: {
        std::string result = step.content;
        result += text;
        storage = std::move(result);
        text = storage;
        break;
      }
      case Kind::kReplace: {
        size_t begin = 0, end = 0;
        if (!step.pattern->Find(text, 0, begin, end)) break;
        std::string result = step.pattern->ReplaceAll(text, step.content);
        storage = std::move(result);
        text = storage;
        break;
      }
    }
  }
  return text;
}

}  // namespace samebits
