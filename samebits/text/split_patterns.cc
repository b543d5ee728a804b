#include "samebits/text/split_patterns.h"

#include <array>
#include <cstdint>
#include <utility>

#include "samebits/text/unicode.h"
#include "samebits/text/utf8.h"

namespace samebits {
namespace {

// A place in the text, with the kind of the character there.
class Cursor {
 public:
  Cursor(std::string_view text, const uint8_t* classes)
      : begin_(text.data()), at_(begin_), end_(begin_ + text.size()), classes_(classes) {
    Look();
  }

  bool AtEnd() const { return at_ == end_; }
  uint8_t kind() const { return kind_; }  // kEnd at the end
  char byte() const { return *at_; }      // not at the end
  size_t offset() const { return static_cast<size_t>(at_ - begin_); }
  size_t left() const { return static_cast<size_t>(end_ - at_); }
  const char* pointer() const { return at_; }

  void Next() {
    at_ += length_;
    Look();
  }

  template <typename Is>
  void SkipWhile(Is&& is) {
    while (is(kind_)) Next();
  }

  static constexpr uint8_t kEnd = 0xff;

 private:
  void Look() {
    if (at_ == end_) {
      kind_ = kEnd;
      return;
    }
    kind_ = classes_[DecodeUtf8(at_, length_)] & kKindMask;
  }

  const char* begin_;
  const char* at_;
  const char* end_;
  const uint8_t* classes_;
  size_t length_ = 0;
  uint8_t kind_ = kEnd;
};

constexpr uint8_t Kind(CharKind kind) { return static_cast<uint8_t>(kind); }
bool Letter(uint8_t kind) { return IsLetter(kind); }
bool Number(uint8_t kind) { return kind == Kind(CharKind::kNumber); }
bool Newline(uint8_t kind) { return kind == Kind(CharKind::kNewline); }
bool Space(uint8_t kind) { return kind != Cursor::kEnd && IsSpace(kind); }
bool OtherOrMark(uint8_t kind) { return IsOtherOrMark(kind); }
// [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}] and [\p{Ll}\p{Lm}\p{Lo}\p{M}]
bool Both(uint8_t kind) { return kind == Kind(CharKind::kLetter) || kind == Kind(CharKind::kMark); }
bool Upper(uint8_t kind) { return kind == Kind(CharKind::kUpper) || Both(kind); }
bool Lower(uint8_t kind) { return kind == Kind(CharKind::kLower) || Both(kind); }

// Length of 's, 't, 're, 've, 'm, 'll or 'd at the start of text, or 0.
template <bool kIgnoreCase>
size_t Contraction(std::string_view text) {
  if (text.size() < 2 || text[0] != '\'') return 0;
  const auto lower = [](char c) {
    return kIgnoreCase && c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  };
  const char a = lower(text[1]);
  if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
  // The long s is the only character beyond ASCII that folds to one of these (probed).
  if (kIgnoreCase && text.substr(1).starts_with("\xc5\xbf")) return 3;
  if (text.size() < 3) return 0;
  const char b = lower(text[2]);
  return ((a == 'r' || a == 'v') && b == 'e') || (a == 'l' && b == 'l') ? 3 : 0;
}

// \s+(?!\S)|\s+ : white space, without its last character when something follows that is none and
// more than one is there. With kLines, before that: \s*[\r\n]+ , up to the run's last line end.
template <bool kLines>
size_t SpacePiece(Cursor cursor) {
  size_t lines = 0, last = 0;
  while (Space(cursor.kind())) {
    last = cursor.offset();
    const bool newline = Newline(cursor.kind());
    cursor.Next();
    if (newline) lines = cursor.offset();
  }
  if (kLines && lines > 0) return lines;
  return cursor.AtEnd() || last == 0 ? cursor.offset() : last;
}

// (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,n}| ?[^\s\p{L}\p{N}]+[\r\n]*|
// \s*[\r\n]+|\s+(?!\S)|\s+
template <int kDigits>
size_t Qwen2Piece(std::string_view text) {
  if (const size_t n = Contraction<true>(text)) return n;
  const uint8_t* classes = CharClasses();
  Cursor cursor(text, classes);
  const uint8_t first = cursor.kind();
  if (Number(first)) {
    for (int i = 0; i < kDigits && Number(cursor.kind()); ++i) cursor.Next();
    return cursor.offset();
  }
  if (Newline(first)) return SpacePiece<true>(cursor);
  const Cursor start = cursor;
  const bool blank = text[0] == ' ';
  cursor.Next();
  if (Letter(first) || Letter(cursor.kind())) {
    cursor.SkipWhile(Letter);
    return cursor.offset();
  }
  if (OtherOrMark(first) || (blank && OtherOrMark(cursor.kind()))) {
    cursor.SkipWhile(OtherOrMark);
    cursor.SkipWhile(Newline);
    return cursor.offset();
  }
  return SpacePiece<true>(start);
}

// [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+ from the cursor; 0: no match. The
// first run takes all it can and gives back as far as its last character of both classes.
size_t LowerWord(Cursor cursor) {
  size_t both_end = 0;
  while (Upper(cursor.kind())) {
    const bool both = Both(cursor.kind());
    cursor.Next();
    if (both) both_end = cursor.offset();
  }
  if (!Lower(cursor.kind())) return both_end;
  cursor.SkipWhile(Lower);
  return cursor.offset();
}

// LowerWord's pattern, or [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*, each with
// [^\r\n\p{L}\p{N}]? in front; 0: no match.
size_t CasedWord(const Cursor& start) {
  const bool optional = !Newline(start.kind()) && !Letter(start.kind()) && !Number(start.kind());
  Cursor behind = start;
  if (optional) {
    behind.Next();
    if (const size_t n = LowerWord(behind)) return n;
  }
  if (const size_t n = LowerWord(start)) return n;
  for (Cursor cursor : {behind, start}) {
    if (!Upper(cursor.kind())) continue;
    cursor.SkipWhile(Upper);
    cursor.SkipWhile(Lower);
    return cursor.offset();
  }
  return 0;
}

// The words of CasedWord, with a contraction behind when kContractions; \p{N}{1,n};
// ?[^\s\p{L}\p{N}]+[\r\n/]*; white space as above.
template <int kDigits, bool kContractions>
size_t CasedPiece(std::string_view text) {
  Cursor cursor(text, CharClasses());
  const uint8_t first = cursor.kind();
  if (const size_t n = CasedWord(cursor)) {
    return kContractions ? n + Contraction<true>(text.substr(n)) : n;
  }
  if (Number(first)) {
    for (int i = 0; i < kDigits && Number(cursor.kind()); ++i) cursor.Next();
    return cursor.offset();
  }
  const Cursor start = cursor;
  if (text[0] == ' ') cursor.Next();
  if (OtherOrMark(cursor.kind())) {
    cursor.SkipWhile(OtherOrMark);
    while (!cursor.AtEnd() && (Newline(cursor.kind()) || cursor.byte() == '/')) cursor.Next();
    return cursor.offset();
  }
  return SpacePiece<true>(start);
}

}  // namespace

// 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
size_t Gpt2Piece(std::string_view text) {
  if (const size_t n = Contraction<false>(text)) return n;
  Cursor cursor(text, CharClasses());
  const Cursor start = cursor;
  if (text[0] == ' ') cursor.Next();
  const uint8_t kind = cursor.kind();
  if (Letter(kind)) {
    cursor.SkipWhile(Letter);
  } else if (Number(kind)) {
    cursor.SkipWhile(Number);
  } else if (OtherOrMark(kind)) {
    cursor.SkipWhile(OtherOrMark);
  } else {
    return SpacePiece<false>(start);
  }
  return cursor.offset();
}

FirstPiece KnownPattern(std::string_view pattern) {
  static constexpr std::pair<std::string_view, FirstPiece> kKnown[] = {
      {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
       &Qwen2Piece<1>},
      {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
       &Qwen2Piece<3>},
      {R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)", &Gpt2Piece},
      {R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
       &CasedPiece<1, false>},
      {R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
       &CasedPiece<3, true>},
  };
  for (const auto& [text, piece] : kKnown) {
    if (text == pattern) return piece;
  }
  return nullptr;
}

}  // namespace samebits
