// The patterns by which the common tokenizers cut a text into words, each as a matcher of its own:
// Qwen2's, Llama 3's, GPT-2's and those with upper and lower case (Tekken, o200k). They look at
// each character once, where a regular expression searches. Left out: every other pattern
// (regex.h).
#pragma once

#include <cstddef>
#include <string_view>

namespace samebits {

// Length of the first piece of a text that is not empty. Pieces follow each other without gaps.
using FirstPiece = size_t (*)(std::string_view text);

size_t Gpt2Piece(std::string_view text);  // ByteLevel's own pattern

// nullptr when the pattern is none of the known ones.
FirstPiece KnownPattern(std::string_view pattern);

}  // namespace samebits
