// map, select and their kin, which apply another filter or test to each item.
#include <algorithm>
#include <string>
#include <utility>

#include "samebits/jinja/attribute_path.h"
#include "samebits/jinja/filter_list.h"
#include "samebits/jinja/filters.h"
#include "samebits/jinja/tests.h"

namespace samebits::jinja::filters {
namespace {

// The arguments behind the first `count`.
Arguments Rest(const Arguments& arguments, size_t count) {
  Arguments rest = arguments;
  const size_t gone = std::min(count, rest.positional.size());
  rest.positional.erase(rest.positional.begin(),
                        rest.positional.begin() + static_cast<std::ptrdiff_t>(gone));
  return rest;
}

Value Choose(Runtime& runtime, const Value& value, const Arguments& arguments, bool keep,
             bool by_attribute) {
  std::vector<Value> chosen;
  if (!Truth(value)) return runtime.Iterate(std::move(chosen));
  const size_t offset = by_attribute ? 1 : 0;
  if (by_attribute && arguments.positional.empty()) {
    runtime.Fail("selectattr: the name of an attribute is missing");
  }
  const AttributePath path(runtime, by_attribute ? arguments.positional[0] : Value(None{}));
  const TestEntry* test = nullptr;
  const Arguments rest = Rest(arguments, offset + 1);
  if (arguments.positional.size() > offset) {
    const Value& name = arguments.positional[offset];
    test = name.IsString() ? FindTest(name.AsString().bytes) : nullptr;
    if (test == nullptr) runtime.Fail("there is no test named {}", Excerpt(runtime, name));
  }
  for (Value& item : Items(runtime, value)) {
    const Value seen = path.Of(runtime, item);
    runtime.Step();
    const bool holds = test == nullptr ? Truth(seen) : test->holds(runtime, seen, rest);
    if (holds == keep) chosen.push_back(std::move(item));
  }
  return runtime.Iterate(std::move(chosen));
}

}  // namespace

Value Map(Runtime& runtime, const Value& value, const Arguments& arguments) {
  std::vector<Value> mapped;
  if (!Truth(value)) return runtime.Iterate(std::move(mapped));
  const auto named = [&](std::string_view name) -> const Value* {
    const auto found = std::find_if(arguments.keyword.begin(), arguments.keyword.end(),
                                    [&](const auto& argument) { return argument.first == name; });
    return found == arguments.keyword.end() ? nullptr : &found->second;
  };
  const Value* attribute = arguments.positional.empty() ? named("attribute") : nullptr;
  if (attribute != nullptr) {
    const Value* otherwise = named("default");
    for (const auto& [name, argument] : arguments.keyword) {
      if (name != "attribute" && name != "default") {
        runtime.Fail("map: unexpected argument '{}'", name);
      }
    }
    const AttributePath path(runtime, *attribute);
    for (const Value& item : Items(runtime, value)) {
      mapped.push_back(path.Of(runtime, item, otherwise));
    }
    return runtime.Iterate(std::move(mapped));
  }
  if (arguments.positional.empty()) runtime.Fail("map: the name of a filter is missing");
  const Value& name = arguments.positional[0];
  const Filter* filter = name.IsString() ? FindFilter(name.AsString().bytes) : nullptr;
  if (filter == nullptr) runtime.Fail("there is no filter named {}", Excerpt(runtime, name));
  const Arguments rest = Rest(arguments, 1);
  const Runtime::Deeper deeper(runtime);
  for (const Value& item : Items(runtime, value)) {
    runtime.Step();
    mapped.push_back(filter->apply(runtime, item, rest));
  }
  return runtime.Iterate(std::move(mapped));
}

Value Select(Runtime& runtime, const Value& value, const Arguments& arguments) {
  return Choose(runtime, value, arguments, true, false);
}
Value Reject(Runtime& runtime, const Value& value, const Arguments& arguments) {
  return Choose(runtime, value, arguments, false, false);
}
Value SelectAttr(Runtime& runtime, const Value& value, const Arguments& arguments) {
  return Choose(runtime, value, arguments, true, true);
}
Value RejectAttr(Runtime& runtime, const Value& value, const Arguments& arguments) {
  return Choose(runtime, value, arguments, false, true);
}

}  // namespace samebits::jinja::filters
