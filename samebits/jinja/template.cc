#include "samebits/jinja/template.h"

#include <ctime>
#include <utility>
#include <vector>

#include "samebits/jinja/interpreter.h"
#include "samebits/jinja/parser.h"

namespace samebits::jinja {
namespace {

Value FromJson(Runtime& runtime, const OrderedJson& json) {
  switch (json.type()) {
    case OrderedJson::value_t::null:
      return Value(None{});
    case OrderedJson::value_t::boolean:
      return Value(json.get<bool>());
    case OrderedJson::value_t::number_integer:
      return Value(json.get<int64_t>());
    case OrderedJson::value_t::number_unsigned:
      if (json.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX)) {
        runtime.Unsupported("integers beyond 64 bits");
      }
      return Value(json.get<int64_t>());
    case OrderedJson::value_t::number_float:
      return Value(json.get<double>());
    case OrderedJson::value_t::string:
      return runtime.String(json.get_ref<const std::string&>());
    case OrderedJson::value_t::array: {
      std::vector<Value> items;
      items.reserve(json.size());
      for (const OrderedJson& item : json) items.push_back(FromJson(runtime, item));
      return runtime.List(std::move(items));
    }
    default: {
      auto dict = std::make_shared<Dict>();
      for (const auto& [key, item] : json.items()) {
        dict->Set(runtime.String(key), FromJson(runtime, item));
      }
      return runtime.Wrap(std::move(dict));
    }
  }
}

std::tm LocalTime() {
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  localtime_r(&now, &local);
  return local;
}

}  // namespace

Template Template::Parse(std::string_view source, const std::string& place, const Limits& limits) {
  Template result;
  result.place_ = place;
  result.limits_ = limits;
  result.tree_ = ParseTemplate(source, place, limits);
  return result;
}

std::string Template::Render(const OrderedJson& variables, const Environment& environment) const {
  Environment with_clock = environment;
  if (!with_clock.clock) with_clock.clock = LocalTime;
  // The limits are for what the template does; what it is given may be large.
  Limits limits = limits_;
  Runtime runtime(place_, limits, with_clock);
  const Value given = FromJson(runtime, variables);
  return Interpreter(*tree_, runtime, given.AsDict()).Run();
}

}  // namespace samebits::jinja
