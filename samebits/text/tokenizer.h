// A Hugging Face tokenizer.json: text to ids and back, identical to the `tokenizers` library.
// Normalizers, pre-tokenizers, BPE, added tokens, post-processor and decoder are as the file says;
// a setting that is not done here is an error that names it, never other ids. Left out: models
// other than BPE, truncation and padding, pairs of texts. Chat templates are in chat_template.h.
// docs/tokenizer.md says what is supported and how it is compared.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "samebits/text/utf8.h"

namespace samebits {

// Cheap to copy; a copy shares everything. Safe to use from several threads.
class Tokenizer {
 public:
  // Throws Error: kBadInput for a broken file, kUnsupported for what is not done here, kIo.
  static Tokenizer Open(const std::string& folder);  // folder/tokenizer.json
  static Tokenizer Parse(std::string_view json, const std::string& place);

  // Bytes that are no UTF-8 are read as U+FFFD, as Python's errors="replace" does.
  // `add_special_tokens`: what the post-processor puts around a text.
  std::vector<int64_t> Encode(std::string_view text, bool add_special_tokens = true) const;

  // The same of each text, by several threads. A long text is cut into pieces of some
  // `piece_bytes` where that changes no id: between lines, and only for tokenizers whose words end
  // there whatever follows.
  std::vector<std::vector<int64_t>> EncodeBatch(std::span<const std::string_view> texts,
                                                bool add_special_tokens, int threads,
                                                size_t piece_bytes = size_t{256} << 10) const;

  // Ids that are no token give nothing.
  std::string Decode(std::span<const int64_t> ids, bool skip_special_tokens = false) const;

  int64_t TokenToId(std::string_view token) const;  // -1: none
  std::string IdToToken(int64_t id) const;          // "": none
  bool IsSpecial(int64_t id) const;
  int64_t size() const;  // one more than the largest id

 private:
  friend class TextStream;
  struct Impl;
  std::shared_ptr<const Impl> impl_;
};

// Decodes ids as they come, and never gives a part of a character. All that it gives, one after the
// other, is Decode of all ids.
class TextStream {
 public:
  explicit TextStream(const Tokenizer& tokenizer, bool skip_special_tokens = true);
  TextStream(TextStream&&) noexcept;
  TextStream& operator=(TextStream&&) noexcept;
  ~TextStream();

  std::string Add(int64_t id);  // text that is now complete, often ""
  std::string Finish();         // the rest

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace samebits
