// The added_tokens of tokenizer.json: strings that are found in a text before anything else is done
// to it (or, when `normalized`, right after the normalizer), and become one id each.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "samebits/base/json.h"
#include "samebits/text/hash_table.h"
#include "samebits/text/normalizer.h"
#include "samebits/text/vocabulary.h"

namespace samebits {

struct AddedToken {
  std::string content;
  std::string shown;  // what decoding gives: the content as it is normalized, if it is
  int64_t id = -1;
  bool single_word = false, lstrip = false, rstrip = false, normalized = false, special = false;
};

class AddedTokens {
 public:
  AddedTokens() = default;
  // Ids are given as the library gives them: those of the vocabulary, or the next ones behind it;
  // a file that says otherwise is an error. Throws Error(kBadInput, kUnsupported).
  AddedTokens(const Json& list, const Vocabulary& vocabulary, const Normalizer& normalizer,
              const std::string& place);

  const AddedToken* Find(std::string_view content) const;
  const AddedToken* Find(int64_t id) const;
  bool IsSpecial(std::string_view content) const;
  int64_t max_id() const { return by_id_.empty() ? -1 : by_id_.rbegin()->first; }

  // A part of a text: an added token's id, or -1 and the bytes between two of them.
  struct Part {
    int64_t id;
    size_t begin, end;
  };
  // Leftmost, then longest, of the normalized ones or of the others. No part is empty.
  std::vector<Part> Split(std::string_view text, bool normalized) const;
  bool any(bool normalized) const { return !tries_[normalized ? 1 : 0].tokens.empty(); }

 private:
  struct Trie {
    std::array<bool, 256> starts{};
    PairTable edges;               // node << 8 | byte -> node
    std::vector<uint32_t> tokens;  // a node's token + 1; 0: none. Node 0 is the root.
  };

  void Read(const Json& item, const Vocabulary& vocabulary, const std::string& place);
  void Build(Trie& trie, const std::vector<std::pair<std::string, uint32_t>>& entries);
  // Longest token at the byte; its length is 0 when there is none.
  static std::pair<size_t, uint32_t> Longest(const Trie& trie, std::string_view text, size_t at);

  std::vector<AddedToken> tokens_;
  std::map<std::string, size_t, std::less<>> by_content_;
  std::map<int64_t, size_t> by_id_;
  std::array<Trie, 2> tries_;
};

}  // namespace samebits
