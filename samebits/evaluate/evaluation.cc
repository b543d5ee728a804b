#include "samebits/evaluate/evaluation.h"

#include <fmt/ranges.h>

#include <numeric>

#include "samebits/base/error.h"
#include "samebits/checkpoint/digest.h"
#include "samebits/engine/sampler.h"

namespace samebits {
namespace {

constexpr int64_t kMaxItem = (int64_t{1} << 31) - 1;

Json ToJson(const Extracted& extracted) { return extracted ? Json(*extracted) : Json(nullptr); }

}  // namespace

std::string PromptDigest(const std::vector<int64_t>& ids) {
  return Sha256(fmt::format("{}", fmt::join(ids, ",")));
}

Evaluation::Evaluation(Task task)
    : task_(std::move(task)), progress_(task_.items.size()), waiting_(task_.items.size()) {
  SAMEBITS_CHECK(task_.items.size() == task_.prompts.size() && task_.samples > 0,
                 "a prompt an item, at least one sample");
  std::iota(waiting_.begin(), waiting_.end(), 0);
  score_.items = static_cast<int64_t>(task_.items.size());
  for (Progress& progress : progress_) progress.samples.resize(static_cast<size_t>(task_.samples));
}

void Evaluation::Restore(const std::vector<Json>& lines, const std::string& path) {
  for (size_t i = 0; i < lines.size(); ++i) {
    const Json& line = lines[i];
    const std::string place = fmt::format("{}:{}", path, i + 2);  // behind the line of the run
    const auto item = static_cast<size_t>(IntegerField(line, "item", 0, kMaxItem, place));
    const std::string digest = StringField(line, "prompt_digest", place);
    BoolField(line, "strict_right", place);
    BoolField(line, "flexible_right", place);
    if (item >= task_.items.size()) continue;
    if (progress_[item].restored) {
      Fail(ErrorCode::kBadInput, "{}: item {} for the second time; delete the line", place, item);
    }
    const std::string expected = PromptDigest(task_.prompts[item]);
    if (digest != expected) {
      Fail(ErrorCode::kUsage,
           "{}: item {}: made with another prompt (\"{}\", this run has \"{}\"): tokenizer or chat "
           "template have changed; give another -o",
           place, item, digest, expected);
    }
    progress_[item].restored = true;
    ++score_.restored;
    Count(line);
  }
  std::erase_if(waiting_, [this](size_t item) { return progress_[item].restored; });
}

void Evaluation::Count(const Json& line) {
  ++score_.done;
  score_.strict_right += line["strict_right"].get<bool>() ? 1 : 0;
  score_.flexible_right += line["flexible_right"].get<bool>() ? 1 : 0;
}

uint64_t Evaluation::SeedOf(size_t item, int64_t sample) const {
  return DerivedSeed(DerivedSeed(task_.seed, item), static_cast<uint64_t>(sample));
}

std::vector<BatchPrompt> Evaluation::Waiting() const {
  std::vector<BatchPrompt> prompts;
  for (const size_t item : waiting_) {
    for (int64_t j = 0; j < task_.samples; ++j) {
      prompts.push_back({task_.prompts[item], SeedOf(item, j)});
    }
  }
  return prompts;
}

std::optional<Json> Evaluation::Add(size_t n, const Generation& answer) {
  const size_t item = ItemOf(n);
  Progress& progress = progress_[item];
  progress.samples[n % static_cast<size_t>(task_.samples)] = answer;
  score_.tokens += static_cast<int64_t>(answer.ids.size());
  if (++progress.answered < task_.samples) return std::nullopt;
  Json line = Line(item);
  Count(line);
  progress.samples.clear();
  return line;
}

Json Evaluation::Line(size_t item) const {
  std::vector<Extracted> strict, flexible;
  Json samples = Json::array();
  for (int64_t j = 0; j < task_.samples; ++j) {
    const Generation& answer = progress_[item].samples[static_cast<size_t>(j)];
    strict.push_back(StrictMatch(answer.text));
    flexible.push_back(FlexibleExtract(answer.text));
    samples.push_back(
        {{"seed", SeedOf(item, j)},
         {"ids", answer.ids},
         {"text", answer.text},
         {"stop_reason", StopReasonName(answer.stop_reason)},
         {"strict", ToJson(strict.back())},
         {"flexible", ToJson(flexible.back())},
         {"timings", {{"prefill_s", answer.prefill_s}, {"decode_s", answer.decode_s}}}});
  }
  const Extracted chosen = Majority(strict), chosen_flexible = Majority(flexible);
  const std::string& answer = task_.items[item].answer;
  return {{"item", item},
          {"prompt_digest", PromptDigest(task_.prompts[item])},
          {"prompt_tokens", task_.prompts[item].size()},
          {"target", Normalized(answer)},
          {"strict", ToJson(chosen)},
          {"strict_right", IsRight(chosen, answer)},
          {"flexible", ToJson(chosen_flexible)},
          {"flexible_right", IsRight(chosen_flexible, answer)},
          {"samples", samples}};
}

}  // namespace samebits
