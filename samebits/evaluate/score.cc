#include "samebits/evaluate/score.h"

#include <algorithm>
#include <cmath>

namespace samebits {
namespace {

constexpr std::string_view kMark = "#### ";

bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsNumeric(char c) { return IsDigit(c) || c == '.' || c == ','; }
bool IsMoney(char c) { return IsNumeric(c) || c == '$'; }

// The end of the characters from `begin` on that fit.
template <typename Predicate>
size_t Span(std::string_view text, size_t begin, Predicate fits) {
  while (begin < text.size() && fits(text[begin])) ++begin;
  return begin;
}

}  // namespace

Extracted StrictMatch(std::string_view text) {
  for (size_t at = text.find(kMark); at != std::string_view::npos; at = text.find(kMark, at + 1)) {
    const size_t number = at + kMark.size();
    const size_t digits = number < text.size() && text[number] == '-' ? number + 1 : number;
    const size_t end = Span(text, digits, IsNumeric);
    if (end > digits) return std::string(text.substr(number, end - number));
  }
  return std::nullopt;
}

Extracted FlexibleExtract(std::string_view text) {
  Extracted last;
  for (size_t at = 0; at < text.size();) {
    const size_t start = text[at] == '-' ? at + 1 : at;
    size_t end = Span(text, start, IsMoney);
    if (end < start + 2) end = Span(text, start, IsDigit);
    if (end == start) {
      ++at;
      continue;
    }
    last = std::string(text.substr(at, end - at));
    at = end;
  }
  return last;
}

std::string Normalized(std::string_view text) {
  std::string kept;
  for (const char c : text) {
    if (c != ',' && c != '$') kept += c;
  }
  const size_t mark = kept.rfind(kMark);
  if (mark != std::string::npos) kept.erase(0, mark + kMark.size());
  const size_t end = kept.ends_with('\n') ? kept.size() - 1 : kept.size();
  if (end > 0 && kept[end - 1] == '.') kept.erase(end - 1, 1);
  std::transform(kept.begin(), kept.end(), kept.begin(), [](char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  });
  return kept;
}

bool IsRight(const Extracted& extracted, std::string_view answer) {
  return extracted && Normalized(*extracted) == Normalized(answer);
}

Extracted Majority(std::span<const Extracted> samples) {
  Extracted best;
  int64_t most = 0;
  for (const Extracted& sample : samples) {
    const int64_t count = std::count(samples.begin(), samples.end(), sample);
    if (count > most) {
      most = count;
      best = sample;
    }
  }
  return best;
}

ConfidenceInterval WilsonInterval(int64_t right, int64_t count) {
  if (count == 0) return {};
  constexpr double kZ = 1.959964;
  const auto n = static_cast<double>(count);
  const double share = static_cast<double>(right) / n;
  const double middle = share + kZ * kZ / (2 * n);
  const double spread = kZ * std::sqrt(share * (1 - share) / n + kZ * kZ / (4 * n * n));
  const double scale = 1 + kZ * kZ / n;
  return {std::max(0.0, (middle - spread) / scale), std::min(1.0, (middle + spread) / scale)};
}

}  // namespace samebits
