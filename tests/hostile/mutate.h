// Damages files, the same way every time: a seed and a number say which damage.
#pragma once

#include <cstdint>
#include <random>
#include <string>

namespace samebits {

// JSON text with one to three edits: a number replaced by a hostile one, a span taken out or
// doubled, a byte replaced, a structural character put in.
std::string EditText(std::string text, std::mt19937& random);

// A safetensors file whose header is edited as text. The length in front follows the edit, or (one
// time in four) does not, or is itself replaced.
std::string EditSafetensors(const std::string& bytes, std::mt19937& random);

// Random bytes; every second time after a length and a '{' as a safetensors file has them.
std::string RandomBytes(std::mt19937& random);

}  // namespace samebits
