// For tests only: arrays that end at an unreadable page (so that one byte read or written too far
// ends the program), and the kinds of data that kernels are compared on.
#pragma once

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <random>

#include "samebits/base/error.h"
#include "samebits/kernels/kernels.h"
#include "samebits/tensor/bits_testing.h"
#include "samebits/tensor/convert.h"

namespace samebits {

// n elements, followed by `slack` elements and then by a page that can not be touched. The start
// is aligned to an element and, as sizes vary, to nothing more.
class GuardedArray {
 public:
  GuardedArray(DType dtype, int64_t n, int64_t slack = 0) : dtype_(dtype), size_(n) {
    const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const auto bytes = static_cast<size_t>((n + slack) * DTypeSize(dtype));
    const size_t body = (bytes + page - 1) / page * page;
    mapped_ = body + page;
    base_ = static_cast<std::byte*>(
        mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    SAMEBITS_CHECK(base_ != MAP_FAILED, "mmap");
    SAMEBITS_CHECK(mprotect(base_ + body, page, PROT_NONE) == 0, "mprotect");
    data_ = base_ + body - bytes;
  }
  ~GuardedArray() { munmap(base_, mapped_); }
  GuardedArray(const GuardedArray&) = delete;
  GuardedArray& operator=(const GuardedArray&) = delete;

  std::byte* data() { return data_; }
  const std::byte* data() const { return data_; }
  int64_t size() const { return size_; }
  DType dtype() const { return dtype_; }
  void Fill(std::byte value) {
    std::memset(data_, static_cast<int>(value), static_cast<size_t>(size_ * DTypeSize(dtype_)));
  }
  void CopyFrom(const GuardedArray& other) {
    std::memcpy(data_, other.data_, static_cast<size_t>(size_ * DTypeSize(dtype_)));
  }
  void Set(int64_t i, float value) {
    if (dtype_ == DType::kF32) {
      std::memcpy(data_ + 4 * i, &value, 4);
    } else {
      SetBits(i, dtype_ == DType::kBF16 ? FloatToBF16(value) : FloatToF16(value));
    }
  }
  void SetBits(int64_t i, uint32_t bits) {
    const auto size = static_cast<size_t>(DTypeSize(dtype_));
    std::memcpy(data_ + static_cast<int64_t>(size) * i, &bits, size);  // little endian
  }

 private:
  DType dtype_;
  int64_t size_;
  size_t mapped_ = 0;
  std::byte* base_ = nullptr;
  std::byte* data_ = nullptr;
};

enum class Data {
  kNormal,      // as in models: around 0, magnitude about 1
  kCancelling,  // large terms that cancel, with small ones in between
  kTiny,        // products and sums around the smallest normal number, many denormals
  kAnyFinite,   // every exponent, so that sums overflow, too
  kSpecial,     // some infinities, NaN, -0 and denormals among ordinary values
};
constexpr Data kAllData[] = {Data::kNormal, Data::kCancelling, Data::kTiny, Data::kAnyFinite,
                             Data::kSpecial};

inline void FillData(GuardedArray& array, Data kind, std::mt19937& random) {
  std::normal_distribution<float> normal;
  const bool wide = array.dtype() != DType::kF16;
  const auto any_bits = [&] { return static_cast<uint32_t>(random()); };
  const auto exponent = [&](int low, int high) {
    return std::ldexp(1.0F, std::uniform_int_distribution<int>(low, high)(random));
  };
  for (int64_t i = 0; i < array.size(); ++i) {
    const float value = normal(random);
    switch (kind) {
      case Data::kNormal:
        array.Set(i, value);
        break;
      case Data::kCancelling:
        array.Set(
            i, random() % 3 == 0 ? value * 0x1p-6F : std::copysign(wide ? 0x1p12F : 0x1p5F, value));
        break;
      case Data::kTiny:
        if (random() % 8 == 0) {  // a denormal of the dtype
          const uint32_t sign = random() % 2 << (array.dtype() == DType::kF32 ? 31 : 15);
          const uint32_t mask = array.dtype() == DType::kF32    ? 0x7fffffU
                                : array.dtype() == DType::kBF16 ? 0x7fU
                                                                : 0x3ffU;
          array.SetBits(i, sign | (any_bits() & mask));
        } else {
          array.Set(i, value * (wide ? exponent(-80, -50) : exponent(-20, -8)));
        }
        break;
      case Data::kAnyFinite: {
        uint32_t bits = any_bits();
        if (array.dtype() != DType::kF32) bits &= 0xffffU;
        const uint32_t top = array.dtype() == DType::kF32    ? 0x7f800000U
                             : array.dtype() == DType::kBF16 ? 0x7f80U
                                                             : 0x7c00U;
        if ((bits & top) == top) bits &= ~(top & (top << 1));  // clears the exponent's lowest bit
        array.SetBits(i, bits);
        break;
      }
      case Data::kSpecial: {
        constexpr float kInf = std::numeric_limits<float>::infinity();
        const uint32_t what = random() % 64;
        if (what == 0) {
          array.Set(i, std::copysign(kInf, value));
        } else if (what == 1) {
          array.Set(i, std::numeric_limits<float>::quiet_NaN());
        } else if (what < 8) {
          array.Set(i, std::copysign(0.0F, value));
        } else if (what < 16) {
          array.SetBits(i, 1 + random() % 3);
        } else {
          array.Set(i, value);
        }
        break;
      }
    }
  }
}

// Every instruction set but the interpreter itself; those that this CPU lacks are skipped, by name.
constexpr Isa kFastIsas[] = {Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Bf16};
constexpr DType kModelDTypes[] = {DType::kF32, DType::kBF16, DType::kF16};

class KernelsTest : public testing::TestWithParam<std::tuple<Isa, DType>> {
 protected:
  void SetUp() override {
    if (!IsaSupported(isa())) GTEST_SKIP() << "this CPU has no " << IsaName(isa());
    before_ = ComparedValues();
  }
  void TearDown() override {
    if (IsSkipped()) return;
    fmt::print("compared with the interpreter: {} values\n", ComparedValues() - before_);
  }
  Isa isa() const { return std::get<0>(GetParam()); }
  DType dtype() const { return std::get<1>(GetParam()); }
  const Kernels& kernels() const { return SelectKernels(isa()); }

 private:
  int64_t before_ = 0;
};

inline std::string KernelsTestName(const testing::TestParamInfo<std::tuple<Isa, DType>>& info) {
  return fmt::format("{}_{}", IsaName(std::get<0>(info.param)),
                     ModelDTypeName(std::get<1>(info.param)));
}

}  // namespace samebits
