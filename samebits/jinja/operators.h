// Operators, comparisons, subscripts and attributes with Python's meaning.
#pragma once

#include <string_view>

#include "samebits/jinja/ast.h"
#include "samebits/jinja/runtime.h"
#include "samebits/jinja/value.h"

namespace samebits::jinja {

Value Calculate(Runtime& runtime, Op op, const Value& a, const Value& b);
Value Negate(Runtime& runtime, const Value& a);
Value Plus(Runtime& runtime, const Value& a);

bool Equal(Runtime& runtime, const Value& a, const Value& b);
// Python's a < b; throws for types that have no order.
bool Less(Runtime& runtime, const Value& a, const Value& b);
bool Contains(Runtime& runtime, const Value& item, const Value& container);
bool Compare(Runtime& runtime, Op op, const Value& a, const Value& b);

// a.name and a[key], each with the other as a second try, as jinja2 does; Undefined when there is
// none.
Value GetAttribute(Runtime& runtime, const Value& object, std::string_view name);
Value GetItem(Runtime& runtime, const Value& object, const Value& key);
// a[start:stop:step]; None where a bound is left out.
Value GetSlice(Runtime& runtime, const Value& object, const Value& start, const Value& stop,
               const Value& step);

// Sorts as Python's sorted() by the keys, which belong to the items one by one.
std::vector<Value> SortBy(Runtime& runtime, std::vector<Value> items, std::vector<Value> keys,
                          bool reverse);

// Throws when so many bytes are too many for one string.
void CheckTextSize(const Runtime& runtime, int64_t count, int64_t size);

}  // namespace samebits::jinja
