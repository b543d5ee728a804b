// Reading orders of summation: docs/profile-format.md says what is legal.
#include <algorithm>
#include <set>
#include <vector>

#include "samebits/base/error.h"
#include "samebits/numerics/sum_order.h"

namespace samebits {
namespace {

constexpr int64_t kMaxElements = int64_t{1} << 24, kMaxGroup = 16;

// An unknown key would be a rule that is not obeyed.
void CheckKeys(const Json& json, const std::set<std::string>& known, const std::string& place) {
  if (!json.is_object()) {
    Fail(ErrorCode::kBadInput, "{}: expected an object, found {}", place, Excerpt(json));
  }
  for (const auto& [key, value] : json.items()) {
    if (!known.contains(key)) {
      Fail(ErrorCode::kBadInput, "{}: unknown key {}; this samebits is too old for the profile?",
           place, Excerpt(Json(key)));
    }
  }
}

// Which of the words; the first when the key is missing.
size_t WordOf(const Json& json, const char* key, const std::vector<std::string>& words,
              const std::string& place) {
  if (!HasField(json, key)) return 0;
  const std::string word = StringField(json, key, place);
  const auto found = std::find(words.begin(), words.end(), word);
  if (found == words.end()) {
    std::string list;
    for (size_t i = 0; i < words.size(); ++i) {
      list += (i == 0 ? "" : i + 1 == words.size() ? " or " : ", ") + ('"' + words[i] + '"');
    }
    Fail(ErrorCode::kBadInput, "{}: '{}': expected {}, found {}", place, key, list,
         Excerpt(Json(word)));
  }
  return static_cast<size_t>(found - words.begin());
}

bool SecondWord(const Json& json, const char* key, const char* first, const char* second,
                const std::string& place) {
  return WordOf(json, key, {first, second}, place) == 1;
}

ProductKind ReadProduct(const Json& json, const char* key, const std::string& place) {
  return SecondWord(json, key, "fused", "rounded", place) ? ProductKind::kRounded
                                                          : ProductKind::kFused;
}

int64_t OptionalInteger(const Json& json, const char* key, int64_t low, int64_t high,
                        int64_t otherwise, const std::string& place) {
  return HasField(json, key) ? IntegerField(json, key, low, high, place) : otherwise;
}

bool OptionalBool(const Json& json, const char* key, const std::string& place) {
  return HasField(json, key) && BoolField(json, key, place);
}

// An element or [left, right], to postfix. The parser bounds the depth.
void AppendStep(const Json& json, std::vector<int32_t>& postfix, const std::string& place) {
  if (json.is_array() && json.size() == 2) {
    AppendStep(json[0], postfix, place);
    AppendStep(json[1], postfix, place);
    postfix.push_back(kJoin);
    return;
  }
  if (!json.is_number_integer() || json < 0 || json >= kMaxGroup) {
    Fail(ErrorCode::kBadInput, "{}: 'group': expected an element from 0 to {} or a pair, found {}",
         place, kMaxGroup - 1, Excerpt(json));
  }
  postfix.push_back(json.get<int32_t>());
}

std::vector<std::vector<int32_t>> ReadGroup(const Json& json, const std::string& place) {
  std::vector<std::vector<int32_t>> group;
  if (!HasField(json, "group")) return group;
  const Json& steps = json.at("group");
  if (!steps.is_array() || steps.size() > kMaxGroup) {
    Fail(ErrorCode::kBadInput, "{}: 'group': expected at most {} steps, found {}", place, kMaxGroup,
         Excerpt(steps));
  }
  std::vector<int32_t> elements;
  for (const Json& step : steps) {
    std::vector<int32_t>& postfix = group.emplace_back();
    AppendStep(step, postfix, place);
    if (postfix.size() >= 2 * kMaxGroup) {
      Fail(ErrorCode::kBadInput, "{}: 'group': expected at most {} elements", place, kMaxGroup);
    }
    std::copy_if(postfix.begin(), postfix.end(), std::back_inserter(elements),
                 [](int32_t item) { return item != kJoin; });
  }
  std::sort(elements.begin(), elements.end());
  for (size_t i = 0; i < elements.size(); ++i) {
    if (elements[i] != static_cast<int32_t>(i)) {
      Fail(ErrorCode::kBadInput,
           "{}: 'group': each element from 0 on must stand there once, found {}", place,
           Excerpt(steps));
    }
  }
  if (elements.size() > kMaxGroup) {
    Fail(ErrorCode::kBadInput, "{}: 'group': expected at most {} elements", place, kMaxGroup);
  }
  return group;
}

ChainOrder ReadChain(const Json& json, const std::string& place) {
  CheckKeys(json,
            {"family", "block", "halve_below", "halve", "part", "group", "tile", "tail", "start",
             "first", "flush", "product"},
            place);
  ChainOrder order;
  order.block = OptionalInteger(json, "block", 0, kMaxElements, 0, place);
  order.halve_below = OptionalInteger(json, "halve_below", 0, kMaxElements, 0, place);
  order.halve = static_cast<Halving>(WordOf(json, "halve", {"down", "up", "rest"}, place));
  order.part = OptionalInteger(json, "part", 0, kMaxElements, 0, place);
  order.group = ReadGroup(json, place);
  order.tile = OptionalInteger(json, "tile", 0, kMaxElements, 0, place);
  order.tail_descending = SecondWord(json, "tail", "ascending", "descending", place);
  order.start_in_chain = SecondWord(json, "start", "blocks", "chain", place);
  order.first_set = SecondWord(json, "first", "add", "set", place);
  order.flush = OptionalBool(json, "flush", place);
  order.product = ReadProduct(json, "product", place);
  if (order.halve_below != 0 && order.halve_below <= order.block) {
    Fail(ErrorCode::kBadInput, "{}: 'halve_below' must be above 'block' ({}), found {}", place,
         order.block, order.halve_below);
  }
  if (order.part != 0 && order.start_in_chain) {
    Fail(ErrorCode::kBadInput, "{}: \"start\": \"chain\" goes not with 'part'", place);
  }
  if (order.tile != 0 && (!order.group.empty() || order.tail_descending)) {
    Fail(ErrorCode::kBadInput, "{}: 'tile' goes with neither 'group' nor 'tail'", place);
  }
  if (order.start_in_chain && (order.block != 0 || order.first_set)) {
    Fail(ErrorCode::kBadInput, "{}: \"start\": \"chain\" goes with neither 'block' nor 'first'",
         place);
  }
  return order;
}

bool PowerOfTwo(int32_t n) { return n > 0 && (n & (n - 1)) == 0; }

std::vector<int32_t> ReadDistances(const Json& json, int32_t lanes, const std::string& place) {
  std::vector<int32_t> distances;
  int32_t seen = 0;
  for (const Json& item : json) {
    const bool legal = item.is_number_integer() && item > 0 && item < lanes &&
                       PowerOfTwo(item.get<int32_t>()) && (seen & item.get<int32_t>()) == 0;
    if (!legal) {
      seen = -1;
      break;
    }
    seen |= item.get<int32_t>();
    distances.push_back(item.get<int32_t>());
  }
  if (!PowerOfTwo(lanes) || lanes < 2 || seen != lanes - 1) {
    Fail(ErrorCode::kBadInput,
         "{}: 'join_lanes': expected each power of two below 'lanes' ({}, itself one) once, found "
         "{}",
         place, lanes, Excerpt(json));
  }
  return distances;
}

LaneStage ReadStage(const Json& json, const std::string& place) {
  CheckKeys(json, {"lanes", "vectors", "accumulators", "join_accumulators", "join_lanes", "start"},
            place);
  LaneStage stage;
  stage.lanes = static_cast<int32_t>(IntegerField(json, "lanes", 1, 64, place));
  stage.vectors = static_cast<int32_t>(IntegerField(json, "vectors", 1, 64, place));
  stage.accumulators = static_cast<int32_t>(IntegerField(json, "accumulators", 1, 64, place));
  stage.join_accumulators =
      static_cast<Joining>(WordOf(json, "join_accumulators", {"halves", "sequence"}, place));
  if (HasField(json, "join_lanes") && json.at("join_lanes").is_array()) {
    stage.lane_distances = ReadDistances(json.at("join_lanes"), stage.lanes, place);
  } else {
    stage.join_lanes =
        static_cast<Joining>(WordOf(json, "join_lanes", {"halves", "sequence", "quarters"}, place));
  }
  stage.start = static_cast<StageStart>(WordOf(json, "start", {"zero", "lanes", "total"}, place));
  if (stage.join_lanes == Joining::kQuarters && stage.lanes % 4 != 0) {
    Fail(ErrorCode::kBadInput, "{}: joining by quarters needs a multiple of 4 lanes, found {}",
         place, stage.lanes);
  }
  if (stage.vectors % stage.accumulators != 0) {
    Fail(ErrorCode::kBadInput, "{}: 'accumulators' must divide 'vectors' ({}), found {}", place,
         stage.vectors, stage.accumulators);
  }
  if ((stage.join_lanes == Joining::kHalves && !PowerOfTwo(stage.lanes)) ||
      (stage.join_accumulators == Joining::kHalves && !PowerOfTwo(stage.accumulators))) {
    Fail(ErrorCode::kBadInput, "{}: joining by halves needs a power of two, found {}", place,
         Excerpt(json));
  }
  return stage;
}

LaneOrder ReadLanes(const Json& json, const std::string& place) {
  CheckKeys(json,
            {"family", "peel", "peel_joins", "stages", "tail", "product", "tail_product", "pairs",
             "flush"},
            place);
  LaneOrder order;
  if (HasField(json, "peel")) order.peel = ReadPeel(json.at("peel"), place + ": 'peel'");
  const Json stages = HasField(json, "stages") ? json.at("stages") : Json();
  if (!stages.is_array() || stages.empty() || stages.size() > 8) {
    Fail(ErrorCode::kBadInput, "{}: 'stages': expected a list of 1 to 8 stages, found {}", place,
         Excerpt(stages));
  }
  for (const Json& stage : stages) {
    const LaneStage one = ReadStage(stage, place + ": 'stages'");
    if (one.start != StageStart::kZero && order.stages.empty()) {
      Fail(ErrorCode::kBadInput, "{}: 'stages': there is no stage where the first one could start",
           place);
    }
    if (one.start == StageStart::kLanes && one.lanes != order.stages.back().lanes) {
      Fail(ErrorCode::kBadInput,
           "{}: 'stages': \"start\": \"lanes\" needs as many lanes ({}), "
           "found {}",
           place, order.stages.back().lanes, one.lanes);
    }
    order.stages.push_back(one);
  }
  order.tail = static_cast<LaneTail>(WordOf(json, "tail", {"sequence", "lane0", "lanes"}, place));
  order.pairs = OptionalBool(json, "pairs", place);
  order.flush = OptionalBool(json, "flush", place);
  order.peel_last = SecondWord(json, "peel_joins", "start", "last", place);
  order.product = ReadProduct(json, "product", place);
  order.tail_product =
      HasField(json, "tail_product") ? ReadProduct(json, "tail_product", place) : order.product;
  const LaneStage& stage = order.stages.front();
  if (order.pairs && (order.stages.size() != 1 || stage.vectors % 2 != 0 || order.peel != Peel() ||
                      order.tail != LaneTail::kLanes)) {
    Fail(ErrorCode::kBadInput,
         "{}: 'pairs' needs a single stage with an even number of vectors, no peel and \"tail\": "
         "\"lanes\"",
         place);
  }
  return order;
}

TreeOrder ReadTree(const Json& json, const std::string& place) {
  CheckKeys(json, {"family", "tree", "product"}, place);
  TreeOrder order;
  order.product = ReadProduct(json, "product", place);
  const Json postfix = HasField(json, "tree") ? json.at("tree") : Json();
  if (!postfix.is_array() || postfix.empty() || postfix.size() > 2 * kMaxElements ||
      postfix.size() % 2 == 0) {
    Fail(ErrorCode::kBadInput, "{}: 'tree': expected a list of an odd length, found {}", place,
         Excerpt(postfix));
  }
  const auto size = static_cast<int64_t>(postfix.size() / 2 + 1);
  std::vector<bool> seen(static_cast<size_t>(size));
  int64_t depth = 0;
  for (const Json& item : postfix) {
    const bool join = item == kJoin;
    if (!item.is_number_integer() || (!join && (item < 0 || item >= size)) || (join && depth < 2) ||
        (!join && seen[item.get<size_t>()])) {
      Fail(
          ErrorCode::kBadInput,
          "{}: 'tree': expected each element from 0 to {} once and -1 for a sum of the two before, "
          "found {}",
          place, size - 1, Excerpt(item));
    }
    if (!join) seen[item.get<size_t>()] = true;
    depth += join ? -1 : 1;
    order.postfix.push_back(item.get<int32_t>());
  }
  if (depth != 1) {
    Fail(ErrorCode::kBadInput, "{}: 'tree': {} sums are left over", place, depth - 1);
  }
  return order;
}

}  // namespace

Peel ReadPeel(const Json& json, const std::string& place) {
  Peel peel;
  if (json.is_number()) {
    if (!json.is_number_integer() || json < 0 || json > 63) {
      Fail(ErrorCode::kBadInput, "{}: expected an integer from 0 to 63, found {}", place,
           Excerpt(json));
    }
    peel.count = json.get<int32_t>();
    return peel;
  }
  CheckKeys(json, {"of", "row", "least"}, place);
  const std::string of = StringField(json, "of", place);
  if (of != "x" && of != "w" && of != "y") {
    Fail(ErrorCode::kBadInput, "{}: 'of': expected \"x\", \"w\" or \"y\", found {}", place,
         Excerpt(Json(of)));
  }
  peel.from = of == "x" ? PeelFrom::kX : of == "w" ? PeelFrom::kW : PeelFrom::kY;
  peel.row = static_cast<int32_t>(OptionalInteger(json, "row", 0, 63, -1, place));
  peel.least = static_cast<int32_t>(OptionalInteger(json, "least", 0, 1, 0, place));
  return peel;
}

SumOrder ReadSumOrder(const Json& json, const std::string& place) {
  if (!json.is_object()) {
    Fail(ErrorCode::kBadInput, "{}: expected an object, found {}", place, Excerpt(json));
  }
  const std::string family = StringField(json, "family", place);
  if (family == "chain") return ReadChain(json, place);
  if (family == "lanes") return ReadLanes(json, place);
  if (family == "tree") return ReadTree(json, place);
  Fail(ErrorCode::kBadInput, "{}: 'family': expected \"chain\", \"lanes\" or \"tree\", found {}",
       place, Excerpt(Json(family)));
}

}  // namespace samebits
