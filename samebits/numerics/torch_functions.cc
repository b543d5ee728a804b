// Reading and writing the section "functions" of a profile.
#include "samebits/numerics/torch_functions.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <initializer_list>
#include <limits>
#include <string_view>
#include <utility>

#include "samebits/base/error.h"

namespace samebits {
namespace {

constexpr int64_t kMaxPositions = int64_t{1} << 24, kMaxUlps = int64_t{1} << 20;
constexpr int64_t kMaxCount = std::numeric_limits<int64_t>::max();

void CheckKeys(const Json& json, std::initializer_list<std::string_view> known,
               const std::string& place) {
  if (!json.is_object()) {
    Fail(ErrorCode::kBadInput, "{}: expected an object, found {}", place, Excerpt(json));
  }
  for (const auto& [key, value] : json.items()) {
    if (std::find(known.begin(), known.end(), key) != known.end()) continue;
    Fail(ErrorCode::kBadInput,
         "{}: unknown key '{}'; it could change the arithmetic. Is the profile of a newer version?",
         place, key);
  }
}

Proof ReadProof(const Json& json, const std::string& place) {
  if (!json.contains("proof")) {
    Fail(ErrorCode::kBadInput, "{}: 'proof' is missing: {{\"compared\": N, \"differing\": M}}",
         place);
  }
  const Json& proof = json.at("proof");
  const std::string here = place + ".proof";
  CheckKeys(proof, {"compared", "differing"}, here);
  Proof result;
  result.compared = IntegerField(proof, "compared", 0, kMaxCount, here);
  result.differing = IntegerField(proof, "differing", 0, result.compared, here);
  return result;
}

torch_math::Exp ReadExp(const Json& json, std::string_view key, const std::string& place) {
  const std::string name = StringField(json, key, place);
  const auto function = torch_math::ExpFromName(name);
  if (!function.has_value()) {
    Fail(ErrorCode::kBadInput,
         "{}: '{}': unknown function \"{}\"; known: sleef_expf_u10, exp_u20, fexp_u20, "
         "glibc_expf, glibc_exp_rounded",
         place, key, name);
  }
  return *function;
}

int64_t ReadLanes(const Json& json, const std::string& place) {
  const int64_t lanes = IntegerField(json, "lanes", 1, 64, place);
  if (!std::has_single_bit(static_cast<uint64_t>(lanes))) {
    Fail(ErrorCode::kBadInput, "{}: 'lanes': expected a power of two, found {}", place, lanes);
  }
  return lanes;
}

SumFunction ReadSum(const Json& json, const std::string& place) {
  CheckKeys(json, {"family", "lanes", "proof"}, place);
  const std::string family = StringField(json, "family", place);
  if (family != "cascade") {
    Fail(ErrorCode::kBadInput, "{}: 'family': expected \"cascade\", found \"{}\"", place, family);
  }
  return {ReadLanes(json, place), ReadProof(json, place)};
}

SoftmaxFunction ReadSoftmax(const Json& json, const std::string& place) {
  CheckKeys(json, {"lanes", "exp", "proof"}, place);
  return {ReadLanes(json, place), ReadExp(json, "exp", place), ReadProof(json, place)};
}

SiluFunction ReadSilu(const Json& json, const std::string& place) {
  CheckKeys(json, {"exp", "tail_exp", "block", "grain", "proof"}, place);
  return {ReadExp(json, "exp", place), ReadExp(json, "tail_exp", place),
          IntegerField(json, "block", 1, 4096, place),
          IntegerField(json, "grain", 1, int64_t{1} << 40, place), ReadProof(json, place)};
}

SdpaFunction ReadSdpa(const Json& json, const std::string& place) {
  CheckKeys(json,
            {"lanes", "sums", "exp", "tail_exp", "rescale_exp", "q_splits", "kv_split", "packing",
             "proof"},
            place);
  SdpaFunction sdpa;
  sdpa.lanes = ReadLanes(json, place);
  sdpa.sums = IntegerField(json, "sums", 1, 2, place);
  sdpa.exp = ReadExp(json, "exp", place);
  sdpa.tail_exp = ReadExp(json, "tail_exp", place);
  sdpa.rescale_exp = ReadExp(json, "rescale_exp", place);
  sdpa.kv_split = IntegerField(json, "kv_split", 1, 65536, place);
  sdpa.q_splits.clear();
  const Json splits = json.value("q_splits", Json());
  const std::string here = place + ".q_splits";
  if (!splits.is_array() || splits.empty() || splits.size() > 16) {
    Fail(ErrorCode::kBadInput,
         "{}: expected a list of 1 to 16 objects {{\"min_q_len\", \"size\"}}, found {}", here,
         Excerpt(splits));
  }
  for (const Json& split : splits) {
    CheckKeys(split, {"min_q_len", "size"}, here);
    const int64_t low = sdpa.q_splits.empty() ? 0 : sdpa.q_splits.back().min_q_len + 1;
    const int64_t high = sdpa.q_splits.empty() ? 0 : kMaxPositions;
    sdpa.q_splits.push_back({IntegerField(split, "min_q_len", low, high, here),
                             IntegerField(split, "size", 1, 65536, here)});
  }
  if (json.contains("packing")) {
    const std::string there = place + ".packing";
    CheckKeys(json["packing"], {"min_q_len", "min_kv_len"}, there);
    sdpa.packing = {IntegerField(json["packing"], "min_q_len", 1, kMaxPositions, there),
                    IntegerField(json["packing"], "min_kv_len", 1, kMaxPositions, there)};
  }
  sdpa.proof = ReadProof(json, place);
  return sdpa;
}

const Json& ArrayField(const Json& json, std::string_view key, const std::string& place) {
  const auto it = json.find(key);
  if (it == json.end() || !it->is_array()) {
    Fail(ErrorCode::kBadInput, "{}: '{}': expected a list, found {}", place, key,
         it == json.end() ? std::string("nothing") : Excerpt(*it));
  }
  return *it;
}

int64_t IntegerItem(const Json& value, int64_t low, int64_t high, const std::string& place) {
  if (!value.is_number_integer() || value < low || value > high) {
    Fail(ErrorCode::kBadInput, "{}: expected an integer from {} to {}, found {}", place, low, high,
         Excerpt(value));
  }
  return value.get<int64_t>();
}

std::vector<AngleDifference> ReadDifferences(const Json& json, std::string_view key,
                                             int64_t positions, int64_t frequencies,
                                             const std::string& place) {
  std::vector<AngleDifference> result;
  const std::string here = place + "." + std::string(key);
  for (const Json& item : ArrayField(json, key, place)) {
    if (!item.is_array() || item.size() != 3) {
      Fail(ErrorCode::kBadInput, "{}: expected [position, i, ulps], found {}", here, Excerpt(item));
    }
    const AngleDifference next = {IntegerItem(item[0], 0, positions - 1, here),
                                  IntegerItem(item[1], 0, frequencies - 1, here),
                                  IntegerItem(item[2], -kMaxUlps, kMaxUlps, here)};
    if (!result.empty() &&
        std::pair(next.position, next.i) <= std::pair(result.back().position, result.back().i)) {
      Fail(ErrorCode::kBadInput, "{}: {} is out of order: ascending by position, then i", here,
           Excerpt(item));
    }
    result.push_back(next);
  }
  return result;
}

Json ProofJson(const Proof& proof) {
  return {{"compared", proof.compared}, {"differing", proof.differing}};
}

Json DifferencesJson(const std::vector<AngleDifference>& differences) {
  Json list = Json::array();
  for (const AngleDifference& d : differences) list.push_back({d.position, d.i, d.ulps});
  return list;
}

}  // namespace

const RotaryFunction* TorchFunctions::FindRotary(const std::vector<float>& inv_freq,
                                                 float scaling) const {
  for (const RotaryFunction& candidate : rotary) {
    if (candidate.inv_freq == inv_freq && candidate.scaling == scaling) return &candidate;
  }
  return nullptr;
}

RotaryFunction ReadRotaryFunction(const Json& json, bool in_trace, const std::string& place) {
  if (in_trace) {
    CheckKeys(json, {"inv_freq", "attention_scaling", "cos", "sin"}, place);
  } else {
    CheckKeys(json, {"inv_freq", "scaling_bits", "positions", "cos", "sin", "proof"}, place);
  }
  RotaryFunction rotary;
  const Json& frequencies = ArrayField(json, "inv_freq", place);
  if (frequencies.empty() || frequencies.size() > 65536) {
    Fail(ErrorCode::kBadInput, "{}: 'inv_freq': expected 1 to 65536 frequencies, found {}", place,
         frequencies.size());
  }
  for (const Json& bits : frequencies) {
    const int64_t value = IntegerItem(bits, 0, UINT32_MAX, place + ".inv_freq");
    const auto frequency = std::bit_cast<float>(static_cast<uint32_t>(value));
    if (!std::isfinite(frequency) || frequency < 0) {
      Fail(ErrorCode::kBadInput,
           "{}: 'inv_freq': {} are the bits of {}: expected a finite number, not negative", place,
           value, frequency);
    }
    rotary.inv_freq.push_back(frequency);
  }
  if (in_trace) {  // Python's float, which the reference multiplies with as fp32
    rotary.scaling = static_cast<float>(NumberField(json, "attention_scaling", 0, 1e6, place));
  } else {
    rotary.scaling = std::bit_cast<float>(
        static_cast<uint32_t>(IntegerField(json, "scaling_bits", 0, 0x7f7fffff, place)));
  }
  rotary.positions =
      in_trace ? kMaxPositions : IntegerField(json, "positions", 1, kMaxPositions, place);
  const auto n = static_cast<int64_t>(rotary.inv_freq.size());
  rotary.cos = ReadDifferences(json, "cos", rotary.positions, n, place);
  rotary.sin = ReadDifferences(json, "sin", rotary.positions, n, place);
  if (!in_trace) rotary.proof = ReadProof(json, place);
  return rotary;
}

TorchFunctions ReadTorchFunctions(const Json& json, const std::string& place) {
  CheckKeys(json, {"sum", "softmax", "silu", "sdpa", "rotary"}, place);
  TorchFunctions functions;
  if (json.contains("sum")) functions.sum = ReadSum(json["sum"], place + ".sum");
  if (json.contains("softmax")) {
    functions.softmax = ReadSoftmax(json["softmax"], place + ".softmax");
  }
  if (json.contains("silu")) functions.silu = ReadSilu(json["silu"], place + ".silu");
  if (json.contains("sdpa")) functions.sdpa = ReadSdpa(json["sdpa"], place + ".sdpa");
  if (json.contains("rotary")) {
    for (const Json& entry : ArrayField(json, "rotary", place)) {
      const std::string here = fmt::format("{}.rotary[{}]", place, functions.rotary.size());
      functions.rotary.push_back(ReadRotaryFunction(entry, false, here));
    }
  }
  return functions;
}

Json WriteTorchFunctions(const TorchFunctions& functions) {
  using torch_math::ExpName;
  Json json = Json::object();
  if (functions.sum) {
    json["sum"] = {{"family", "cascade"},
                   {"lanes", functions.sum->lanes},
                   {"proof", ProofJson(functions.sum->proof)}};
  }
  if (functions.softmax) {
    json["softmax"] = {{"lanes", functions.softmax->lanes},
                       {"exp", ExpName(functions.softmax->exp)},
                       {"proof", ProofJson(functions.softmax->proof)}};
  }
  if (functions.silu) {
    json["silu"] = {{"exp", ExpName(functions.silu->exp)},
                    {"tail_exp", ExpName(functions.silu->tail_exp)},
                    {"block", functions.silu->block},
                    {"grain", functions.silu->grain},
                    {"proof", ProofJson(functions.silu->proof)}};
  }
  if (functions.sdpa) {
    Json splits = Json::array();
    for (const SdpaFunction::Split& split : functions.sdpa->q_splits) {
      splits.push_back({{"min_q_len", split.min_q_len}, {"size", split.size}});
    }
    json["sdpa"] = {{"lanes", functions.sdpa->lanes},
                    {"sums", functions.sdpa->sums},
                    {"exp", ExpName(functions.sdpa->exp)},
                    {"tail_exp", ExpName(functions.sdpa->tail_exp)},
                    {"rescale_exp", ExpName(functions.sdpa->rescale_exp)},
                    {"q_splits", splits},
                    {"kv_split", functions.sdpa->kv_split},
                    {"proof", ProofJson(functions.sdpa->proof)}};
    const SdpaFunction::Packing& packing = functions.sdpa->packing;
    if (packing.min_q_len > 0) {
      json["sdpa"]["packing"] = {{"min_q_len", packing.min_q_len},
                                 {"min_kv_len", packing.min_kv_len}};
    }
  }
  if (!functions.rotary.empty()) json["rotary"] = Json::array();
  for (const RotaryFunction& rotary : functions.rotary) {
    Json bits = Json::array();
    for (const float f : rotary.inv_freq) bits.push_back(std::bit_cast<uint32_t>(f));
    json["rotary"].push_back({{"inv_freq", bits},
                              {"scaling_bits", std::bit_cast<uint32_t>(rotary.scaling)},
                              {"positions", rotary.positions},
                              {"cos", DifferencesJson(rotary.cos)},
                              {"sin", DifferencesJson(rotary.sin)},
                              {"proof", ProofJson(rotary.proof)}});
  }
  return json;
}

}  // namespace samebits
