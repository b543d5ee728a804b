// What a replay of another framework's run needs beside graph and weights.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "samebits/numerics/profile.h"

namespace samebits {

enum class AttentionKind : uint8_t { kEager, kSdpa };

class ReplayPlan {
 public:
  // The attention that transformers ran, or would run: "eager" or "sdpa". Throws Error(kUsage).
  ReplayPlan(std::shared_ptr<const Profile> profile, std::string_view attention);

  // What a trace says of the process that made it, from its metadata; each may be missing:
  // `threads` must be the profile's, `weight_alignment` and `rotary` replace the profile's own.
  // Throws Error(kBadInput).
  void TakeFrom(const std::map<std::string, std::string>& metadata, const std::string& place);

  const Profile& profile() const { return *profile_; }
  AttentionKind attention() const { return attention_; }
  // Address modulo 64 in the reference's process; 0 where nobody recorded it.
  int64_t WeightAlignment(std::string_view weight) const;
  // What tokens are drawn from. Throws Error(kBadInput) when the profile lacks it.
  const SoftmaxFunction& Softmax() const;
  // Null: not recorded.
  const RotaryFunction* rotary() const { return rotary_ ? &*rotary_ : nullptr; }

 private:
  std::shared_ptr<const Profile> profile_;
  AttentionKind attention_;
  std::map<std::string, int64_t, std::less<>> weight_alignment_;
  std::optional<RotaryFunction> rotary_;
};

}  // namespace samebits
