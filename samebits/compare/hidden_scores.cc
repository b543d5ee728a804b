#include "samebits/compare/hidden_scores.h"

#include <algorithm>

#include "samebits/base/error.h"

namespace samebits {
namespace {

bool IsZero(const TensorView& view, int64_t index) {
  const int64_t size = DTypeSize(view.dtype);
  return std::all_of(view.data + index * size, view.data + (index + 1) * size,
                     [](std::byte b) { return b == std::byte{0}; });
}

}  // namespace

HiddenScores::HiddenScores(const Trace& a, const Trace& b, const std::string& name) {
  const TensorView* scores = a.Find(name);
  SAMEBITS_CHECK(scores != nullptr && b.Find(name) != nullptr, name);
  const Shape& shape = scores->shape;
  SAMEBITS_CHECK(shape == b.Find(name)->shape && (shape.size() == 3 || shape.size() == 4), name);
  rows_ = shape[shape.size() - 2];
  keys_ = shape.back();
  if (scores->elements() == 0) return;
  const int64_t sequences = shape.size() == 4 ? shape[0] : 1;
  elements_of_sequence_ = scores->elements() / sequences;
  for (const Trace* trace : {&a, &b}) {
    const std::vector<int64_t>& mask = trace->info().attention_mask;
    if (static_cast<int64_t>(mask.size()) != sequences * keys_) continue;
    padding_.resize(mask.size());
    for (size_t i = 0; i < mask.size(); ++i) padding_[i] = padding_[i] || mask[i] == 0;
  }
  const std::string probs = name.substr(0, name.size() - std::string("scores").size()) + "probs";
  const TensorView* p = a.Find(probs);
  const TensorView* q = b.Find(probs);
  if (p != nullptr && q != nullptr && p->shape == shape && q->shape == shape) FindWindow(*p, *q);
}

HiddenScores::Place HiddenScores::PlaceOf(int64_t index) const {
  return {index / elements_of_sequence_, index / keys_ % rows_ + keys_ - rows_, index % keys_};
}

bool HiddenScores::IsPadding(int64_t sequence, int64_t key) const {
  return !padding_.empty() && key >= 0 && padding_[sequence * keys_ + key];
}

void HiddenScores::FindWindow(const TensorView& a, const TensorView& b) {
  int64_t widest = 0;
  for (int64_t i = 0; i < a.elements(); ++i) {
    const Place place = PlaceOf(i);
    if (place.key > place.row || place.row - place.key < widest) continue;
    if (IsPadding(place.sequence, place.row)) continue;  // sees nothing: its rows mean nothing
    if (!IsZero(a, i) || !IsZero(b, i)) widest = place.row - place.key + 1;
  }
  window_ = widest;
}

bool HiddenScores::operator()(int64_t index) const {
  const Place place = PlaceOf(index);
  if (place.key > place.row) return true;
  if (IsPadding(place.sequence, place.key)) return true;
  return window_ > 0 && place.row - place.key >= window_;
}

}  // namespace samebits
