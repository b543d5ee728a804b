// The page: whatever stands in the JSON stays JSON, and nothing is loaded from elsewhere.
#include "samebits/report/html_report.h"

#include <gtest/gtest.h>

#include "samebits/base/errors_testing.h"

namespace samebits {
namespace {

constexpr std::string_view kBegin = "<script id=\"data\" type=\"application/json\">";

// What a browser takes for the content of the script element: up to the first "</script".
std::string DataOf(const std::string& page) {
  const size_t begin = page.find(kBegin) + kBegin.size();
  return page.substr(begin, page.find("</script", begin) - begin);
}

TEST(HtmlReport, HoldsTheVeryObject) {
  const Json report = {{"verdict", "rounding"}, {"nodes", Json::array()}, {"tokens", 3}};
  EXPECT_EQ(Json::parse(DataOf(CheckToHtml(report))), report);
}

TEST(HtmlReport, NothingLeavesTheScript) {
  const std::string evil =
      "</script><script>alert(1)</script><!-- --> & \" ' \xe2\x80\xa8 \xe2\x80\xa9 @SAMEBITS_JSON@";
  const Json report = {{"trace", evil}, {evil, {{"node", evil}}}};
  const std::string page = CheckToHtml(report);
  const std::string data = DataOf(page);
  EXPECT_EQ(Json::parse(data), report);
  for (const unsigned char c : data) {
    EXPECT_LT(c, 0x80);
    EXPECT_NE(c, '<');
  }
  // As many script elements as without it.
  const std::string plain = CheckToHtml(Json::object());
  const auto scripts = [](const std::string& text) {
    int count = 0;
    for (size_t at = text.find("<script"); at != std::string::npos;
         at = text.find("<script", at + 1)) {
      ++count;
    }
    return count;
  };
  EXPECT_EQ(scripts(page), scripts(plain));
}

TEST(HtmlReport, BytesThatAreNoUtf8AreReplaced) {
  const std::string page = CheckToHtml({{"trace", "a\xff\xfe"}});
  EXPECT_NO_THROW(Json::parse(DataOf(page)));
}

TEST(HtmlReport, LoadsNothing) {
  const std::string page = CheckToHtml(Json::object());
  for (const char* word :
       {"http://", "https://", "src=", "@import", "url(", "innerHTML", "eval("}) {
    EXPECT_EQ(page.find(word), std::string::npos) << word;
  }
}

TEST(HtmlReport, FilesAppearWhole) {
  const TempFolder folder;
  WriteFile(folder / "report.html", "text");
  EXPECT_EQ(ReadBytes(folder / "report.html"), "text");
  EXPECT_THROW(WriteFile(folder / "none/report.html", "text"), Error);
  EXPECT_THROW(CheckWritable(folder / "none/report.html"), Error);
  CheckWritable(folder / "report.html");
  EXPECT_EQ(ReadBytes(folder / "report.html"), "text");  // as it was
}

}  // namespace
}  // namespace samebits
