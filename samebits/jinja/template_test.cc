#include "samebits/jinja/template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ctime>
#include <string>
#include <utility>
#include <vector>

#include "samebits/base/errors_testing.h"

namespace samebits::jinja {
namespace {

using testing::HasSubstr;

std::string Render(const std::string& source, const std::string& variables = "{}") {
  Environment environment;
  environment.clock = [] {
    std::tm time{};
    time.tm_year = 126;
    time.tm_mon = 10;
    time.tm_mday = 4;
    time.tm_wday = 3;
    return time;
  };
  return Template::Parse(source, "t").Render(ParseOrderedJson(variables, "variables"), environment);
}

std::string BadInput(const std::string& source, const std::string& variables = "{}") {
  return ErrorOf(ErrorCode::kBadInput, [&] { Render(source, variables); });
}

std::string Unsupported(const std::string& source) {
  return ErrorOf(ErrorCode::kUnsupported, [&] { Render(source); });
}

// What jinja2 3.1.6 made of templates at random (tests/live/template_grammar.py); null: an error.
TEST(JinjaTest, RecordedTemplatesRenderAsInJinja2) {
  const std::string path = SAMEBITS_SOURCE_DIR "/testdata/templates/grammar_cases.json";
  const OrderedJson file = ParseOrderedJson(ReadBytes(path), path);
  int texts = 0, errors = 0, unsupported = 0;
  for (const OrderedJson& entry : file["cases"]) {
    const auto source = entry[0].get<std::string>();
    try {
      const std::string text = Template::Parse(source, "t").Render(file["variables"]);
      ASSERT_TRUE(entry[1].is_string()) << source << "\nis an error, here: " << text;
      ASSERT_EQ(text, entry[1].get<std::string>()) << source;
      ++texts;
    } catch (const Error& error) {
      if (error.code() == ErrorCode::kUnsupported && entry[1].is_string()) {
        ++unsupported;
        continue;
      }
      ASSERT_TRUE(entry[1].is_null()) << source << "\n" << error.what();
      ++errors;
    }
  }
  EXPECT_GT(texts, 1000);
  EXPECT_GT(errors, 200);
  // Slices of constants that have none, for the most part.
  EXPECT_LT(unsupported, 40);
}

TEST(JinjaTest, WhiteSpaceAroundTags) {
  EXPECT_EQ(Render("a\n  {% if true %}\nb\n  {% endif %}\nc\n"), "a\nb\nc");
  EXPECT_EQ(Render("a\n  {%- if true -%}\n b \n{%- endif %}\n c"), "ab c");
  EXPECT_EQ(Render("a\n  {%+ if true +%}\n b{% endif %}"), "a\n  \n b");
  EXPECT_EQ(Render("a {{- 1 -}} b {{ 2 }}\n\nc"), "a1b 2\n\nc");
  EXPECT_EQ(Render("a {#- x -#} b\n  {# y #}\nc"), "ab\nc");
  EXPECT_EQ(Render("x{% raw %} {{ y }} {% endraw %}z\n\n"), "x {{ y }} z\n");
  EXPECT_EQ(Render("a\r\nb\rc\r\n"), "a\nb\nc");
}

TEST(JinjaTest, ScopesAreThoseOfJinja2) {
  EXPECT_EQ(Render("{% set x = 1 %}{% for i in [1, 2] %}{{ x }}{% set x = 5 %}{{ x }}{% endfor %}"
                   "{{ x }}"),
            "15151");
  EXPECT_EQ(Render("{% set q = namespace(n=0) %}{% for i in [1, 2] %}{% set q.n = q.n + i %}"
                   "{% endfor %}{{ q.n }}"),
            "3");
  // The name is the scope's own from its beginning, since it is assigned there and not read first.
  EXPECT_EQ(Render("{% for j in [1] %}[{{ x }}]{% endfor %}{% set x = 2 %}{{ x }}", R"({"x": 9})"),
            "[]2");
  EXPECT_EQ(Render("{% macro f() %}{{ x }}{% endmacro %}{% set x = 1 %}{{ f() }}"), "1");
  EXPECT_EQ(Render("{% if true %}{% set x = 3 %}{% endif %}{{ x }}"), "3");
  // A macro outlives the iteration that defined it.
  EXPECT_EQ(Render("{% set q = namespace() %}{% for i in [1, 2] %}{% macro f() %}{{ i }}"
                   "{% endmacro %}{% if i == 1 %}{% set q.f = f %}{% endif %}{% endfor %}"
                   "{{ q.f() }}"),
            "1");
}

TEST(JinjaTest, LoopsAndMacros) {
  EXPECT_EQ(Render("{% for x in [1, [2, [3]]] recursive %}{% if x is iterable %}({{ loop(x) }})"
                   "{% else %}{{ x }}:{{ loop.depth }} {% endif %}{% endfor %}"),
            "1:1 (2:2 (3:3 ))");
  EXPECT_EQ(Render("{% for k, v in {'a': 1, 'b': 2}.items() if v > 1 %}{{ k }}{{ loop.length }}"
                   "{% else %}none{% endfor %}"),
            "b1");
  EXPECT_EQ(Render("{% macro f(a, b=a) %}{{ a }}{{ b }}{{ varargs }}{{ kwargs }}{% endmacro %}"
                   "{{ f(1) }} {{ f(1, 2, 3, c=4) }}"),
            "11(){} 12(3,){'c': 4}");
  EXPECT_EQ(Render("{% macro f() %}<{{ caller('x') }}>{% endmacro %}"
                   "{% call(y) f() %}{{ y }}!{% endcall %}"),
            "<x!>");
  // The condition runs item by item, as the body goes on.
  EXPECT_EQ(Render("{% set q = namespace(stop=false) %}{% for i in range(9) if not q.stop %}{{ i }}"
                   "{% if i == 2 %}{% set q.stop = true %}{% endif %}{% endfor %}"),
            "012");
}

TEST(JinjaTest, ClockAndExceptions) {
  EXPECT_EQ(Render("{{ strftime_now('%d %b %Y, %A %-d') }}"), "04 Nov 2026, Wednesday 4");
  EXPECT_THAT(Unsupported("{{ strftime_now('%f') }}"), HasSubstr("t:1: not supported"));
  EXPECT_THAT(BadInput("\n\n{{ raise_exception('no ' ~ 'way') }}"),
              HasSubstr("t:3: the template refuses this chat: no way"));
}

TEST(JinjaTest, ErrorsNamePlaceAndReason) {
  EXPECT_THAT(BadInput("a\n{{ x.y.z }}"), HasSubstr("t:2: 'x' is undefined"));
  EXPECT_THAT(BadInput("{{ x.y.z }}", R"({"x": {}})"), HasSubstr("no attribute 'y'"));
  EXPECT_THAT(BadInput("{{ 'a' + 1 }}"), HasSubstr("'+' can't be used on str and int"));
  EXPECT_THAT(BadInput("{{ [].append(1) }}"), HasSubstr("unsafe"));
  EXPECT_THAT(BadInput("{% if x %}"), HasSubstr("expected 'elif', found the end"));
  EXPECT_THAT(BadInput("{{ x|nosuch }}"), HasSubstr("no filter named 'nosuch'"));
  EXPECT_THAT(BadInput("{% endfor %}"), HasSubstr("unknown tag 'endfor'"));
  EXPECT_THAT(BadInput("{{ (1 }}"), HasSubstr("t:1: "));
  EXPECT_THAT(BadInput("{# x"), HasSubstr("a comment does not end"));
  EXPECT_THAT(BadInput("\xff"), HasSubstr("not valid UTF-8 at byte 0"));
  EXPECT_EQ(Render("{{ 1 if true else x|nosuch }}"), "1");
}

TEST(JinjaTest, WhatIsNotDoneIsNamed) {
  for (const char* tag : {"include 'x'", "import 'x' as y", "from 'x' import y", "extends 'x'",
                          "block b", "autoescape true"}) {
    EXPECT_THAT(Unsupported(std::string("{% ") + tag + " %}"), HasSubstr("not supported: the tag"));
  }
  EXPECT_THAT(Unsupported("{{ 99999999999999999999 }}"), HasSubstr("beyond 64 bits"));
  EXPECT_THAT(Unsupported("{{ 2 ** 63 }}"), HasSubstr("beyond 64 bits"));
  EXPECT_THAT(Unsupported("{{ 'x'|pprint }}"), HasSubstr("pprint"));
  EXPECT_THAT(Unsupported("{{ [1]|map('string') }}"), HasSubstr("the text of a generator"));
  EXPECT_THAT(Unsupported("{{ '\\ud800' }}"), HasSubstr("surrogate"));
  EXPECT_THAT(Unsupported("{{ lipsum() }}"), HasSubstr("lipsum"));
  EXPECT_THAT(Unsupported("{{ ('<b>'|safe).split('b') }}"), HasSubstr("marked safe"));
}

TEST(JinjaTest, UnicodeIsThatOfPython) {
  EXPECT_EQ(Render("{{ 'ΑΣ ß ǆ ﬁ'|lower }} {{ 'ΑΣ ß ǆ ﬁ'|upper }} {{ 'ǆa ﬁ'.title() }}"),
            "ας ß ǆ ﬁ ΑΣ SS Ǆ FI ǅa Fi");
  EXPECT_EQ(Render("{{ 'a東😀'|length }}{{ 'a東😀'[1] }}{{ 'a東😀'[::-1] }}{{ 'é'|center(4) }}|"),
            "3東😀東a é  |");
  EXPECT_EQ(Render("{{ ['\\u200b', 'é', '\\n'] }}{{ '\u2003x\u2003'|trim }}"),
            "['\\u200b', 'é', '\\n']x");
}

TEST(JinjaTest, HostileTemplatesEndInAnError) {
  const std::string open(5000, '('), lists(5000, '[');
  std::string sum = "{{ 1", nested, elifs = "{% if 0 %}";
  for (int i = 0; i < 3000; ++i) sum += " + 1";
  for (int i = 0; i < 500; ++i) nested += "{% if 1 %}";
  for (int i = 0; i < 500; ++i) elifs += "{% elif 0 %}";
  const std::vector<std::string> sources{
      "{{ 'x' * 10000000000 }}",
      "{{ [1] * 10000000000 }}",
      "{{ 'x'|center(10000000000) }}",
      "{{ 'x'.ljust(10000000000) }}",
      "{{ 'x'.zfill(10000000000) }}",
      "{{ '%1000000000000d' % 1 }}",
      "{{ '{:1000000000000}'.format(1) }}",
      "{{ '%.1000000000f' % 1.0 }}",
      "{{ 'a\nb'|indent(10000000000) }}",
      "{{ range(10000000) }}",
      "{{ range(100000)|batch(2, fill_with=0)|list|batch(10000000000, 1)|list }}",
      ("{% set q = namespace(s='xxxxxxxx') %}{% for i in range(99) %}{% set q.s = q.s ~ q.s %}"
       "{% endfor %}"),
      "{% set q = namespace(s=[1]) %}{% for i in range(99) %}{% set q.s = q.s + q.s %}{% endfor %}",
      ("{% set q = namespace(s='ab') %}{% for i in range(99) %}{% set q.s = q.s.replace('', q.s) %}"
       "{% endfor %}"),
      ("{% set q = namespace(s='ab') %}{% for i in range(99) %}{% set q.s = q.s.join(q.s) %}"
       "{% endfor %}"),
      "{% set q = namespace(v=1) %}{% for i in range(1000) %}{% set q.v = [q.v] %}{% endfor %}",
      ("{% set q = namespace(v=1) %}{% for i in range(1000) %}{% set q.v = {'a': q.v} %}{% endfor "
       "%}"),
      ("{% set q = namespace(v=[1, 2]) %}{% for i in range(60) %}{% set q.v = [q.v, q.v] %}"
       "{% endfor %}{{ q.v }}"),
      ("{% set q = namespace(v=[1, 2]) %}{% for i in range(60) %}{% set q.v = [q.v, q.v] %}"
       "{% endfor %}{{ q.v == q.v }}"),
      ("{% set q = namespace(v=1) %}{% for i in range(9999) %}{% set q.v = namespace(v=q.v) %}"
       "{% endfor %}{{ q }}"),
      "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
      "{% for x in [[1]] recursive %}{{ loop([x]) }}{% endfor %}",
      "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
      "{% for i in range(100000) %}{{ 'x' * 100000 }}{% endfor %}",
      "{{ " + open,
      "{{ " + lists,
      "{{ " + open + "1" + std::string(5000, ')') + " }}",
      sum + " }}",
      "{{ " + std::string(5000, '-') + "1 }}",
      nested,
      std::string(1 << 20, 'x'),
      "{{ 'a'|map('map', 'map', 'map', 'upper')|list|map('nosuch')|list }}",
      "{{ 'x'|tojson(indent=1000000000) }}",
      "{{ range(0, 9223372036854775807, 9223372036854775807)[::9223372036854775807] }}",
      "{{ (-9223372036854775807 - 1) // -1 }}",
      "{{ (-9223372036854775807 - 1)|abs }}",
      "{{ 5 % 0 }}{{ 5.0 // 0 }}",
  };
  for (const std::string& source : sources) {
    EXPECT_THROW(Render(source), Error) << source.substr(0, 200);
  }
  EXPECT_EQ(Render(elifs + "{% else %}x{% endif %}"), "x");
}

TEST(JinjaTest, ANamespaceMayHoldItself) {
  EXPECT_EQ(Render("{% set q = namespace() %}{% set q.q = q %}{{ q }}{{ q == q.q }}"),
            "<Namespace {'q': <Namespace {...}>}>True");
}

TEST(JinjaTest, SlowOnlyInTheLengthOfTheInput) {
  // Texts and keys that make naive searches and tables quadratic; about 1 s if they did.
  const std::string a(200'000, 'a');
  EXPECT_EQ(Render("{{ (s ~ 'b') in s }}{{ s.count(s) }}", R"({"s": ")" + a + R"("})"), "False1");
  EXPECT_EQ(Render("{% set q = namespace(d={}) %}{{ range(50000)|list|unique|list|length }}"),
            "50000");
}

}  // namespace
}  // namespace samebits::jinja
