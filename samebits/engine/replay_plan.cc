#include "samebits/engine/replay_plan.h"

#include <charconv>

#include "samebits/base/error.h"
#include "samebits/base/json.h"

namespace samebits {

ReplayPlan::ReplayPlan(std::shared_ptr<const Profile> profile, std::string_view attention)
    : profile_(std::move(profile)), attention_(AttentionKind::kEager) {
  if (attention == "sdpa") {
    attention_ = AttentionKind::kSdpa;
  } else if (attention != "eager") {
    Fail(ErrorCode::kUsage, "attention {}: expected eager or sdpa",
         Excerpt(Json(std::string(attention))));
  }
  for (const auto& [name, alignment] : profile_->weight_alignment()) {
    weight_alignment_[name] = alignment;
  }
}

void ReplayPlan::TakeFrom(const std::map<std::string, std::string>& metadata,
                          const std::string& place) {
  if (const auto found = metadata.find("threads"); found != metadata.end()) {
    int64_t threads = 0;
    const std::string& text = found->second;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), threads);
    if (error != std::errc() || end != text.data() + text.size()) {
      Fail(ErrorCode::kBadInput, "{}: __metadata__ 'threads': expected a number, found {}", place,
           Excerpt(Json(text)));
    }
    if (threads != profile_->threads()) {
      Fail(ErrorCode::kBadInput,
           "{}: recorded with {} threads, {} is of {}: `python -m samebits probe ... --threads {}` "
           "makes the profile that fits",
           place, threads, profile_->path(), profile_->threads(), threads);
    }
  }
  if (const auto found = metadata.find("weight_alignment"); found != metadata.end()) {
    const std::string what = place + ": __metadata__ 'weight_alignment'";
    const Json json = ParseJson(found->second, what);
    if (!json.is_object()) {
      Fail(ErrorCode::kBadInput, "{}: expected an object, found {}", what, Excerpt(json));
    }
    for (const auto& item : json.items()) {
      weight_alignment_[item.key()] = IntegerField(json, item.key(), 0, 63, what);
    }
  }
  if (const auto found = metadata.find("rotary"); found != metadata.end()) {
    const std::string what = place + ": __metadata__ 'rotary'";
    rotary_ = ReadRotaryFunction(ParseJson(found->second, what), true, what);
  }
}

const SoftmaxFunction& ReplayPlan::Softmax() const {
  if (!profile_->functions().softmax) {
    Fail(ErrorCode::kBadInput, "{}: functions has no 'softmax', which tokens are drawn by",
         profile_->path());
  }
  return *profile_->functions().softmax;
}

int64_t ReplayPlan::WeightAlignment(std::string_view weight) const {
  const auto found = weight_alignment_.find(weight);
  return found == weight_alignment_.end() ? 0 : found->second;
}

}  // namespace samebits
