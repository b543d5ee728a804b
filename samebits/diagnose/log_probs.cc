#include "samebits/diagnose/log_probs.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "samebits/base/error.h"
#include "samebits/base/json.h"
#include "samebits/diagnose/whole_run.h"

namespace samebits {
namespace {

void AddValue(const Json& value, int64_t position, int64_t id, const std::string& place,
              const ModelConfig& config, std::vector<GivenLogProb>& given) {
  if (!value.is_number() || !(value.get<double>() <= 1e-6)) {
    Fail(ErrorCode::kBadInput, "{}: expected a log-probability (0 or less), found {}", place,
         Excerpt(value));
  }
  if (id < 0 || id >= config.vocab_size) {
    Fail(ErrorCode::kBadInput, "{}: token id {}: the checkpoint has {} (vocab_size)", place, id,
         config.vocab_size);
  }
  given.push_back({position, id, value.get<double>()});
}

int64_t ParseId(const std::string& text, const std::string& place) {
  int64_t id = 0;
  const char* end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, id);
  if (error != std::errc() || rest != end) {
    Fail(ErrorCode::kBadInput, "{}: {}: expected token ids as keys", place, Excerpt(Json(text)));
  }
  return id;
}

// Each run gives log p of the asked tokens.
class LogProbRun {
 public:
  LogProbRun(const Graph& graph, const LogProbFile& file, const ReplaySource& source)
      : graph_(graph), file_(file), source_(source) {}

  std::vector<double> Run(const std::map<std::string, Form>& forms,
                          std::optional<uint64_t> noise) const {
    std::vector<double> values;
    RunWhole(
        source_, forms,
        [&](const std::string& name, const TensorView& logits) {
          if (name == "lm_head") values = Read(ToDoubles(logits));
        },
        noise);
    return values;
  }

 private:
  std::vector<double> Read(const std::vector<double>& logits) const {
    const int64_t vocab = graph_.config.vocab_size;
    std::map<int64_t, double> normalisers;  // by row
    std::vector<double> values;
    for (const GivenLogProb& given : file_.given) {
      const int64_t row = given.position - 1;
      const auto begin = logits.begin() + row * vocab;
      if (!normalisers.contains(row)) {
        const double top = *std::max_element(begin, begin + vocab);
        double sum = 0;
        for (auto v = begin; v != begin + vocab; ++v) sum += std::exp(*v - top);
        normalisers[row] = top + std::log(sum);
      }
      values.push_back(*(begin + given.id) - normalisers[row]);
    }
    return values;
  }

  const Graph& graph_;
  const LogProbFile& file_;
  const ReplaySource& source_;
};

// Legitimate places to round, one family at a time.
std::vector<std::map<std::string, Form>> OtherForms(const Graph& graph, DType dtype) {
  std::vector<std::map<std::string, Form>> all;
  if (dtype == DType::kF32) return all;
  std::map<std::string, std::vector<Form>> groups;
  for (const Node& node : graph.nodes) {
    for (size_t i = 0; i < node.outputs.size(); ++i) {
      Replay replay;
      replay.node = node;
      replay.output = static_cast<int>(i);
      std::vector<Form> forms = FormsOf(replay, dtype, false, false);
      std::erase_if(forms, [](const Form& f) { return f.truncate || f.chains.empty(); });
      groups.try_emplace(GroupName(replay), forms);
    }
  }
  std::map<std::string, Form> together;
  for (const auto& [group, forms] : groups) {
    for (const Form& form : forms) all.push_back({{group, form}});
    if (!forms.empty()) together[group] = forms.front();
  }
  Form kept;
  kept.chains = {"scale-before-rounding", "kept-fp32"};
  all.push_back({{"scores", kept}});
  together["scores"] = kept;
  all.push_back(together);
  return all;
}

}  // namespace

LogProbFile ParseLogProbs(const std::string& text, const std::string& place,
                          const ModelConfig& config) {
  const Json json = ParseJson(text, place);
  if (!json.is_object()) {
    Fail(ErrorCode::kBadInput, "{}: expected an object with input_ids, dtype and logprobs", place);
  }
  LogProbFile file;
  file.path = place;
  if (!HasField(json, "input_ids") || !json["input_ids"].is_array() ||
      json["input_ids"].size() < 2) {
    Fail(ErrorCode::kBadInput, "{}: 'input_ids': expected a list of two token ids or more", place);
  }
  for (const Json& id : json["input_ids"]) {
    if (!id.is_number_integer() || id.get<int64_t>() < 0 ||
        id.get<int64_t>() >= config.vocab_size) {
      Fail(ErrorCode::kBadInput, "{}: 'input_ids': expected ids below {}, found {}", place,
           config.vocab_size, Excerpt(id));
    }
    file.input_ids.push_back(id.get<int64_t>());
  }
  const std::string name = StringField(json, "dtype", place);
  const std::optional<DType> dtype = ModelDTypeFromName(name);
  if (!dtype) {
    Fail(ErrorCode::kBadInput, "{}: dtype {}: expected float32, bfloat16 or float16", place,
         Excerpt(Json(name)));
  }
  file.dtype = *dtype;
  const auto list = [&](const char* key) -> const Json& {
    static const Json kNone = Json::array();
    if (!HasField(json, key)) return kNone;
    if (!json[key].is_array() || json[key].size() != file.input_ids.size()) {
      Fail(ErrorCode::kBadInput, "{}: '{}': expected a list of {}, one a token", place, key,
           file.input_ids.size());
    }
    return json[key];
  };
  const Json& own = list("logprobs");
  for (size_t t = 0; t < own.size(); ++t) {
    if (own[t].is_null()) continue;
    const std::string where = fmt::format("{}: 'logprobs' [{}]", place, t);
    if (t == 0) Fail(ErrorCode::kBadInput, "{}: nothing stands before the first token", where);
    AddValue(own[t], static_cast<int64_t>(t), file.input_ids[t], where, config, file.given);
  }
  const Json& top = list("top_logprobs");
  for (size_t t = 0; t < top.size(); ++t) {
    if (top[t].is_null()) continue;
    const std::string where = fmt::format("{}: 'top_logprobs' [{}]", place, t);
    if (t == 0 || !top[t].is_object()) {
      Fail(ErrorCode::kBadInput, "{}: expected an object of token ids, null for the first token",
           where);
    }
    for (const auto& [id, value] : top[t].items()) {
      AddValue(value, static_cast<int64_t>(t), ParseId(id, where), where, config, file.given);
    }
  }
  if (file.given.empty()) {
    Fail(ErrorCode::kBadInput, "{}: neither 'logprobs' nor 'top_logprobs' has a value", place);
  }
  return file;
}

LogProbFile OpenLogProbs(const std::string& path, const ModelConfig& config) {
  constexpr int64_t kMaxBytes = 1 << 28;
  return ParseLogProbs(ReadTextFile(path, kMaxBytes), path, config);
}

LogProbResult CompareLogProbs(const Graph& graph, const Checkpoint& checkpoint,
                              const LogProbFile& file, int threads,
                              const std::function<void(int64_t done, int64_t total)>& progress) {
  ThreadPool pool(threads);
  const ReplaySource source =
      SourceOfIds(graph, checkpoint, pool, file.dtype, file.input_ids, file.path);
  const LogProbRun run(graph, file, source);
  LogProbResult result;
  const std::vector<double> ours = run.Run({}, std::nullopt);
  for (size_t i = 0; i < ours.size(); ++i) {
    result.values.push_back({file.given[i], ours[i], 0});
  }
  const auto add = [&](const std::vector<double>& other) {
    double squares = 0;
    for (size_t i = 0; i < other.size(); ++i) {
      const double d = std::fabs(other[i] - ours[i]);
      squares += d * d;
      result.values[i].spread = std::max(result.values[i].spread, d);
      result.spread_max = std::max(result.spread_max, d);
    }
    result.spread_rms =
        std::max(result.spread_rms, std::sqrt(squares / static_cast<double>(other.size())));
    ++result.runs;
  };
  const auto forms = OtherForms(graph, file.dtype);
  constexpr int64_t kSeeds = 6;
  const auto total = kSeeds + static_cast<int64_t>(forms.size());
  for (int64_t seed = 1; seed <= kSeeds; ++seed) {
    if (progress) progress(result.runs, total);
    add(run.Run({}, static_cast<uint64_t>(seed)));
  }
  for (const auto& form : forms) {
    if (progress) progress(result.runs, total);
    add(run.Run(form, 7));
  }
  double squares = 0;
  bool finite = true;
  for (const LogProbResult::Value& value : result.values) {
    const double d = std::fabs(value.given.value - value.ours);
    finite = finite && std::isfinite(d);
    squares += d * d;
    result.max = std::max(result.max, d);
  }
  result.rms = std::sqrt(squares / static_cast<double>(result.values.size()));
  constexpr double kTimes = 3;
  result.inside = finite && result.rms <= kTimes * result.spread_rms &&
                  result.max <= kTimes * result.spread_max;
  return result;
}

}  // namespace samebits
