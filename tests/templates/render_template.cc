// For tests/live: renders templates as they come, many in one run.
//   render_template FILE    [{"template": ..., "variables": {...}}, ...] or, for whole chats,
//                           [{"template": ..., "chat": {"messages": ...}, "tokens": {...}}, ...]
// prints a JSON list of {"text": ...} and {"error": ..., "unsupported": true or false}. The clock
// stands at 2026-11-24 18:05:09, a Tuesday.
#include <fmt/format.h>

#include <cstdio>
#include <exception>
#include <map>
#include <memory>
#include <string>

#include "samebits/base/error.h"
#include "samebits/base/json.h"
#include "samebits/jinja/clock_testing.h"
#include "samebits/jinja/template.h"
#include "samebits/text/chat_template.h"

namespace samebits {
namespace {

OrderedJson RenderOne(const OrderedJson& entry) {
  OrderedJson result = OrderedJson::object();
  jinja::Environment environment;
  environment.clock = jinja::FixedTime;
  try {
    const auto& source = entry.at("template").get_ref<const std::string&>();
    if (entry.contains("chat")) {
      const Chat chat = ParseChat(entry["chat"].dump(), "chat");
      result["text"] =
          ChatTemplate::Parse(source, "template", entry.value("tokens", OrderedJson::object()))
              .Render(chat, environment);
    } else {
      result["text"] =
          jinja::Template::Parse(source, "template").Render(entry.at("variables"), environment);
    }
  } catch (const Error& error) {
    result["error"] = error.what();
    result["unsupported"] = error.code() == ErrorCode::kUnsupported;
  }
  return result;
}

}  // namespace
}  // namespace samebits

int main(int argc, char** argv) {
  if (argc != 2) {
    fmt::print(stderr, "usage: {} FILE\n", argv[0]);
    return 2;
  }
  try {
    const samebits::OrderedJson entries = samebits::ParseOrderedJson(
        samebits::ReadTextFile(argv[1], int64_t{1} << 30), argv[1], true);
    samebits::OrderedJson results = samebits::OrderedJson::array();
    for (const auto& entry : entries) results.push_back(samebits::RenderOne(entry));
    fmt::print("{}\n", results.dump());
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 2;
  }
  return 0;
}
