#include "samebits/jinja/filters.h"

#include <algorithm>
#include <array>

#include "samebits/jinja/filter_list.h"

namespace samebits::jinja {
namespace {

Value NotDone(Runtime& runtime, const Value&, const Arguments&) {
  runtime.Unsupported("the filters filesizeformat, pprint, random, urlize and wordwrap");
}

constexpr std::array<Filter, 54> kFilters{{
    {"abs", filters::Abs},
    {"attr", filters::Attr},
    {"batch", filters::Batch},
    {"capitalize", filters::Capitalize},
    {"center", filters::Center},
    {"count", filters::LengthOf},
    {"d", filters::Default},
    {"default", filters::Default},
    {"dictsort", filters::DictSort},
    {"e", filters::Escape},
    {"escape", filters::Escape},
    {"filesizeformat", NotDone},
    {"first", filters::First},
    {"float", filters::Float},
    {"forceescape", filters::ForceEscape},
    {"format", filters::Format},
    {"groupby", filters::GroupBy},
    {"indent", filters::Indent},
    {"int", filters::Int},
    {"items", filters::ItemsOf},
    {"join", filters::Join},
    {"last", filters::Last},
    {"length", filters::LengthOf},
    {"list", filters::ListOf},
    {"lower", filters::Lower},
    {"map", filters::Map},
    {"max", filters::Max},
    {"min", filters::Min},
    {"pprint", NotDone},
    {"random", NotDone},
    {"reject", filters::Reject},
    {"rejectattr", filters::RejectAttr},
    {"replace", filters::Replace},
    {"reverse", filters::Reverse},
    {"round", filters::Round},
    {"safe", filters::Safe},
    {"select", filters::Select},
    {"selectattr", filters::SelectAttr},
    {"slice", filters::Slice},
    {"sort", filters::Sort},
    {"string", filters::String},
    {"striptags", filters::StripTags},
    {"sum", filters::Sum},
    {"title", filters::Title},
    {"tojson", filters::ToJson},
    {"trim", filters::Trim},
    {"truncate", filters::Truncate},
    {"unique", filters::Unique},
    {"upper", filters::Upper},
    {"urlencode", filters::UrlEncode},
    {"urlize", NotDone},
    {"wordcount", filters::WordCount},
    {"wordwrap", NotDone},
    {"xmlattr", filters::XmlAttr},
}};

}  // namespace

const Filter* FindFilter(std::string_view name) {
  if (name.empty()) return nullptr;
  const auto* found = std::find_if(kFilters.begin(), kFilters.end(),
                                   [&](const Filter& entry) { return entry.name == name; });
  return found == kFilters.end() ? nullptr : found;
}

}  // namespace samebits::jinja
