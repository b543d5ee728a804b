// The normalizer of tokenizer.json: Sequence, NFC, NFD, NFKC, NFKD, Prepend, Replace. Any other is
// an error that names it.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "samebits/base/json.h"
#include "samebits/text/regex.h"
#include "samebits/text/unicode.h"

namespace samebits {

// What Replace and Split search for: {"String": ".."} or {"Regex": ".."}.
class SearchPattern {
 public:
  SearchPattern(const Json& json, const std::string& place);
  // First match at or behind `from`, empty ones among them.
  bool Find(std::string_view text, size_t from, size_t& begin, size_t& end) const;
  // Matches and what is between them, from the start to the end, as the library's find_matches.
  struct Span {
    size_t begin, end;
    bool match;
  };
  std::vector<Span> Spans(std::string_view text) const;
  const std::string& source() const { return source_; }
  bool is_regex() const { return regex_ != nullptr; }
  std::string ReplaceAll(std::string_view text, std::string_view content) const;

 private:
  std::string source_;
  std::shared_ptr<const Regex> regex_;
};

class Normalizer {
 public:
  Normalizer() = default;  // leaves all texts as they are
  // Throws Error: kBadInput, kUnsupported.
  Normalizer(const Json& json, const std::string& place);

  // Of a text that is not empty; `storage` holds the result when it is not the text itself.
  std::string_view Run(std::string_view text, std::string& storage) const;
  // Text may be put in front of, or taken from, where it began.
  bool moves_start() const;
  // Only NFC, NFD, NFKC, NFKD: a text can be normalized in parts that begin with letters.
  bool only_forms() const;

 private:
  enum class Kind { kForm, kPrepend, kReplace };
  struct Step {
    Kind kind;
    NormalForm form = NormalForm::kNfc;
    std::string content;
    std::shared_ptr<const SearchPattern> pattern;
  };
  void Add(const Json& json, const std::string& place, int depth);

  std::vector<Step> steps_;
};

}  // namespace samebits
