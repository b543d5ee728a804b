// Two checkpoints: which tensors differ, in what, which lie under another name.
#include "samebits/compare/checkpoints.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>
#include <map>

#include "samebits/checkpoint/safetensors_testing.h"
#include "samebits/compare/relations_testing.h"

namespace samebits {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

class CompareCheckpointsTest : public testing::Test {
 protected:
  using Named = std::map<std::string, const Tensor*>;

  std::vector<SafetensorsFile> Files(const Named& tensors) {
    std::vector<TensorSpec> specs;
    for (const auto& [name, tensor] : tensors) {
      specs.push_back({name, tensor->dtype(), tensor->shape(),
                       std::string(reinterpret_cast<const char*>(tensor->data()),
                                   static_cast<size_t>(tensor->view().bytes()))});
    }
    std::stable_sort(specs.begin(), specs.end(), [](const TensorSpec& a, const TensorSpec& b) {
      return DTypeSize(a.dtype) > DTypeSize(b.dtype);
    });
    bytes_.emplace_back(SafetensorsBytes(specs));
    std::vector<SafetensorsFile> files;
    files.push_back(SafetensorsFile::Parse(bytes_.back().span(), "t"));
    return files;
  }

  CheckpointDifference Compare(const Named& a, const Named& b) {
    const std::vector<SafetensorsFile> files_a = Files(a), files_b = Files(b);
    CheckpointOptions options;
    options.head_dim = 4;
    return CompareCheckpoints(files_a, files_b, options);
  }

 private:
  std::deque<AlignedBytes> bytes_;
};

TEST_F(CompareCheckpointsTest, Same) {
  const Tensor x = RandomTensor(DType::kBF16, {8, 6}, 1), y = RandomTensor(DType::kF32, {8}, 2);
  const CheckpointDifference d = Compare({{"x", &x}, {"y", &y}}, {{"x", &x}, {"y", &y}});
  EXPECT_TRUE(d.same());
  ASSERT_EQ(d.tensors.size(), 2U);
  EXPECT_EQ(d.tensors[0].difference, Difference::kNone);
  EXPECT_TRUE(Compare({}, {}).same());
  EXPECT_FALSE(Compare({{"x", &x}}, {}).same());
}

TEST_F(CompareCheckpointsTest, AnyBitIsADifference) {
  const Tensor x = RandomTensor(DType::kBF16, {8, 6}, 1);
  for (int64_t i = 0; i < x.elements(); ++i) {
    Tensor y = Mapped(x, DType::kBF16, [](double v) { return v; });
    y.as<uint16_t>()[i] ^= 1;
    const CheckpointDifference d = Compare({{"x", &x}}, {{"x", &y}});
    EXPECT_FALSE(d.same());
    EXPECT_EQ(d.tensors[0].metrics.differing, 1);
    EXPECT_EQ(d.tensors[0].metrics.first, i);
    EXPECT_EQ(d.tensors[0].metrics.max_ulp, 1);
    EXPECT_THAT(d.tensors[0].relation, IsEmpty());
  }
  // The sign of a zero, the bits of a NaN.
  Tensor zero(DType::kF32, {2}), minus(DType::kF32, {2});
  minus.as<uint32_t>()[1] = 0x80000000U;
  EXPECT_FALSE(Compare({{"x", &zero}}, {{"x", &minus}}).same());
  Tensor nan(DType::kF32, {2}), other(DType::kF32, {2});
  nan.as<uint32_t>()[0] = 0x7fc00000U;
  other.as<uint32_t>()[0] = 0x7fc00001U;
  const CheckpointDifference d = Compare({{"x", &nan}}, {{"x", &other}});
  EXPECT_FALSE(d.same());
  EXPECT_EQ(d.tensors[0].difference, Difference::kValues);
  EXPECT_EQ(d.tensors[0].metrics.differing, 0);
  EXPECT_EQ(d.tensors[0].relation[0].id, "same-numbers");
}

TEST_F(CompareCheckpointsTest, DTypesAndShapes) {
  const Tensor x = RandomTensor(DType::kF32, {8, 6}, 1);
  const Tensor narrow = Mapped(x, DType::kBF16, [](double v) { return v; });
  CheckpointDifference d = Compare({{"x", &x}}, {{"x", &narrow}});
  EXPECT_EQ(d.tensors[0].difference, Difference::kDType);
  EXPECT_EQ(d.tensors[0].relation[0].id, "rounded-to-bfloat16");
  const Tensor turned = Transposed(x);
  d = Compare({{"x", &x}}, {{"x", &turned}});
  EXPECT_EQ(d.tensors[0].difference, Difference::kShape);
  EXPECT_EQ(d.tensors[0].relation[0].id, "transposed");
  EXPECT_EQ(d.tensors[0].metrics.not_comparable, "shape [8, 6] against [6, 8]");
}

TEST_F(CompareCheckpointsTest, SwappedTensors) {
  const Tensor gate = RandomTensor(DType::kBF16, {8, 6}, 1);
  const Tensor up = RandomTensor(DType::kBF16, {8, 6}, 2);
  CheckpointDifference d = Compare({{"gate", &gate}, {"up", &up}}, {{"gate", &up}, {"up", &gate}});
  EXPECT_EQ(d.tensors[0].same_as_a, "up");
  EXPECT_EQ(d.tensors[1].same_as_a, "gate");
  EXPECT_THAT(d.tensors[0].relation, IsEmpty());
  // The second twice: one of them is right.
  d = Compare({{"gate", &gate}, {"up", &up}}, {{"gate", &up}, {"up", &up}});
  EXPECT_EQ(d.tensors[0].same_as_a, "up");
  EXPECT_EQ(d.tensors[1].difference, Difference::kNone);
  // One bit off, or in another shape.
  const Tensor off = OneOff(up);
  EXPECT_EQ(Compare({{"gate", &gate}, {"up", &up}}, {{"gate", &off}}).tensors[0].same_as_a, "");
  const Tensor flat =
      Made(up, DType::kBF16, {48}, [](int64_t i, const std::vector<double>& x) { return x[i]; });
  EXPECT_EQ(Compare({{"gate", &gate}, {"up", &up}}, {{"gate", &flat}}).tensors[0].same_as_a, "");
}

// Large enough that the samples are a part of it: the difference lies between them.
TEST_F(CompareCheckpointsTest, SwappedTensorsAreComparedAsAWhole) {
  const Tensor a = RandomTensor(DType::kF32, {100, 100}, 1);
  const Tensor x = RandomTensor(DType::kF32, {100, 100}, 2);
  Tensor off = Mapped(x, DType::kF32, [](double v) { return v; });
  off.as<uint32_t>()[1000] ^= 1;
  EXPECT_EQ(Compare({{"a", &a}, {"x", &x}}, {{"a", &x}}).tensors[0].same_as_a, "x");
  EXPECT_EQ(Compare({{"a", &a}, {"x", &x}}, {{"a", &off}}).tensors[0].same_as_a, "");
}

TEST_F(CompareCheckpointsTest, NamesOnOneSide) {
  const Tensor x = RandomTensor(DType::kBF16, {8, 6}, 1), y = RandomTensor(DType::kBF16, {8, 6}, 2);
  const Tensor ones = Mapped(x, DType::kBF16, [](double) { return 1; });
  const CheckpointDifference d = Compare({{"x", &x}, {"old", &y}, {"norm", &ones}},
                                         {{"x", &x}, {"new", &y}, {"weight", &ones}});
  EXPECT_FALSE(d.same());
  ASSERT_EQ(d.tensors.size(), 1U);
  ASSERT_EQ(d.only_a.size(), 2U);
  EXPECT_EQ(d.only_a[0].name, "norm");
  EXPECT_EQ(d.only_a[0].same_as, "");  // one value repeated says nothing
  EXPECT_EQ(d.only_a[1].same_as, "new");
  EXPECT_EQ(d.only_b[0].name, "new");
  EXPECT_EQ(d.only_b[0].same_as, "old");
  EXPECT_EQ(d.only_b[0].shape, (Shape{8, 6}));
}

TEST_F(CompareCheckpointsTest, HeadsByTheirDimension) {
  const Tensor x = RandomTensor(DType::kBF16, {12, 6}, 1);
  const Tensor y = RowsTaken(x, {8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3});
  const CheckpointDifference d = Compare({{"x", &x}}, {{"x", &y}});
  ASSERT_EQ(d.tensors[0].relation.size(), 1U);
  EXPECT_EQ(d.tensors[0].relation[0].id, "heads-permuted");
  EXPECT_THAT(d.tensors[0].relation[0].order, ElementsAre(2, 1, 0));
}

TEST_F(CompareCheckpointsTest, Progress) {
  const Tensor x = RandomTensor(DType::kBF16, {8, 6}, 1), y = RandomTensor(DType::kF32, {8}, 2);
  const std::vector<SafetensorsFile> a = Files({{"x", &x}, {"y", &y}}),
                                     b = Files({{"x", &x}, {"y", &y}});
  CheckpointOptions options;
  int64_t last = -1, all = 0;
  options.progress = [&](int64_t done, int64_t total) {
    EXPECT_GE(done, last);
    EXPECT_LE(done, total);
    last = done;
    all = total;
  };
  CompareCheckpoints(a, b, options);
  EXPECT_EQ(last, 8 * 6 * 2 + 8 * 4);
  EXPECT_EQ(all, last);
}

TEST_F(CompareCheckpointsTest, EmptyTensors) {
  const Tensor x(DType::kF32, {0, 4}), y(DType::kF32, {4, 0});
  EXPECT_TRUE(Compare({{"x", &x}}, {{"x", &x}}).same());
  const CheckpointDifference d = Compare({{"x", &x}}, {{"x", &y}});
  EXPECT_EQ(d.tensors[0].difference, Difference::kShape);
  EXPECT_THAT(d.tensors[0].relation, IsEmpty());
}

}  // namespace
}  // namespace samebits
