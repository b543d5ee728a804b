// PyTorch's operations against what PyTorch gave (tests/fixtures/torch_ops, recorded on a machine
// whose kernels have 8 lanes), and what must hold for any number of lanes.
#include "samebits/numerics/torch_ops.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "samebits/base/errors_testing.h"
#include "samebits/numerics/torch_flash.h"
#include "samebits/tensor/bits_testing.h"

namespace samebits {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

const Json& Cases() {
  static const Json cases = [] {
    const std::string path = SAMEBITS_SOURCE_DIR "/tests/fixtures/torch_ops/cases-8.json";
    return ParseJson(ReadTextFile(path, 1 << 24), path);
  }();
  return cases;
}

std::vector<float> Floats(const Json& bits) {
  std::vector<float> values;
  for (const Json& b : bits) values.push_back(std::bit_cast<float>(b.get<uint32_t>()));
  return values;
}

// The bytes of a tensor of dtype.
std::vector<std::byte> Bytes(DType dtype, const Json& bits) {
  const auto size = static_cast<size_t>(DTypeSize(dtype));
  std::vector<std::byte> bytes(bits.size() * size);
  for (size_t i = 0; i < bits.size(); ++i) {
    const auto value = bits[i].get<uint32_t>();
    std::memcpy(bytes.data() + i * size, &value, size);
  }
  return bytes;
}

DType CaseDType(const Json& json) {
  return ModelDTypeFromName(json["dtype"].get<std::string>()).value();
}

TEST(TorchOps, SumAsRecorded) {
  for (const Json& c : Cases()["sum"]) {
    const std::vector<float> x = Floats(c["x"]);
    const auto n = static_cast<int64_t>(x.size());
    EXPECT_BITS_EQ(Floats(c["y"]), {torch_ops::CascadeSum({}, x.data(), n)}) << n;
  }
}

TEST(TorchOps, SoftmaxAsRecorded) {
  for (const Json& c : Cases()["softmax"]) {
    std::vector<float> x = Floats(c["x"]);
    torch_ops::SoftmaxRow({}, x.data(), x.data(), static_cast<int64_t>(x.size()));
    EXPECT_BITS_EQ(Floats(c["y"]), x) << x.size();
  }
}

TEST(TorchOps, SiluAsRecorded) {
  for (const Json& c : Cases()["silu"]) {
    const DType dtype = CaseDType(c);
    const std::vector<std::byte> x = Bytes(dtype, c["x"]), expected = Bytes(dtype, c["y"]);
    std::vector<std::byte> y(x.size());
    const auto n = static_cast<int64_t>(c["x"].size());
    SiluFunction function;
    function.block = dtype == DType::kF32 ? 16 : 32;
    torch_ops::Silu(function, dtype, x.data(), y.data(), 0, n, n, 1);
    EXPECT_BITS_EQ(dtype, expected.data(), y.data(), n) << n;
  }
}

TEST(TorchOps, RmsNormAsRecorded) {
  for (const Json& c : Cases()["rms_norm"]) {
    const DType dtype = CaseDType(c);
    const auto size = c["size"].get<int64_t>();
    const std::vector<std::byte> x = Bytes(dtype, c["x"]), w = Bytes(dtype, c["w"]);
    std::vector<std::byte> y(x.size());
    torch_ops::RmsNorm({}, {dtype, dtype, x.data(), w.data(), y.data(), 2, size, 1e-6F}, 0, 2);
    EXPECT_BITS_EQ(dtype, Bytes(dtype, c["y"]).data(), y.data(), 2 * size);
  }
}

float Widen(DType dtype, const void* data, int64_t i) {
  const uint32_t bits = BitsAt(dtype, data, i);
  if (dtype == DType::kF32) return std::bit_cast<float>(bits);
  const auto half = static_cast<uint16_t>(bits);
  return dtype == DType::kBF16 ? BF16ToFloat(half) : F16ToFloat(half);
}

// Plain loops: in the recorded cases both products are exact.
class ExactProducts : public FlashProducts {
 public:
  void Scores(const FlashBlock& b, float* qk) override {
    for (int64_t r = 0; r < b.rows; ++r) {
      for (int64_t j = 0; j < b.keys; ++j) {
        float sum = 0;
        for (int64_t d = 0; d < b.head_dim; ++d) {
          sum += Widen(b.dtype, b.q, r * b.q_row_stride + d) *
                 Widen(b.dtype, b.k, j * b.k_row_stride + d);
        }
        qk[r * b.keys + j] = sum;
      }
    }
  }
  void Context(const FlashBlock& b, const void* p, bool accumulate, float* context) override {
    for (int64_t r = 0; r < b.rows; ++r) {
      for (int64_t d = 0; d < b.head_dim; ++d) {
        float sum = accumulate ? context[r * b.head_dim + d] : 0.0F;
        for (int64_t j = 0; j < b.keys; ++j) {
          sum += Widen(b.dtype, p, r * b.keys + j) * Widen(b.dtype, b.v, j * b.v_row_stride + d);
        }
        context[r * b.head_dim + d] = sum;
      }
    }
  }
};

SdpaFunction RecordedSdpa(DType dtype) {
  SdpaFunction function;
  if (dtype != DType::kF32) {
    function.exp = torch_math::Exp::kFexpU20;
    function.sums = 2;
  }
  return function;
}

// A recorded case of one head.
struct FlashCase {
  DType dtype;
  std::vector<std::byte> q, k, v, expected;
  std::vector<uint8_t> mask;
  FlashArgs args = {};

  explicit FlashCase(const Json& c) : dtype(CaseDType(c)) {
    args.dtype = dtype;
    args.q_len = c["q_len"], args.kv_len = c["kv_len"], args.head_dim = c["head_dim"];
    q = FromIntegers(c["q"]);
    k = FromIntegers(c["k"]);
    Json ones = Json::array();
    for (int64_t i = 0; i < args.kv_len * args.head_dim; ++i) ones.push_back(0);
    for (size_t d = 0; d < c["v_rows"].size(); ++d) {
      ones[c["v_rows"][d].get<size_t>() * c["v_rows"].size() + d] = 1;
    }
    v = FromIntegers(ones);
    expected = Bytes(dtype, c["out"]);
    args.batch = args.heads = args.kv_heads = 1;
    args.q_strides = args.k_strides = args.v_strides = args.out_strides = {0, 0, args.head_dim};
    args.q = q.data(), args.k = k.data(), args.v = v.data();
    args.scale = c["scale"].get<float>();
    args.is_causal = c["causal"];
    for (const Json& keep : c["mask"]) mask.push_back(keep.get<uint8_t>());
    if (!mask.empty()) args.mask = mask.data(), args.mask_row_stride = args.kv_len;
  }

  std::vector<std::byte> FromIntegers(const Json& integers) const {
    std::vector<std::byte> bytes(integers.size() * static_cast<size_t>(DTypeSize(dtype)));
    for (size_t i = 0; i < integers.size(); ++i) {
      const auto value = integers[i].get<float>();
      const uint32_t bits = dtype == DType::kF32    ? std::bit_cast<uint32_t>(value)
                            : dtype == DType::kBF16 ? FloatToBF16(value)
                                                    : FloatToF16(value);
      std::memcpy(bytes.data() + i * static_cast<size_t>(DTypeSize(dtype)), &bits,
                  static_cast<size_t>(DTypeSize(dtype)));
    }
    return bytes;
  }

  std::vector<std::byte> Run(const SdpaFunction& function) {
    std::vector<std::byte> out(expected.size());
    args.out = out.data();
    ExactProducts products;
    FlashScratch scratch;
    const FlashPlan plan = PlanFlash(function, args);
    for (int64_t i = 0; i < plan.items; ++i) {
      FlashWorkItem(function, args, plan, i, products, scratch);
    }
    return out;
  }
};

TEST(TorchOps, FlashAsRecorded) {
  for (const Json& json : Cases()["flash"]) {
    FlashCase c(json);
    const std::vector<std::byte> out = c.Run(RecordedSdpa(c.dtype));
    EXPECT_BITS_EQ(c.dtype, c.expected.data(), out.data(), c.args.q_len * c.args.head_dim)
        << json["dtype"] << " q_len " << c.args.q_len << " kv_len " << c.args.kv_len;
  }
}

// The recorded cases tell the parameters apart: any other gives other bits somewhere.
TEST(TorchOps, FlashCasesSeeEveryParameter) {
  const auto differs = [](const auto& change) {
    for (const Json& json : Cases()["flash"]) {
      FlashCase c(json);
      SdpaFunction function = RecordedSdpa(c.dtype);
      change(&function);
      if (c.Run(function) != c.expected) return true;
    }
    return false;
  };
  using torch_math::Exp;
  EXPECT_FALSE(differs([](SdpaFunction*) {}));
  EXPECT_TRUE(differs([](SdpaFunction* f) { f->lanes = 16; }));
  EXPECT_TRUE(differs([](SdpaFunction* f) { f->sums = 3 - f->sums; }));
  EXPECT_TRUE(differs([](SdpaFunction* f) { f->exp = Exp::kSleefU10; }));
  EXPECT_TRUE(differs([](SdpaFunction* f) { f->tail_exp = Exp::kU20; }));
  EXPECT_TRUE(differs([](SdpaFunction* f) { f->rescale_exp = Exp::kU20; }));
  EXPECT_TRUE(differs([](SdpaFunction* f) { f->kv_split = 256; }));
}

TEST(TorchOps, SumOfSmallIntegersIsExactForAllLanesAndSizes) {
  std::vector<float> x(70000);
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 7) - 3;
  for (const int64_t lanes : {1, 4, 8, 16, 32}) {
    for (const int64_t n : {0, 1, 7, 8, 15, 16, 31, 100, 4096, 8191, 8193, 65536, 70000}) {
      SumFunction function;
      function.lanes = lanes;
      double exact = 0;
      for (int64_t i = 0; i < n; ++i) exact += x[static_cast<size_t>(i)];
      EXPECT_EQ(torch_ops::CascadeSum(function, x.data(), n), static_cast<float>(exact))
          << lanes << " lanes, " << n;
    }
  }
}

TEST(TorchOps, SoftmaxSumsInLanes) {
  // 1 + 16 values of 2^-25: one lane holds the 1 and swallows what comes into it.
  for (const int64_t lanes : {8, 16}) {
    SoftmaxFunction function;
    function.lanes = lanes;
    std::vector<float> x(static_cast<size_t>(2 * lanes), -25 * 0.693147182464599609F);
    x[0] = 0;
    std::vector<float> y(x.size());
    torch_ops::SoftmaxRow(function, x.data(), y.data(), 2 * lanes);
    const float e = torch_math::ExpSleefU10(x[1]);
    float rest = e + e;  // every lane but the first, and the tree
    float sum = 1;
    for (int64_t d = lanes / 2; d > 0; d /= 2) {
      // the first lane meets lane d, which holds 2 e times the number of lanes folded into it
      sum += rest;
      rest += rest;
    }
    EXPECT_EQ(y[0], 1.0F / sum) << lanes;
  }
}

TEST(TorchOps, SiluPartsAreThoseOfTheThreads) {
  const SiluFunction function;
  EXPECT_EQ(torch_ops::SiluPartSize(function, 32768, 2), 32768);
  EXPECT_EQ(torch_ops::SiluPartSize(function, 32769, 1), 32769);
  EXPECT_EQ(torch_ops::SiluPartSize(function, 32769, 2), 16385);
  EXPECT_EQ(torch_ops::SiluPartSize(function, 40000, 64), 20000);
  EXPECT_EQ(torch_ops::SiluPartSize(function, 1000000, 4), 250000);
}

// A tail function that differs on sight shows which elements are a tail.
TEST(TorchOps, SiluTailsFollowThePartsAndRangesDoNotMatter) {
  SiluFunction function;
  function.tail_exp = torch_math::Exp::kFexpU20;
  const int64_t n = 40010, part = 20005;
  std::vector<float> x(static_cast<size_t>(n), 1.5F), y(x.size());
  for (int64_t begin = 0; begin < n; begin += 999) {
    torch_ops::Silu(function, DType::kF32, x.data(), y.data(), begin, std::min(begin + 999, n), n,
                    2);
  }
  const float body = 1.5F / (1 + torch_math::ExpSleefU10(-1.5F));
  const float tail = 1.5F / (1 + torch_math::FexpU20(-1.5F));
  ASSERT_NE(body, tail);
  for (int64_t i = 0; i < n; ++i) {
    const bool in_tail = i % part >= part / 16 * 16;
    ASSERT_EQ(y[static_cast<size_t>(i)], in_tail ? tail : body) << i;
  }
}

TEST(TorchOps, RotaryMovesByUlps) {
  RotaryFunction function;
  function.inv_freq = {1.0F, 0.01F};
  function.positions = 3;
  function.cos = {{0, 0, -1}, {2, 1, 2}};
  function.sin = {{0, 1, -3}, {2, 0, 1}};
  const int64_t positions[2] = {2, 0};
  std::vector<float> cos(8), sin(8);
  torch_ops::Rotary(function,
                    {DType::kF32, positions, nullptr, 0, 1.0F, cos.data(), sin.data(), 2, 4}, 0, 2);
  const auto up = [](float v, int steps) {
    for (; steps > 0; --steps) v = std::nextafter(v, kInf);
    for (; steps < 0; ++steps) v = std::nextafter(v, -kInf);
    return v;
  };
  const float c20 = torch_math::CosRounded(2), c21 = up(torch_math::CosRounded(0.02F), 2);
  const float s20 = up(torch_math::SinRounded(2), 1), s21 = torch_math::SinRounded(0.02F);
  EXPECT_BITS_EQ({c20, c21, c20, c21, up(1, -1), 1, up(1, -1), 1}, cos);
  EXPECT_BITS_EQ({s20, s21, s20, s21, 0, up(0, -3), 0, up(0, -3)}, sin);
  const int64_t beyond = 3;
  EXPECT_THAT(ErrorOf(ErrorCode::kUnsupported,
                      [&] {
                        torch_ops::Rotary(
                            function,
                            {DType::kF32, &beyond, nullptr, 0, 1.0F, cos.data(), sin.data(), 1, 4},
                            0, 1);
                      }),
              testing::HasSubstr("position 3"));
}

}  // namespace
}  // namespace samebits
