// The order of equal values against torch's (tests/fixtures/make_torch_sampling.py) and, where we
// are built with libstdc++, against its std::sort.
#include "samebits/numerics/torch_sort.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "samebits/numerics/torch_testing.h"

namespace samebits {
namespace {

std::vector<IndexedValue> Pairs(const std::vector<float>& values) {
  std::vector<IndexedValue> pairs(values.size());
  for (size_t i = 0; i < values.size(); ++i) pairs[i] = {values[i], static_cast<int32_t>(i)};
  return pairs;
}

std::vector<int32_t> Indices(const std::vector<IndexedValue>& pairs) {
  std::vector<int32_t> indices;
  indices.reserve(pairs.size());
  for (const IndexedValue& pair : pairs) indices.push_back(pair.index);
  return indices;
}

std::vector<int32_t> Sorted(const std::vector<float>& values) {
  std::vector<IndexedValue> pairs = Pairs(values);
  TorchSort(pairs);
  return Indices(pairs);
}

TEST(TorchSort, IndicesOfTorch) {
  int rows = 0;
  const Json numbers = LoadTorchFixture("numbers.json");
  for (const Json& row : numbers["sort"]) {
    const auto n = row["n"].get<int64_t>();
    const std::vector<int32_t> indices =
        Sorted(MakeTorchLogits(row["kind"].get<std::string>(), static_cast<uint64_t>(n), n));
    if (row.contains("indices")) {
      EXPECT_EQ(indices, row["indices"].get<std::vector<int32_t>>()) << n;
    }
    EXPECT_EQ(HashOf<int32_t>(indices), row["hash"].get<std::string>()) << n;
    ++rows;
  }
  EXPECT_EQ(rows, 22);
}

TEST(TorchSort, IsNotStable) {
  std::vector<int32_t> ascending(100);
  std::iota(ascending.begin(), ascending.end(), 0);
  EXPECT_NE(Sorted(std::vector<float>(100, 1.0F)), ascending);
  EXPECT_EQ(Sorted(std::vector<float>(16, 1.0F)),
            std::vector<int32_t>(ascending.begin(), ascending.begin() + 16));
  EXPECT_EQ(Sorted({0.0F, -0.0F, 0.0F}), (std::vector<int32_t>{0, 1, 2}));  // equal
  EXPECT_TRUE(Sorted({}).empty());
}

// Values that make the median of three as bad as can be, so that the heap is reached: the adversary
// of McIlroy, "A killer adversary for quicksort" (1999), played against std::sort.
std::vector<float> Killer(int n) {
  const auto unset = static_cast<float>(n);
  std::vector<float> values(n, unset);
  std::vector<int> order(n);
  std::iota(order.begin(), order.end(), 0);
  int solid = 0, candidate = 0;
  std::sort(order.begin(), order.end(), [&](int a, int b) {
    if (values[a] == unset && values[b] == unset) {
      values[a == candidate ? a : b] = static_cast<float>(solid++);
    }
    if (values[a] == unset) candidate = a;
    if (values[b] == unset) candidate = b;
    return values[a] < values[b];
  });
  return values;
}

#ifdef __GLIBCXX__
void ExpectLikeTheLibrary(const std::vector<float>& values) {
  std::vector<IndexedValue> pairs = Pairs(values);
  std::sort(pairs.begin(), pairs.end(),
            [](const IndexedValue& a, const IndexedValue& b) { return a.value < b.value; });
  ASSERT_EQ(Sorted(values), Indices(pairs)) << values.size();
}

TEST(TorchSort, LikeStdSort) {
  for (int64_t n = 0; n < 300; ++n) {
    for (const char* kind : {"fine", "coarse", "tied"}) {
      ExpectLikeTheLibrary(MakeTorchLogits(kind, static_cast<uint64_t>(n), n));
    }
    std::vector<float> ramp(n);
    std::iota(ramp.begin(), ramp.end(), 0.0F);
    ExpectLikeTheLibrary(ramp);
    std::reverse(ramp.begin(), ramp.end());
    ExpectLikeTheLibrary(ramp);
    ExpectLikeTheLibrary(std::vector<float>(n, 0.0F));
  }
  ExpectLikeTheLibrary(MakeTorchLogits("coarse", 1, 151936));
}

TEST(TorchSort, HeapsLikeStdSort) {
  for (const int n : {17, 100, 1001, 4096, 30001}) {
    std::vector<float> killer = Killer(n);
    ExpectLikeTheLibrary(killer);
    for (float& value : killer) value = std::floor(value / 3);  // with ties
    ExpectLikeTheLibrary(killer);
  }
}
#endif

}  // namespace
}  // namespace samebits
