// What counts as right: answers extracted and compared as the gsm8k task of lm-evaluation-harness
// does, and the interval of an accuracy. Patterns are on bytes: digits and signs are ASCII.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace samebits {

// What an answer says is the result; nothing: it says none.
using Extracted = std::optional<std::string>;

// The first match of "#### (\-?[0-9\.\,]+)": the number behind it.
Extracted StrictMatch(std::string_view text);

// The last match of "(-?[$0-9.,]{2,})|(-?[0-9]+)", matches being taken from the left.
Extracted FlexibleExtract(std::string_view text);

// Without ',' and '$', what stands before the last "#### " and a dot at the end (or before a line
// break that ends it), in small letters: what is compared.
std::string Normalized(std::string_view text);

// Whether the answer is that of the item ("... #### 42"). No extraction is never right.
bool IsRight(const Extracted& extracted, std::string_view answer);

// The extraction that most samples give, of equally many the one that came first. As in the harness
// texts are counted before they are normalized, and no extraction counts as one of its own.
Extracted Majority(std::span<const Extracted> samples);

struct ConfidenceInterval {
  double low = 0, high = 1;
};

// Wilson's 95% interval of the share right / count: z = 1.959964. [0, 1] for a count of 0.
ConfidenceInterval WilsonInterval(int64_t right, int64_t count);

}  // namespace samebits
