// Byte-level BPE from a Hugging Face tokenizer.json: the thin path. Texts in ASCII are split
// exactly as the Qwen2 and GPT-2 patterns say; a character beyond ASCII needs Unicode tables that
// are not here yet and is an error, never a wrong id. Left out: normalisers other than NFC (which
// leaves ASCII alone), Llama 3's pattern, SentencePiece models, post-processors that add tokens.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace samebits {

class Tokenizer {
 public:
  // Throws Error: kBadInput for a broken file, kUnsupported for a kind of tokenizer not done here.
  static Tokenizer Open(const std::string& folder);  // folder/tokenizer.json
  static Tokenizer Parse(std::string_view json, const std::string& place);

  // Special tokens in the text become their ids. Throws Error(kUnsupported) beyond ASCII.
  std::vector<int64_t> Encode(std::string_view text) const;

  // Bytes of one token ("" for special tokens and unknown ids).
  std::string Decode(int64_t id) const;
  bool IsSpecial(int64_t id) const { return special_.contains(id); }
  // -1 when there is no such token.
  int64_t TokenToId(const std::string& token) const;

 private:
  enum class Pattern { kQwen2, kGpt2, kDigitsGpt2 };

  void EncodePiece(std::string_view piece, std::vector<int64_t>& ids) const;
  void EncodePlain(std::string_view text, std::vector<int64_t>& ids) const;

  Pattern pattern_ = Pattern::kQwen2;
  std::unordered_map<std::string, int64_t> vocab_;  // pieces as bytes
  std::unordered_map<int64_t, std::string> bytes_;
  std::unordered_map<std::string, int64_t> merges_;  // "left\0right" as bytes -> rank
  std::map<std::string, int64_t> added_;             // whole special strings
  std::map<int64_t, std::string> special_;
};

// Length of the longest prefix that ends on a whole UTF-8 character (what can be shown).
size_t CompleteUtf8(std::string_view text);

// The chat template of tokenizer_config.json, as far as it is of the ChatML kind
// ("<|im_start|>role\n
// ... <|im_end|>\n"): the text of one user turn with the generation prompt. A Jinja interpreter is
// not here yet: a default system message is taken from the template's text, any other template is
// Error(kUnsupported) with the hint to use --raw or --ids.
std::string FormatChat(const std::string& folder, std::string_view user);

}  // namespace samebits
