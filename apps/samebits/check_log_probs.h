// `samebits check MODEL FILE.json`: log-probabilities that an inference server returned.
#pragma once

#include <string>

namespace samebits {

// Whether the file begins as JSON does.
bool LooksLikeJson(const std::string& path);

// Prints the result; 0 inside, 1 outside. Throws Error.
int CheckLogProbs(const std::string& model, const std::string& path, int threads, bool json);

}  // namespace samebits
