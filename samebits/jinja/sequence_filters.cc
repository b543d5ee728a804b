#include <algorithm>
#include <memory>
#include <string>

#include "samebits/jinja/attribute_path.h"
#include "samebits/jinja/filter_list.h"
#include "samebits/jinja/operators.h"
#include "samebits/jinja/unicode.h"

namespace samebits::jinja {

AttributePath::AttributePath(Runtime& runtime, const Value& attribute) {
  if (attribute.IsNone()) return;
  if (!attribute.IsString()) {
    parts_.push_back(attribute);
    return;
  }
  std::string_view rest = attribute.AsString().bytes;
  for (;;) {
    const size_t dot = std::min(rest.find('.'), rest.size());
    const std::string part(rest.substr(0, dot));
    bool is_number = !part.empty();
    for (const char c : part) is_number = is_number && c >= '0' && c <= '9';
    if (is_number && part.size() < 18) {
      parts_.emplace_back(static_cast<int64_t>(std::stoll(part)));
    } else {
      parts_.push_back(runtime.String(part));
    }
    if (dot == rest.size()) break;
    rest = rest.substr(dot + 1);
  }
}

Value AttributePath::Of(Runtime& runtime, Value item, const Value* otherwise) const {
  for (const Value& part : parts_) {
    runtime.Step();
    item = GetItem(runtime, item, part);
    if (otherwise != nullptr && !otherwise->IsNone() && item.IsUndefined()) item = *otherwise;
  }
  return item;
}

Value IgnoreCase(Runtime& runtime, const Value& value) {
  if (!value.IsString()) return value;
  runtime.StepBytes(value.AsString().bytes.size());
  return runtime.String(ToLower(value.AsString().bytes));
}

namespace filters {
namespace {

Value None_() { return Value(None{}); }

// A path and whether letters of both cases are the same.
struct Key {
  AttributePath path;
  bool case_sensitive;

  Value Of(Runtime& runtime, const Value& item, const Value* otherwise = nullptr) const {
    Value key = path.Of(runtime, item, otherwise);
    return case_sensitive ? key : IgnoreCase(runtime, key);
  }
};

Value MinOrMax(Runtime& runtime, const Value& value, const Arguments& arguments, bool max) {
  const Parameters given(runtime, max ? "max" : "min", arguments, {"case_sensitive", "attribute"});
  const Key key{AttributePath(runtime, given.Given(1) ? given[1] : None_()), given.Truth(0, false)};
  const std::vector<Value> items = Items(runtime, value);
  if (items.empty()) return Runtime::MakeUndefined("no aggregated item, sequence was empty");
  size_t best = 0;
  Value best_key = key.Of(runtime, items[0]);
  for (size_t i = 1; i < items.size(); ++i) {
    Value other = key.Of(runtime, items[i]);
    if (max ? Less(runtime, best_key, other) : Less(runtime, other, best_key)) {
      best = i;
      best_key = std::move(other);
    }
  }
  return items[best];
}

}  // namespace

Value Attr(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Parameters given(runtime, "attr", arguments, {"name"}, 1);
  const std::string& name = given.String(0);
  if (value.IsUndefined()) runtime.UseOfUndefined(value);
  if (!value.Is(Type::kDict)) return GetAttribute(runtime, value, name);
  // Items of a dict are no attributes.
  return GetAttribute(runtime, runtime.Wrap(std::make_shared<Dict>()), name).IsUndefined()
             ? Runtime::MakeUndefined(fmt::format("'dict' object has no attribute '{}'", name))
             : GetAttribute(runtime, value, name);
}

Value Batch(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Parameters given(runtime, "batch", arguments, {"linecount", "fill_with"}, 1);
  std::vector<Value> batches, batch;
  const std::vector<Value> items = Items(runtime, value);
  // Compared, not used as a number: a float will do, and nothing equals anything else.
  const auto is_full = [&] {
    return given[0].IsNumber() &&
           CompareNumbers(Value(static_cast<int64_t>(batch.size())), given[0]) == 0;
  };
  for (const Value& item : items) {
    if (is_full()) {
      batches.push_back(runtime.List(std::move(batch)));
      batch.clear();
    }
    batch.push_back(item);
  }
  if (!batch.empty()) {
    if (given.Set(1)) {
      const auto size = static_cast<int64_t>(batch.size());
      const int64_t missing = std::max(size, given.Int(0, 0)) - size;
      runtime.Step(missing);
      runtime.ChargeItems(static_cast<size_t>(missing));
      batch.insert(batch.end(), static_cast<size_t>(missing), given[1]);
    }
    batches.push_back(runtime.List(std::move(batch)));
  }
  return runtime.Iterate(std::move(batches));
}

Value Default(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Parameters given(runtime, "default", arguments, {"default_value", "boolean"});
  if (!value.IsUndefined() && !(given.Truth(1, false) && !Truth(value))) return value;
  return given.Given(0) ? given[0] : runtime.String("");
}

Value DictSort(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Parameters given(runtime, "dictsort", arguments, {"case_sensitive", "by", "reverse"});
  const std::string by = given.Given(1) ? Text(runtime, given[1]) : "key";
  if (by != "key" && by != "value") runtime.Fail("dictsort: by must be 'key' or 'value'");
  if (!value.Is(Type::kDict)) {
    if (value.IsUndefined()) runtime.UseOfUndefined(value);
    runtime.Fail("dictsort: expected a dict, found {}", TypeName(value));
  }
  const bool case_sensitive = given.Truth(0, false);
  std::vector<Value> items, keys;
  for (const auto& [key, item] : value.AsDict().entries()) {
    items.push_back(runtime.Tuple({key, item}));
    const Value& by_what = by == "key" ? key : item;
    keys.push_back(case_sensitive ? by_what : IgnoreCase(runtime, by_what));
  }
  return runtime.List(SortBy(runtime, std::move(items), std::move(keys), given.Truth(2, false)));
}

Value First(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Parameters none(runtime, "first", arguments, {});
  if (value.Is(Type::kIterator)) {
    Iterator& iterator = value.AsIterator();
    if (iterator.next < iterator.items.size()) return iterator.items[iterator.next++];
    return Runtime::MakeUndefined("no first item, sequence was empty");
  }
  const std::vector<Value> items = Items(runtime, value);
  return items.empty() ? Runtime::MakeUndefined("no first item, sequence was empty") : items[0];
}

Value Last(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Parameters none(runtime, "last", arguments, {});
  if (value.Is(Type::kIterator)) runtime.Fail("last: a generator can't be reversed");
  const std::vector<Value> items = Items(runtime, value);
  return items.empty() ? Runtime::MakeUndefined("no last item, sequence was empty") : items.back();
}

Value GroupBy(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Parameters given(runtime, "groupby", arguments, {"attribute", "default", "case_sensitive"},
                         1);
  const Value* otherwise = given.Get(1);
  const Key key{AttributePath(runtime, given[0]), given.Truth(2, false)};
  std::vector<Value> items = Items(runtime, value), keys;
  keys.reserve(items.size());
  for (const Value& item : items) keys.push_back(key.Of(runtime, item, otherwise));
  items = SortBy(runtime, std::move(items), std::move(keys), false);
  std::vector<Value> groups;
  for (size_t begin = 0; begin < items.size();) {
    const Value first = key.Of(runtime, items[begin], otherwise);
    size_t end = begin + 1;
    while (end < items.size() && Equal(runtime, first, key.Of(runtime, items[end], otherwise))) {
      ++end;
    }
    const Value shown = key.path.Of(runtime, items[begin], otherwise);
    groups.push_back(runtime.Sequence(
        Seq::Kind::kGroup, {shown, runtime.List(std::vector<Value>(
                                       items.begin() + static_cast<std::ptrdiff_t>(begin),
                                       items.begin() + static_cast<std::ptrdiff_t>(end)))}));
    begin = end;
  }
  return runtime.List(std::move(groups));
}

Value ItemsOf(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Parameters none(runtime, "items", arguments, {});
  std::vector<Value> items;
  if (!value.IsUndefined()) {
    if (!value.Is(Type::kDict)) runtime.Fail("items: can only get item pairs from a mapping");
    for (const auto& [key, item] : value.AsDict().entries()) {
      items.push_back(runtime.Tuple({key, item}));
    }
  }
  return runtime.Iterate(std::move(items));
}

Value LengthOf(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Parameters none(runtime, "length", arguments, {});
  return Value(Length(runtime, value));
}

Value ListOf(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Parameters none(runtime, "list", arguments, {});
  return runtime.List(Items(runtime, value));
}

Value Max(Runtime& runtime, const Value& value, const Arguments& arguments) {
  return MinOrMax(runtime, value, arguments, true);
}
Value Min(Runtime& runtime, const Value& value, const Arguments& arguments) {
  return MinOrMax(runtime, value, arguments, false);
}

Value Reverse(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Parameters none(runtime, "reverse", arguments, {});
  if (value.IsString()) {
    const std::string& text = value.AsString().bytes;
    std::string out;
    out.reserve(text.size());
    for (size_t end = text.size(); end > 0;) {
      const size_t stop = end;
      PreviousCharacter(text, end);
      out.append(text, end, stop - end);
    }
    return runtime.String(std::move(out), value.AsString().is_markup);
  }
  std::vector<Value> items = Items(runtime, value);
  std::reverse(items.begin(), items.end());
  if (value.Is(Type::kIterator)) return runtime.List(std::move(items));
  return runtime.Iterate(std::move(items));
}

Value Slice(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Parameters given(runtime, "slice", arguments, {"slices", "fill_with"}, 1);
  const std::vector<Value> items = Items(runtime, value);
  const int64_t count = given.Int(0, 0);
  const auto length = static_cast<int64_t>(items.size());
  if (count == 0) runtime.Fail("slice: division by zero");
  if (count > kMaxRange) runtime.Unsupported("more than {} slices", kMaxRange);
  std::vector<Value> slices;
  int64_t begin = 0;
  for (int64_t number = 0; number < count; ++number) {
    const bool longer = number < length % count;
    const int64_t end = begin + length / count + (longer ? 1 : 0);
    std::vector<Value> part(items.begin() + begin, items.begin() + end);
    if (given.Set(1) && !longer) part.push_back(given[1]);
    slices.push_back(runtime.List(std::move(part)));
    begin = end;
  }
  return runtime.Iterate(std::move(slices));
}

Value Sort(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Parameters given(runtime, "sort", arguments, {"reverse", "case_sensitive", "attribute"});
  const bool case_sensitive = given.Truth(1, false);
  std::vector<Key> paths;
  if (given.Given(2) && given[2].IsString()) {
    std::string_view rest = given[2].AsString().bytes;
    for (;;) {
      const size_t comma = std::min(rest.find(','), rest.size());
      paths.push_back({AttributePath(runtime, runtime.String(std::string(rest.substr(0, comma)))),
                       case_sensitive});
      if (comma == rest.size()) break;
      rest = rest.substr(comma + 1);
    }
  } else {
    paths.push_back({AttributePath(runtime, given.Given(2) ? given[2] : None_()), case_sensitive});
  }
  std::vector<Value> items = Items(runtime, value), keys;
  keys.reserve(items.size());
  for (const Value& item : items) {
    std::vector<Value> key;
    key.reserve(paths.size());
    for (const Key& path : paths) key.push_back(path.Of(runtime, item));
    keys.push_back(runtime.List(std::move(key)));
  }
  return runtime.List(SortBy(runtime, std::move(items), std::move(keys), given.Truth(0, false)));
}

Value Unique(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Parameters given(runtime, "unique", arguments, {"case_sensitive", "attribute"});
  const Key key{AttributePath(runtime, given.Given(1) ? given[1] : None_()), given.Truth(0, false)};
  Dict seen;
  std::vector<Value> items;
  for (const Value& item : Items(runtime, value)) {
    const Value mark = key.Of(runtime, item);
    runtime.Step();
    runtime.CheckHashable(mark);
    if (seen.Find(mark) != nullptr) continue;
    seen.Set(mark, Value(true));
    items.push_back(item);
  }
  return runtime.Iterate(std::move(items));
}

}  // namespace filters
}  // namespace samebits::jinja
