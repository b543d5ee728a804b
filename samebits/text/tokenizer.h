// Byte-level BPE from a Hugging Face tokenizer.json: the thin path. Texts in ASCII are split
// exactly as the Qwen2 and GPT-2 patterns say; a character beyond ASCII needs Unicode tables that
// are not here yet and is an error, never a wrong id. So is any setting of the file that is not
// done here. Left out: normalisers other than NFC (which leaves ASCII alone), Llama 3's pattern,
// SentencePiece models, post-processors that add tokens. The chat turn is in chat.h.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "samebits/base/json.h"

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

  struct Merge {
    int64_t rank, id;  // of the merged token
  };

  void ReadModel(const Json& model, const std::string& place);
  void ReadMerges(const Json& merges, const std::string& place);
  void ReadAddedTokens(const Json& tokens, const std::string& place);
  void EncodePiece(std::string_view piece, std::vector<int64_t>& ids) const;
  void EncodePlain(std::string_view text, std::vector<int64_t>& ids) const;
  void EncodeBetween(const std::map<std::string, int64_t>& added, std::string_view text,
                     const std::function<void(std::string_view)>& plain,
                     std::vector<int64_t>& ids) const;

  Pattern pattern_ = Pattern::kQwen2;
  std::unordered_map<std::string, int64_t> vocab_;  // pieces as bytes
  std::unordered_map<int64_t, std::string> bytes_;
  std::array<int64_t, 256> byte_ids_;           // tokens of one byte; -1: there is none
  std::unordered_map<uint64_t, Merge> merges_;  // left id << 32 | right id
  std::map<std::string, int64_t> added_;        // whole strings, found before all else
  std::map<std::string, int64_t> normalized_;   // those found in what then remains
  std::map<int64_t, std::string> special_;
};

// Length of the longest prefix that ends on a whole UTF-8 character (what can be shown).
size_t CompleteUtf8(std::string_view text);

}  // namespace samebits
