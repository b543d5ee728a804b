// The cache against a plain list of rows, across the places where it grows.
#include "samebits/engine/kv_cache.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <vector>

namespace samebits {
namespace {

class KvCacheTest : public testing::TestWithParam<DType> {
 protected:
  static constexpr int64_t kHeads = 3, kHeadDim = 6;
  const int64_t row_bytes_ = kHeadDim * DTypeSize(GetParam());

  void Append(KvCache& cache, int64_t rows) {
    const auto size = static_cast<size_t>(rows * kHeads * row_bytes_);
    std::vector<uint8_t> k(size), v(size);
    for (auto* data : {&k, &v}) {
      for (uint8_t& byte : *data) byte = static_cast<uint8_t>(random_());
    }
    cache.Append(k.data(), v.data(), rows, pool_);
    keys_.insert(keys_.end(), k.begin(), k.end());
    values_.insert(values_.end(), v.begin(), v.end());
  }

  void Check(const KvCache& cache) {
    const auto length = static_cast<int64_t>(keys_.size()) / (kHeads * row_bytes_);
    ASSERT_EQ(cache.length(), length);
    ASSERT_GE(cache.head_stride(), length * kHeadDim);
    for (int64_t t = 0; t < length; ++t) {
      for (int64_t head = 0; head < kHeads; ++head) {
        const int64_t from = (t * kHeads + head) * row_bytes_;
        const int64_t to = head * cache.head_stride() * DTypeSize(GetParam()) + t * row_bytes_;
        const auto bytes = static_cast<size_t>(row_bytes_);
        ASSERT_EQ(
            std::memcmp(static_cast<const uint8_t*>(cache.keys()) + to, keys_.data() + from, bytes),
            0)
            << "key " << t << " of head " << head << " of " << length;
        ASSERT_EQ(std::memcmp(static_cast<const uint8_t*>(cache.values()) + to,
                              values_.data() + from, bytes),
                  0)
            << "value " << t << " of head " << head << " of " << length;
      }
    }
  }

  ThreadPool pool_{3};
  std::mt19937 random_{7};
  std::vector<uint8_t> keys_, values_;
};

TEST_P(KvCacheTest, TruncatedAndContinued) {
  KvCache cache(GetParam(), kHeads, kHeadDim);
  Append(cache, 70);
  for (const int64_t length : {70, 65, 64, 3, 0}) {
    cache.Truncate(length);
    keys_.resize(static_cast<size_t>(length * kHeads * row_bytes_));
    values_.resize(keys_.size());
    Check(cache);
    Append(cache, 61);
    Check(cache);
  }
}

TEST_P(KvCacheTest, RowByRowAcrossGrowth) {
  KvCache cache(GetParam(), kHeads, kHeadDim);
  EXPECT_EQ(cache.length(), 0);
  Append(cache, 1);
  Check(cache);
  Append(cache, 4091);
  for (int i = 0; i < 8; ++i) {
    Append(cache, 1);
    Check(cache);
  }
  EXPECT_EQ(cache.head_stride(), 8 * 4096 * kHeadDim);
}

TEST_P(KvCacheTest, ChunksOfAnySize) {
  KvCache cache(GetParam(), kHeads, kHeadDim);
  for (int64_t rows : {5, 64, 1, 200, 3, 512, 63, 65, 4000, 1}) {
    Append(cache, rows);
    Check(cache);
  }
}

TEST_P(KvCacheTest, GrowthIsRare) {
  KvCache cache(GetParam(), kHeads, kHeadDim);
  int grown = 0;
  int64_t stride = -1;
  for (int i = 0; i < 400; ++i) {
    Append(cache, 100);
    if (cache.head_stride() != stride) ++grown;
    stride = cache.head_stride();
  }
  EXPECT_EQ(grown, 3);  // 4096, 32768, 262144
}

TEST_P(KvCacheTest, ACopyGoesItsOwnWay) {
  KvCache cache(GetParam(), kHeads, kHeadDim);
  Append(cache, 70);
  const KvCache copy = cache;
  cache.Truncate(10);
  keys_.resize(static_cast<size_t>(10 * kHeads * row_bytes_));
  values_.resize(keys_.size());
  Append(cache, 30);
  Check(cache);
  EXPECT_EQ(copy.length(), 70);
  EXPECT_EQ(copy.head_stride(), cache.head_stride());
  const auto row = static_cast<size_t>(row_bytes_);
  EXPECT_EQ(std::memcmp(copy.keys(), cache.keys(), 10 * row), 0);
  const auto behind = [&](const KvCache& of) {
    return static_cast<const std::byte*>(of.keys()) + 10 * row;
  };
  EXPECT_NE(std::memcmp(behind(copy), behind(cache), row), 0);
}

// What is set aside beyond the rows costs no memory.
TEST(KvCacheMemory, ComesWithTheRows) {
  constexpr int64_t kRows = 20000, kBigHeads = 4, kBigDim = 128;
  KvCache cache(DType::kF32, kBigHeads, kBigDim);
  const std::vector<float> rows(kRows * kBigHeads * kBigDim, 1);
  ThreadPool pool(2);
  cache.Append(rows.data(), rows.data(), kRows, pool);
  cache.Append(rows.data(), rows.data(), 1, pool);
  EXPECT_EQ(cache.head_stride(), 8 * kRows * kBigDim);
  const size_t bytes = kBigHeads * 8 * kRows * kBigDim * sizeof(float);
  std::vector<unsigned char> pages((bytes + 4095) / 4096);
  ASSERT_EQ(mincore(const_cast<void*>(cache.keys()), bytes, pages.data()), 0);
  const auto resident =
      std::count_if(pages.begin(), pages.end(), [](unsigned char p) { return (p & 1) != 0; });
  EXPECT_GE(resident, static_cast<int64_t>(pages.size()) / 8);
  EXPECT_LE(resident, static_cast<int64_t>(pages.size()) * 5 / 32);  // large pages: 2 MiB each
}

INSTANTIATE_TEST_SUITE_P(DTypes, KvCacheTest,
                         testing::Values(DType::kF32, DType::kBF16, DType::kF16),
                         [](const auto& it) { return std::string(ModelDTypeName(it.param)); });

}  // namespace
}  // namespace samebits
