// For tests only: comparison of arrays bit for bit, with a message that says how many values
// differ, where the first one is, both bit patterns and how far apart they are. NaN equals NaN,
// whatever its payload and sign (they are not part of the arithmetic); +0 and -0 differ.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "samebits/base/error.h"
#include "samebits/tensor/convert.h"
#include "samebits/tensor/dtype.h"

namespace samebits {

// Values compared by BitsEqual in this process.
inline int64_t& ComparedValues() {
  static int64_t count = 0;
  return count;
}

inline uint32_t BitsAt(DType dtype, const void* data, int64_t i) {
  const auto* bytes = static_cast<const std::byte*>(data) + i * DTypeSize(dtype);
  if (dtype == DType::kF32) {
    uint32_t bits = 0;
    std::memcpy(&bits, bytes, 4);
    return bits;
  }
  SAMEBITS_CHECK(dtype == DType::kBF16 || dtype == DType::kF16, "BitsAt: F32, BF16, F16");
  uint16_t bits = 0;
  std::memcpy(&bits, bytes, 2);
  return bits;
}

inline bool BitsAreNan(DType dtype, uint32_t bits) {
  if (dtype == DType::kF32) return (bits & 0x7fffffffU) > 0x7f800000U;
  return (bits & 0x7fffU) > (dtype == DType::kBF16 ? 0x7f80U : 0x7c00U);
}

inline bool SameBits(DType dtype, uint32_t a, uint32_t b) {
  return a == b || (BitsAreNan(dtype, a) && BitsAreNan(dtype, b));
}

// Steps between two values on the line of all values of dtype, -0 and +0 being one value.
inline int64_t UlpDistance(DType dtype, uint32_t a, uint32_t b) {
  const int64_t sign = dtype == DType::kF32 ? 0x80000000LL : 0x8000LL;
  const auto place = [sign](uint32_t bits) {
    const auto v = static_cast<int64_t>(bits);
    return v < sign ? v : sign - v;
  };
  return std::abs(place(a) - place(b));
}

inline testing::AssertionResult BitsEqual(DType dtype, const void* expected, const void* actual,
                                          int64_t n) {
  ComparedValues() += n;
  int64_t differing = 0, first = -1;
  for (int64_t i = 0; i < n; ++i) {
    if (SameBits(dtype, BitsAt(dtype, expected, i), BitsAt(dtype, actual, i))) continue;
    if (differing++ == 0) first = i;
  }
  if (differing == 0) return testing::AssertionSuccess();
  const uint32_t e = BitsAt(dtype, expected, first), a = BitsAt(dtype, actual, first);
  const bool nan = BitsAreNan(dtype, e) || BitsAreNan(dtype, a);
  const int width = dtype == DType::kF32 ? 8 : 4;
  return testing::AssertionFailure() << fmt::format(
             "{} of {} values differ; first at {}: expected {:#0{}x}, actual {:#0{}x}, {}",
             differing, n, first, e, width + 2, a, width + 2,
             nan ? "one of them is NaN" : fmt::format("{} ulp", UlpDistance(dtype, e, a)));
}

inline testing::AssertionResult BitsEqual(const std::vector<float>& expected,
                                          const std::vector<float>& actual) {
  if (expected.size() != actual.size()) {
    return testing::AssertionFailure()
           << fmt::format("{} values expected, {} found", expected.size(), actual.size());
  }
  return BitsEqual(DType::kF32, expected.data(), actual.data(),
                   static_cast<int64_t>(expected.size()));
}

}  // namespace samebits

#define EXPECT_BITS_EQ(...) EXPECT_TRUE(::samebits::BitsEqual(__VA_ARGS__))
#define ASSERT_BITS_EQ(...) ASSERT_TRUE(::samebits::BitsEqual(__VA_ARGS__))
