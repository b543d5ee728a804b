// The expected values are what Python's re gives for the harness's patterns.
#include "samebits/evaluate/score.h"

#include <gtest/gtest.h>

#include <vector>

namespace samebits {
namespace {

const Extracted kNone;

TEST(StrictMatch, TheFirstMatch) {
  EXPECT_EQ(StrictMatch("17 + 25 = 42 #### 42"), "42");
  EXPECT_EQ(StrictMatch("#### 1 #### 2"), "1");
  EXPECT_EQ(StrictMatch("#### $5 #### -1,234.50. x"), "-1,234.50.");
  EXPECT_EQ(StrictMatch("##### 7"), "7");
  EXPECT_EQ(StrictMatch("#### ."), ".");
  EXPECT_EQ(StrictMatch("#### --5"), kNone);
  EXPECT_EQ(StrictMatch("####  5"), kNone);
  EXPECT_EQ(StrictMatch("####5"), kNone);
  EXPECT_EQ(StrictMatch("#### "), kNone);
  EXPECT_EQ(StrictMatch("#### -"), kNone);
  EXPECT_EQ(StrictMatch(""), kNone);
}

TEST(FlexibleExtract, TheLastMatch) {
  EXPECT_EQ(FlexibleExtract("17 + 25 = 42"), "42");
  EXPECT_EQ(FlexibleExtract("It is 7"), "7");
  EXPECT_EQ(FlexibleExtract("so $1,234.50. Done."), "$1,234.50.");
  EXPECT_EQ(FlexibleExtract("5-3"), "-3");
  EXPECT_EQ(FlexibleExtract("5 - 3"), "3");
  EXPECT_EQ(FlexibleExtract("--12"), "-12");
  EXPECT_EQ(FlexibleExtract("5 ... and so on."), "...");  // two or more of its characters
  EXPECT_EQ(FlexibleExtract("5, maybe."), "5,");
  EXPECT_EQ(FlexibleExtract("-$5"), "-$5");
  EXPECT_EQ(FlexibleExtract("9 -. $ , -"), "9");
  EXPECT_EQ(FlexibleExtract("no number"), kNone);
  EXPECT_EQ(FlexibleExtract(""), kNone);
}

TEST(IsRight, IgnoresWhatTheHarnessIgnores) {
  EXPECT_EQ(Normalized("a #### b #### $1,234."), "1234");
  EXPECT_EQ(Normalized("X.\n"), "x\n");
  EXPECT_EQ(Normalized("1.."), "1.");
  EXPECT_EQ(Normalized(""), "");
  EXPECT_TRUE(IsRight("1,234.", "so #### 1234"));
  EXPECT_TRUE(IsRight("$5", "#### 5"));
  EXPECT_FALSE(IsRight("5.0", "#### 5"));
  EXPECT_FALSE(IsRight("05", "#### 5"));
  EXPECT_FALSE(IsRight(kNone, "#### 5"));
  EXPECT_FALSE(IsRight(kNone, ""));
}

TEST(Majority, TheFirstOfEquallyMany) {
  using Samples = std::vector<Extracted>;
  EXPECT_EQ(Majority(Samples{"1", "2", "2"}), "2");
  EXPECT_EQ(Majority(Samples{"2", "1", "1", "2"}), "2");
  EXPECT_EQ(Majority(Samples{kNone, kNone, "1"}), kNone);
  EXPECT_EQ(Majority(Samples{"1", "1.", "2", "2"}), "2");  // counted as texts
  EXPECT_EQ(Majority(Samples{}), kNone);
}

// 81 of 263: published in examples of the method as 0.2553 to 0.3662. The ends are exact:
// z^2 / (n + z^2).
TEST(WilsonInterval, KnownValues) {
  const ConfidenceInterval some = WilsonInterval(81, 263);
  EXPECT_NEAR(some.low, 0.2553, 5e-5);
  EXPECT_NEAR(some.high, 0.3662, 5e-5);
  constexpr double kZ2 = 1.959964 * 1.959964;
  EXPECT_EQ(WilsonInterval(0, 10).low, 0);
  EXPECT_NEAR(WilsonInterval(0, 10).high, kZ2 / (10 + kZ2), 1e-15);
  EXPECT_NEAR(WilsonInterval(10, 10).high, 1, 1e-15);
  EXPECT_NEAR(WilsonInterval(10, 10).low, 10 / (10 + kZ2), 1e-15);
  EXPECT_EQ(WilsonInterval(0, 0).low, 0);
  EXPECT_EQ(WilsonInterval(0, 0).high, 1);
}

}  // namespace
}  // namespace samebits
