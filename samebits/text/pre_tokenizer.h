// The pre_tokenizer of tokenizer.json: cuts a text into words. Sequence, Split (the known patterns
// by matchers of our own, others by PCRE2), ByteLevel (the last, or alone), Metaspace, Digits. Any
// other is an error that names it.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "samebits/base/json.h"
#include "samebits/text/normalizer.h"
#include "samebits/text/split_patterns.h"

namespace samebits {

class PreTokenizer {
 public:
  PreTokenizer() = default;  // the text is one word
  // Throws Error: kBadInput, kUnsupported.
  PreTokenizer(const Json& json, const std::string& place);

  // Words are bytes that the vocabulary knows by their stand-ins.
  bool byte_level() const { return byte_level_; }
  // Whether a text stands at the start of all texts matters to it.
  bool needs_start() const;
  // Whether words end at a line end that stands between another character that is no white space
  // and a letter, whatever else there is on either side.
  bool ends_at_lines() const;

  // Calls word(std::string_view) for each word, none of them empty.
  template <typename Word>
  void Run(std::string_view text, bool at_start, Word&& word) const {
    RunFrom(0, text, at_start, word);
  }

 private:
  enum class Kind { kPieces, kSplit, kPrefixSpace, kMetaspace, kDigits };
  enum class Behavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };
  enum class Prepend { kFirst, kNever, kAlways };
  struct Stage {
    Kind kind;
    FirstPiece first_piece = nullptr;
    std::shared_ptr<const SearchPattern> pattern;
    Behavior behavior = Behavior::kIsolated;
    bool invert = false;
    std::string replacement;
    Prepend prepend = Prepend::kAlways;
    bool split = true;  // Metaspace
    bool individual_digits = false;
  };

  void Add(const Json& json, const std::string& place, int depth);
  void AddSplit(const Json& json, const std::string& place);
  void AddMetaspace(const Json& json, const std::string& place);
  // The pieces of one stage that is not kPieces, given to `next` with whether each stands at the
  // start.
  void Cut(const Stage& stage, std::string_view text, bool at_start,
           const std::function<void(std::string_view, bool)>& next) const;

  template <typename Word>
  void RunFrom(size_t stage, std::string_view text, bool at_start, Word& word) const {
    if (text.empty()) return;
    if (stage == stages_.size()) {
      word(text);
      return;
    }
    if (stages_[stage].kind == Kind::kPieces) {
      const FirstPiece first_piece = stages_[stage].first_piece;
      while (!text.empty()) {
        const size_t length = first_piece(text);
        RunFrom(stage + 1, text.substr(0, length), at_start, word);
        text.remove_prefix(length);
        at_start = false;
      }
      return;
    }
    Cut(stages_[stage], text, at_start,
        [&](std::string_view piece, bool start) { RunFrom(stage + 1, piece, start, word); });
  }

  std::vector<Stage> stages_;
  bool byte_level_ = false;
};

}  // namespace samebits
