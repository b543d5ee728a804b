#include "samebits/compare/relations.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "samebits/compare/casts.h"
#include "samebits/compare/constants.h"
#include "samebits/compare/layouts.h"

namespace samebits {
namespace {

// Tries a search in both directions.
template <typename Search>
std::optional<Relation> EitherWay(const TensorView& a, const TensorView& b, Search&& search) {
  std::optional<Relation> found = search(a, b);
  if (!found) {
    found = search(b, a);
    if (found) found->from_a = false;
  }
  return found;
}

std::string Order(const std::vector<int64_t>& order) {
  constexpr int64_t kShown = 16;
  const auto count = static_cast<int64_t>(order.size());
  return fmt::format("{}{}", fmt::join(order.begin(), order.begin() + std::min(kShown, count), " "),
                     count > kShown ? " ..." : "");
}

}  // namespace

std::vector<Relation> FindRelation(const TensorView& a, const TensorView& b, int64_t head_dim) {
  if (a.dtype == b.dtype && a.elements() == b.elements()) {
    if (auto found = FindLayout(a, b, head_dim)) return {std::move(*found)};
  }
  if (a.shape == b.shape) {
    const auto cast = [](const TensorView& x, const TensorView& y) {
      return FindCast(x, y, false);
    };
    if (auto found = EitherWay(a, b, cast)) return {std::move(*found)};
  }
  if (ShapesAreTransposed(a.shape, b.shape)) {
    const auto cast = [](const TensorView& x, const TensorView& y) { return FindCast(x, y, true); };
    if (auto found = EitherWay(a, b, cast)) {
      return {Relation{"transposed", found->from_a, {}, 0, false}, std::move(*found)};
    }
  }
  if (a.shape == b.shape && a.dtype == b.dtype) {
    if (auto found = EitherWay(a, b, FindScale)) return {std::move(*found)};
    if (auto found = EitherWay(a, b, FindShift)) return {std::move(*found)};
  }
  return {};
}

std::string DescribeRelation(const Relation& relation) {
  const std::string& id = relation.id;
  if (id == "scaled" || id == "shifted") {
    const auto narrow = static_cast<float>(relation.constant);  // 0.1, and not 0.10000000149011612
    return static_cast<double>(narrow) == relation.constant
               ? fmt::format("{} by {}", id, narrow)
               : fmt::format("{} by {}", id, relation.constant);
  }
  if (id == "rotary-pairs-to-halves") {
    return "rotary pairs moved to halves (Meta's layout to Hugging Face's)";
  }
  if (id == "rotary-halves-to-pairs") {
    return "rotary halves moved to pairs (Hugging Face's layout to Meta's)";
  }
  std::string text = id;
  std::replace(text.begin(), text.end(), '-', ' ');
  if (id == "same-numbers") text = "number for number, in other bits";
  if (!relation.order.empty()) text += ": " + Order(relation.order);
  return text;
}

}  // namespace samebits
