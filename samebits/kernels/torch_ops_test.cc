// The fast versions of PyTorch's operations against their interpreters, bit for bit: every tail,
// dtype, number of lanes and function of e^x, misaligned, with infinities and denormals.
#include "samebits/kernels/torch_ops.h"

#include <gtest/gtest.h>

#include <limits>
#include <random>

#include "samebits/numerics/element.h"
#include "samebits/tensor/bits_testing.h"

namespace samebits {
namespace {

using torch_math::Exp;

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr DType kDTypes[] = {DType::kF32, DType::kBF16, DType::kF16};
constexpr Exp kExps[] = {Exp::kSleefU10, Exp::kU20, Exp::kFexpU20, Exp::kGlibc, Exp::kGlibcDouble};

const TorchKernels& Fast() { return SelectTorchKernels(BestIsa()); }

// n values of dtype that begin `offset` elements behind an aligned address.
class Values {
 public:
  Values(DType dtype, int64_t n, int64_t offset = 1)
      : dtype_(dtype), n_(n), offset_(offset), bytes_(static_cast<size_t>((n + offset) * 4 + 64)) {}

  Values& Random(std::mt19937* generator, float spread) {
    std::normal_distribution<float> normal(0, spread);
    for (int64_t i = 0; i < n_; ++i) StoreElement(dtype_, data(), i, normal(*generator));
    return *this;
  }
  void Set(int64_t i, float value) { StoreElement(dtype_, data(), i % n_, value); }
  void* data() { return bytes_.data() + offset_ * DTypeSize(dtype_); }

 private:
  DType dtype_;
  int64_t n_, offset_;
  std::vector<std::byte> bytes_;
};

// Squares can not cancel: only with many rows does a sum in another order show in an output.
TEST(TorchKernels, RmsNorm) {
  constexpr int64_t kRows = 60;
  std::mt19937 generator(1);
  for (const DType dtype : kDTypes) {
    for (const int64_t lanes : {8, 16}) {
      for (const int64_t size :
           {1, 7, 8, 9, 31, 32, 33, 64, 100, 575, 576, 896, 2047, 2048, 9000}) {
        const int64_t n = kRows * size;
        Values x(dtype, n), w(dtype, size), expected(dtype, n, 0), y(dtype, n);
        x.Random(&generator, 3);
        w.Random(&generator, 1);
        x.Set(size, 1e-40F);  // and a row with a denormal
        const SumFunction function{lanes, {}};
        RmsNormArgs args{dtype, dtype, x.data(), w.data(), expected.data(), kRows, size, 1e-6F};
        torch_ops::RmsNorm(function, args, 0, kRows);
        args.y = y.data();
        Fast().rms_norm(function, args, 0, 2);
        Fast().rms_norm(function, args, 2, kRows);
        ASSERT_BITS_EQ(dtype, expected.data(), y.data(), n) << size;
      }
    }
  }
}

TEST(TorchKernels, Silu) {
  std::mt19937 generator(2);
  for (const DType dtype : kDTypes) {
    for (const auto& [numel, threads] :
         {std::pair{1, 1}, {40, 2}, {257, 1}, {40010, 2}, {33001, 3}}) {
      Values x(dtype, numel), expected(dtype, numel, 0), y(dtype, numel);
      x.Random(&generator, 30);
      const float special[] = {kInf, -kInf, 0.0F, -0.0F, 1e-40F, -88.0F, -104.5F, 60000.0F};
      for (int64_t i = 0; i < 8; ++i) x.Set(3 + 5 * i, special[i]);
      for (const Exp exp : {Exp::kSleefU10, Exp::kGlibc}) {
        for (const int64_t block : {1, 16, 32}) {
          const SiluFunction function{exp, Exp::kFexpU20, block, 32768, {}};
          torch_ops::Silu(function, dtype, x.data(), expected.data(), 0, numel, numel, threads);
          for (int64_t begin = 0; begin < numel; begin += 7001) {
            const int64_t end = std::min<int64_t>(begin + 7001, numel);
            Fast().silu(function, dtype, x.data(), y.data(), begin, end, numel, threads);
          }
          ASSERT_BITS_EQ(dtype, expected.data(), y.data(), numel) << numel << " " << block;
        }
      }
    }
  }
}

TEST(TorchKernels, MultiplyByNumber) {
  std::mt19937 generator(3);
  for (const DType dtype : kDTypes) {
    for (int64_t n = 1; n < 40; ++n) {
      Values x(dtype, n), expected(dtype, n, 0), y(dtype, n);
      x.Random(&generator, 1000);
      torch_ops::MultiplyByNumber(dtype, x.data(), 0.0883883476483184, expected.data(), n);
      Fast().multiply_by_number(dtype, x.data(), 0.0883883476483184, y.data(), n);
      ASSERT_BITS_EQ(dtype, expected.data(), y.data(), n);
    }
  }
}

TEST(TorchKernels, MaskedSoftmaxRow) {
  std::mt19937 generator(4);
  for (const DType dtype : kDTypes) {
    for (const int64_t lanes : {4, 8, 16}) {
      for (const Exp exp : kExps) {
        for (const int64_t n : {1, 2, 7, 8, 9, 15, 16, 17, 24, 31, 33, 40, 70, 129}) {
          Values x(dtype, n), expected(dtype, n, 0), y(dtype, n);
          x.Random(&generator, 20);
          std::vector<uint8_t> keep(static_cast<size_t>(n));
          for (auto& k : keep) k = static_cast<uint8_t>(generator() % 3 != 0);
          if (n == 40) std::fill(keep.begin(), keep.end(), uint8_t{0});  // nothing is visible
          std::vector<float> wide(static_cast<size_t>(n));
          const SoftmaxFunction function{lanes, exp, {}};
          torch_ops::MaskedSoftmaxRow(function, dtype, x.data(), keep.data(), expected.data(),
                                      wide.data(), n);
          Fast().masked_softmax_row(function, dtype, x.data(), keep.data(), y.data(), wide.data(),
                                    n);
          ASSERT_BITS_EQ(dtype, expected.data(), y.data(), n) << n << " " << lanes;
        }
      }
    }
  }
}

TEST(TorchKernels, FlashRowScales) {
  std::mt19937 generator(5);
  const FlashRow &scalar = kScalarFlashRow, &fast = Fast().flash_row;
  for (const DType dtype : kDTypes) {
    for (int64_t n = 1; n < 40; ++n) {
      Values a(DType::kF32, n), b(DType::kF32, n);
      a.Random(&generator, 5);
      if (n % 3 == 0) a.Set(n / 2, -kInf);
      std::memcpy(b.data(), a.data(), static_cast<size_t>(n * 4));
      std::vector<uint8_t> mask(static_cast<size_t>(n));
      for (auto& m : mask) m = static_cast<uint8_t>(n == 17 ? 0 : generator() % 2);
      const uint8_t* keep = n % 2 == 0 ? nullptr : mask.data();
      auto *x = static_cast<float*>(a.data()), *y = static_cast<float*>(b.data());
      const float max = scalar.scale_and_max(x, keep, 0.171F, n);
      EXPECT_EQ(max, fast.scale_and_max(y, keep, 0.171F, n));
      ASSERT_BITS_EQ(DType::kF32, x, y, n);
      scalar.rescale(x, 0.37F, n);
      fast.rescale(y, 0.37F, n);
      ASSERT_BITS_EQ(DType::kF32, x, y, n);
      Values expected(dtype, n, 0), out(dtype, n);
      scalar.finish(dtype, x, 1.3F, expected.data(), n);
      fast.finish(dtype, y, 1.3F, out.data(), n);
      ASSERT_BITS_EQ(dtype, expected.data(), out.data(), n);
    }
  }
}

TEST(TorchKernels, FlashRowExpAndSum) {
  std::mt19937 generator(6);
  SdpaFunction function;
  for (const DType dtype : kDTypes) {
    for (const Exp exp : kExps) {
      for (const int64_t lanes : {4, 8, 16}) {
        for (const int64_t sums : {1, 2}) {
          function.exp = exp, function.lanes = lanes, function.sums = sums;
          for (int64_t n = 1; n < 140; n += n < 70 ? 1 : 13) {
            Values a(DType::kF32, n);
            a.Random(&generator, n % 2 == 0 ? 3.0F : 60.0F);
            auto* x = static_cast<float*>(a.data());
            if (n % 4 == 0) x[n / 3] = -kInf;
            const float max = *std::max_element(x, x + n);
            Values expected(dtype, n, 0), p(dtype, n);
            const float sum =
                kScalarFlashRow.exp_and_sum(function, dtype, x, max, expected.data(), n);
            const float fast = Fast().flash_row.exp_and_sum(function, dtype, x, max, p.data(), n);
            ASSERT_BITS_EQ({sum}, {fast}) << n;
            ASSERT_BITS_EQ(dtype, expected.data(), p.data(), n) << n;
          }
        }
      }
    }
  }
}

// The vector functions for many arguments: what a row of softmax and of flash evaluates.
TEST(TorchKernels, ExpForManyArguments) {
  SdpaFunction function;
  constexpr int64_t kCount = 4096;
  std::vector<float> x(kCount), expected(kCount), p(kCount);
  for (const Exp exp : {Exp::kU20, Exp::kFexpU20}) {
    function.exp = exp;
    for (uint32_t start = 0x80000000U; start < 0xc3000000U; start += 0x00310007U) {
      for (uint32_t i = 0; i < kCount; ++i) x[i] = std::bit_cast<float>(start + 731 * i);
      kScalarFlashRow.exp_and_sum(function, DType::kF32, x.data(), 0, expected.data(), kCount);
      Fast().flash_row.exp_and_sum(function, DType::kF32, x.data(), 0, p.data(), kCount);
      ASSERT_BITS_EQ(expected, p) << start;
    }
  }
}

TEST(TorchKernels, PortableIsTheInterpreter) {
  EXPECT_EQ(SelectTorchKernels(Isa::kPortable).rms_norm, &torch_ops::RmsNorm);
  EXPECT_EQ(SelectTorchKernels(Isa::kPortable).flash_row.exp_and_sum, kScalarFlashRow.exp_and_sum);
}

}  // namespace
}  // namespace samebits
