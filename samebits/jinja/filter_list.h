// The filters' functions, for the table in filters.cc.
#pragma once

#include "samebits/jinja/arguments.h"
#include "samebits/jinja/runtime.h"
#include "samebits/jinja/value.h"

namespace samebits::jinja::filters {

#define SAMEBITS_FILTER(name) \
  Value name(Runtime& runtime, const Value& value, const Arguments& arguments)

// text_filters.cc
SAMEBITS_FILTER(Capitalize);
SAMEBITS_FILTER(Center);
SAMEBITS_FILTER(Escape);
SAMEBITS_FILTER(ForceEscape);
SAMEBITS_FILTER(Format);
SAMEBITS_FILTER(Indent);
SAMEBITS_FILTER(Join);
SAMEBITS_FILTER(Lower);
SAMEBITS_FILTER(Replace);
SAMEBITS_FILTER(Safe);
SAMEBITS_FILTER(String);
SAMEBITS_FILTER(StripTags);
SAMEBITS_FILTER(Title);
SAMEBITS_FILTER(ToJson);
SAMEBITS_FILTER(Trim);
SAMEBITS_FILTER(Truncate);
SAMEBITS_FILTER(Upper);
SAMEBITS_FILTER(UrlEncode);
SAMEBITS_FILTER(WordCount);
SAMEBITS_FILTER(XmlAttr);

// number_filters.cc
SAMEBITS_FILTER(Abs);
SAMEBITS_FILTER(Float);
SAMEBITS_FILTER(Int);
SAMEBITS_FILTER(Round);
SAMEBITS_FILTER(Sum);

// sequence_filters.cc
SAMEBITS_FILTER(Attr);
SAMEBITS_FILTER(Batch);
SAMEBITS_FILTER(Default);
SAMEBITS_FILTER(DictSort);
SAMEBITS_FILTER(First);
SAMEBITS_FILTER(GroupBy);
SAMEBITS_FILTER(ItemsOf);
SAMEBITS_FILTER(Last);
SAMEBITS_FILTER(LengthOf);
SAMEBITS_FILTER(ListOf);
SAMEBITS_FILTER(Max);
SAMEBITS_FILTER(Min);
SAMEBITS_FILTER(Reverse);
SAMEBITS_FILTER(Slice);
SAMEBITS_FILTER(Sort);
SAMEBITS_FILTER(Unique);

// select_filters.cc
SAMEBITS_FILTER(Map);
SAMEBITS_FILTER(Reject);
SAMEBITS_FILTER(RejectAttr);
SAMEBITS_FILTER(Select);
SAMEBITS_FILTER(SelectAttr);

#undef SAMEBITS_FILTER

}  // namespace samebits::jinja::filters
