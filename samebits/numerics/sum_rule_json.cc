// Reading rules: docs/profile-format.md says what is legal.
#include <set>

#include "samebits/base/error.h"
#include "samebits/numerics/sum_rule.h"

namespace samebits {
namespace {

constexpr int64_t kMaxRows = int64_t{1} << 31;

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

// {"complete": 4}, {"rest": 4, "at": 1}, {"in_peel": PEEL} or {"after_peel": PEEL}
ColumnClass ReadColumns(const Json& json, const std::string& place) {
  CheckKeys(json, {"complete", "rest", "at", "in_peel", "after_peel"}, place);
  ColumnClass columns;
  const size_t keys = json.size() - (HasField(json, "at") ? 1 : 0);
  if (keys != 1) {
    Fail(ErrorCode::kBadInput,
         "{}: expected one of 'complete', 'rest', 'in_peel', 'after_peel', found {}", place,
         Excerpt(json));
  }
  if (HasField(json, "complete")) {
    columns.kind = ColumnKind::kComplete;
    columns.count = IntegerField(json, "complete", 1, 1024, place);
  } else if (HasField(json, "rest")) {
    columns.kind = ColumnKind::kRest;
    columns.count = IntegerField(json, "rest", 1, 1024, place);
  } else {
    const bool in = HasField(json, "in_peel");
    columns.kind = in ? ColumnKind::kInPeel : ColumnKind::kAfterPeel;
    columns.peel = ReadPeel(json.value(in ? "in_peel" : "after_peel", Json()), place);
  }
  if (HasField(json, "at")) {
    if (columns.kind != ColumnKind::kRest) {
      Fail(ErrorCode::kBadInput, "{}: 'at' goes with 'rest' only", place);
    }
    columns.at = IntegerField(json, "at", 0, columns.count - 1, place);
  }
  return columns;
}

void ReadRows(const Json& json, OrderClass& c, const std::string& place) {
  const bool pair = json.is_array() && json.size() == 2 && json[0].is_number_integer() &&
                    (json[1].is_null() || json[1].is_number_integer());
  if (!pair || json[0] < 0 || json[0] > kMaxRows || (json[1].is_number() && json[1] < json[0]) ||
      (json[1].is_number() && json[1] > kMaxRows)) {
    Fail(ErrorCode::kBadInput, "{}: 'rows': expected [begin, end] or [begin, null], found {}",
         place, Excerpt(json));
  }
  c.row_begin = json[0].get<int64_t>();
  c.row_end = json[1].is_null() ? -1 : json[1].get<int64_t>();
}

}  // namespace

SumRule ReadSumRule(const Json& json, const std::string& place) {
  CheckKeys(json, {"bias", "classes"}, place);
  SumRule rule;
  rule.place = place;
  const std::string bias = StringField(json, "bias", place);
  if (bias == "first") {
    rule.bias = BiasRule::kFirst;
  } else if (bias == "last") {
    rule.bias = BiasRule::kLast;
  } else if (bias == "rounded") {
    rule.bias = BiasRule::kRounded;
  } else {
    Fail(ErrorCode::kBadInput, "{}: 'bias': expected \"first\", \"last\" or \"rounded\", found {}",
         place, Excerpt(Json(bias)));
  }
  const Json classes = json.value("classes", Json());
  if (!classes.is_array() || classes.empty() || classes.size() > 64) {
    Fail(ErrorCode::kBadInput, "{}: 'classes': expected a list of 1 to 64, found {}", place,
         Excerpt(classes));
  }
  for (const Json& item : classes) {
    const std::string here = place + ": class " + std::to_string(rule.classes.size());
    CheckKeys(item, {"rows", "columns", "order"}, here);
    OrderClass c;
    if (HasField(item, "rows")) ReadRows(item.at("rows"), c, here);
    if (HasField(item, "columns"))
      c.columns = ReadColumns(item.at("columns"), here + ": 'columns'");
    c.order = ReadSumOrder(item.value("order", Json()), here + ": 'order'");
    rule.classes.push_back(std::move(c));
  }
  return rule;
}

}  // namespace samebits
