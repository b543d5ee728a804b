// Reads tokenizer.json into its parts.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "samebits/text/added_tokens.h"
#include "samebits/text/bpe.h"
#include "samebits/text/decoder.h"
#include "samebits/text/normalizer.h"
#include "samebits/text/pre_tokenizer.h"

namespace samebits {

struct TokenizerParts {
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  Bpe bpe;
  AddedTokens added;
  Decoder decoder;
  std::vector<int64_t> prefix, suffix;  // of the post-processor
};

// Throws Error: kBadInput, kUnsupported.
TokenizerParts ParseTokenizerJson(std::string_view text, const std::string& place);

}  // namespace samebits
