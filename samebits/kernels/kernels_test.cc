// The other fast kernels against the interpreter, bit for bit: norm, rope, attention, elementwise.
#include <gtest/gtest.h>

#include "samebits/kernels/kernels_testing.h"
#include "samebits/numerics/canonical.h"
#include "samebits/numerics/rope.h"

namespace samebits {
namespace {

TEST_P(KernelsTest, RmsNorm) {
  std::mt19937 random(2);
  for (DType weight_dtype : kModelDTypes) {
    for (int64_t size : {1, 2, 15, 16, 17, 31, 33, 64, 100, 896, 1537}) {
      for (Data data : kAllData) {
        constexpr int64_t kRows = 3;
        GuardedArray x(dtype(), kRows * size, size % 3), w(weight_dtype, size, size % 2);
        GuardedArray expected(dtype(), kRows * size), actual(dtype(), kRows * size);
        FillData(x, data, random);
        FillData(w, data, random);
        RmsNormArgs args = {dtype(),         weight_dtype, x.data(), w.data(),
                            expected.data(), kRows,        size,     1e-6F};
        canonical::RmsNorm(args, 0, kRows);
        args.y = actual.data();
        kernels().rms_norm(args, 0, 1);
        kernels().rms_norm(args, 1, kRows);
        EXPECT_BITS_EQ(dtype(), expected.data(), actual.data(), expected.size())
            << size << " weights " << DTypeName(weight_dtype) << " data " << static_cast<int>(data);
      }
    }
  }
}

TEST_P(KernelsTest, RotaryAndRope) {
  std::mt19937 random(3);
  const int64_t positions[] = {0, 1, 2, 77, 32767, 1 << 20};
  constexpr int64_t kRows = 6;
  for (int64_t head_dim : {2, 8, 30, 32, 64, 80, 128}) {
    GuardedArray cos(dtype(), kRows * head_dim), sin(dtype(), kRows * head_dim);
    GuardedArray cos2(dtype(), kRows * head_dim), sin2(dtype(), kRows * head_dim);
    const std::vector<float> inv_freq = InverseFrequencies({.theta = 1e6}, head_dim, kRows);
    const RotaryArgs rotary = {dtype(),    positions,  inv_freq.data(), 0,       1,
                               cos.data(), sin.data(), kRows,           head_dim};
    RotaryArgs rotary2 = rotary;
    rotary2.cos = cos2.data();
    rotary2.sin = sin2.data();
    canonical::Rotary(rotary, 0, kRows);
    kernels().rotary(rotary2, 0, 2);
    kernels().rotary(rotary2, 2, kRows);
    EXPECT_BITS_EQ(dtype(), cos.data(), cos2.data(), cos.size());
    EXPECT_BITS_EQ(dtype(), sin.data(), sin2.data(), sin.size());
    for (Data data : kAllData) {
      for (int64_t heads : {1, 3}) {
        GuardedArray x(dtype(), kRows * heads * head_dim, heads);
        GuardedArray expected(dtype(), x.size()), actual(dtype(), x.size());
        FillData(x, data, random);
        if (data != Data::kNormal) FillData(cos, data, random);
        RopeArgs args = {dtype(),         x.data(), cos.data(), sin.data(),
                         expected.data(), kRows,    heads,      head_dim};
        canonical::Rope(args, 0, kRows);
        args.y = actual.data();
        kernels().rope(args, 0, 4);
        kernels().rope(args, 4, kRows);
        EXPECT_BITS_EQ(dtype(), expected.data(), actual.data(), expected.size())
            << "head_dim " << head_dim << " data " << static_cast<int>(data);
      }
    }
  }
}

struct AttentionCase {
  int64_t rows, heads, kv_heads, head_dim, first_key_count;
  bool keys_of_a_head_adjoin;  // [kv head, key, head_dim], or else [key, kv head, head_dim]
  Data data;
  int64_t window = 0;
};

class AttentionTest : public KernelsTest {
 protected:
  struct Outputs {
    GuardedArray context, scores, probs;
    Outputs(DType dtype, const AttentionCase& c)
        : context(dtype, c.rows * c.heads * c.head_dim),
          scores(dtype, c.heads * c.rows * (c.first_key_count + c.rows - 1)),
          probs(dtype, c.heads * c.rows * (c.first_key_count + c.rows - 1)) {
      for (GuardedArray* a : {&context, &scores, &probs}) a->Fill(std::byte{0xa5});
    }
  };

  AttentionArgs Args(const AttentionCase& c, const GuardedArray& q, const GuardedArray& k,
                     const GuardedArray& v, Outputs& out, bool record) const {
    const int64_t keys = c.first_key_count + c.rows - 1;
    AttentionArgs args = {};
    args.dtype = dtype();
    args.q = q.data();
    args.k = k.data();
    args.v = v.data();
    args.kv_head_stride = c.keys_of_a_head_adjoin ? keys * c.head_dim : c.head_dim;
    args.kv_row_stride = c.keys_of_a_head_adjoin ? c.head_dim : c.kv_heads * c.head_dim;
    args.context = out.context.data();
    args.scores = record ? out.scores.data() : nullptr;
    args.probs = record ? out.probs.data() : nullptr;
    args.rows = c.rows;
    args.heads = c.heads;
    args.kv_heads = c.kv_heads;
    args.head_dim = c.head_dim;
    args.first_key_count = c.first_key_count;
    args.scale = 1.0F / std::sqrt(static_cast<float>(c.head_dim));
    args.window = c.window;
    return args;
  }

  void Compare(const AttentionCase& c) {
    const int64_t keys = c.first_key_count + c.rows - 1;
    GuardedArray q(dtype(), c.rows * c.heads * c.head_dim, c.rows % 2);
    GuardedArray k(dtype(), c.kv_heads * keys * c.head_dim, c.head_dim % 3);
    GuardedArray v(dtype(), c.kv_heads * keys * c.head_dim, c.head_dim % 2);
    for (GuardedArray* a : {&q, &k, &v}) FillData(*a, c.data, random_);
    Outputs expected(dtype(), c), actual(dtype(), c), unrecorded(dtype(), c);
    canonical::Attention(Args(c, q, k, v, expected, true), 0, c.heads, 0, c.rows);
    // In pieces, as threads would do it.
    const AttentionArgs args = Args(c, q, k, v, actual, true);
    const int64_t middle = c.rows / 2;
    for (int64_t head = 0; head < c.heads; ++head) {
      kernels().attention(args, head, head + 1, 0, middle);
      kernels().attention(args, head, head + 1, middle, c.rows);
    }
    kernels().attention(Args(c, q, k, v, unrecorded, false), 0, c.heads, 0, c.rows);
    const std::string what =
        fmt::format("rows {} heads {}/{} head_dim {} first keys {} adjoin {} data {} window {}",
                    c.rows, c.heads, c.kv_heads, c.head_dim, c.first_key_count,
                    c.keys_of_a_head_adjoin, static_cast<int>(c.data), c.window);
    const auto compare = [&](const GuardedArray& e, const GuardedArray& a, const char* name) {
      EXPECT_BITS_EQ(dtype(), e.data(), a.data(), e.size()) << name << " of " << what;
    };
    compare(expected.scores, actual.scores, "scores");
    compare(expected.probs, actual.probs, "probs");
    compare(expected.context, actual.context, "context");
    compare(expected.context, unrecorded.context, "context, nothing recorded,");
  }

  std::mt19937 random_{4};
};

TEST_P(AttentionTest, EveryTail) {
  for (int64_t head_dim : {2, 14, 16, 32, 34, 64, 80, 128}) {
    for (int64_t first : {1, 2, 3, 15, 16, 17, 32, 41}) {
      for (Data data : kAllData) {
        Compare({1 + (first + head_dim / 2) % 4, 4, 2, head_dim, first, first % 2 == 0, data});
      }
    }
  }
}

TEST_P(AttentionTest, GroupsOfHeads) {
  for (int64_t kv_heads : {1, 2, 7, 14}) {
    Compare({3, 14, kv_heads, 32, 5, true, Data::kNormal});
    Compare({3, 14, kv_heads, 32, 5, false, Data::kNormal});
  }
}

// So many that keys and values are laid out for them: tiles of one row and of several, queries that
// are left over, keys that end anywhere in a block.
TEST_P(AttentionTest, ManyQueries) {
  for (int64_t head_dim : {2, 14, 32, 34, 64, 80, 128, 160, 256}) {
    for (int64_t first : {1, 2, 30, 33, 63}) {
      const int64_t group = 1 + (head_dim / 2 + first) % 7, rows = 24 / group + 3;
      for (Data data : kAllData) {
        Compare({rows, 2 * group, 2, head_dim, first, first % 2 == 0, data});
      }
      for (int64_t window : {5, 32, 47}) {
        Compare({rows, group, 1, head_dim, first, first % 2 == 0, Data::kSpecial, window});
      }
    }
  }
  Compare({40, 7, 1, 64, 300, false, Data::kCancelling});
}

TEST_P(AttentionTest, LongCache) {
  Compare({1, 2, 1, 128, 3001, true, Data::kNormal});
  Compare({5, 2, 1, 64, 1000, false, Data::kCancelling});
}

// Windows shorter and longer than the rows, that begin and end anywhere in lanes and in pairs, for
// tiles of one row and of several.
TEST_P(AttentionTest, Windows) {
  for (int64_t window : {1, 2, 3, 5, 15, 16, 17, 33, 100}) {
    for (int64_t first : {1, 7, 16, 33, 40, 131}) {
      for (int64_t heads : {2, 3, 7, 9}) {
        const int64_t kv_heads = heads == 2 ? 2 : 1, rows = 1 + (first + window + heads) % 11;
        const int64_t head_dim = heads == 3 ? 34 : heads == 7 ? 80 : 16;
        constexpr Data kData[] = {Data::kNormal, Data::kCancelling, Data::kSpecial};
        const Data data = kData[(first + window + heads) % 3];
        Compare({rows, heads, kv_heads, head_dim, first, first % 2 == 0, data, window});
      }
    }
  }
  Compare({5, 6, 2, 64, 1500, true, Data::kNormal, 1024});
}

// A window that hides nothing is no window.
TEST_P(AttentionTest, WindowAsLongAsTheText) {
  const AttentionCase c = {4, 2, 1, 48, 6, true, Data::kNormal};
  const int64_t keys = c.first_key_count + c.rows - 1;
  GuardedArray q(dtype(), c.rows * c.heads * c.head_dim), k(dtype(), keys * c.head_dim);
  GuardedArray v(dtype(), keys * c.head_dim);
  for (GuardedArray* a : {&q, &k, &v}) FillData(*a, c.data, random_);
  Outputs none(dtype(), c), equal(dtype(), c), shorter(dtype(), c);
  AttentionArgs args = Args(c, q, k, v, none, false);
  kernels().attention(args, 0, c.heads, 0, c.rows);
  args.context = equal.context.data();
  args.window = keys;
  kernels().attention(args, 0, c.heads, 0, c.rows);
  EXPECT_BITS_EQ(dtype(), none.context.data(), equal.context.data(), none.context.size());
  args.context = shorter.context.data();
  args.window = keys - 1;
  kernels().attention(args, 0, c.heads, 0, c.rows);
  EXPECT_FALSE(
      BitsEqual(dtype(), none.context.data(), shorter.context.data(), none.context.size()));
}

// What a mask hides may be anything: it must not be touched.
TEST_P(AttentionTest, HiddenKeysAreNotUsed) {
  const AttentionCase c = {4, 2, 1, 48, 6, true, Data::kNormal};
  const int64_t keys = c.first_key_count + c.rows - 1;
  GuardedArray q(dtype(), c.rows * c.heads * c.head_dim), k(dtype(), keys * c.head_dim);
  GuardedArray v(dtype(), keys * c.head_dim);
  for (GuardedArray* a : {&q, &k, &v}) FillData(*a, c.data, random_);
  Outputs before(dtype(), c), after(dtype(), c);
  kernels().attention(Args(c, q, k, v, before, false), 0, c.heads, 0, c.rows);
  for (int64_t i = c.first_key_count * c.head_dim; i < keys * c.head_dim; ++i) {
    k.Set(i, std::numeric_limits<float>::quiet_NaN());
    v.Set(i, std::numeric_limits<float>::infinity());
  }
  kernels().attention(Args(c, q, k, v, after, false), 0, c.heads, 0, c.rows);
  const int64_t row = c.heads * c.head_dim;  // the first row sees none of the changed keys
  EXPECT_BITS_EQ(dtype(), before.context.data(), after.context.data(), row);
  EXPECT_FALSE(BitsEqual(dtype(), before.context.data() + row * DTypeSize(dtype()),
                         after.context.data() + row * DTypeSize(dtype()), row));
}

TEST_P(KernelsTest, Elementwise) {
  std::mt19937 random(5);
  using Binary = void (*)(DType, const void*, const void*, void*, int64_t);
  const std::pair<Binary, Binary> pairs[] = {{&canonical::Add, kernels().add},
                                             {&canonical::Multiply, kernels().multiply}};
  for (int64_t n : {0, 1, 2, 15, 16, 17, 31, 33, 64, 1000}) {
    for (Data data : kAllData) {
      GuardedArray a(dtype(), n, n % 3), b(dtype(), n, n % 2), expected(dtype(), n);
      FillData(a, data, random);
      FillData(b, data, random);
      for (const auto& [interpreter, kernel] : pairs) {
        interpreter(dtype(), a.data(), b.data(), expected.data(), n);
        GuardedArray actual(dtype(), n, n % 2);
        kernel(dtype(), a.data(), b.data(), actual.data(), n);
        EXPECT_BITS_EQ(dtype(), expected.data(), actual.data(), n);
        for (const GuardedArray* input : {&a, &b}) {  // in place
          actual.CopyFrom(*input);
          kernel(dtype(), input == &a ? actual.data() : a.data(),
                 input == &b ? actual.data() : b.data(), actual.data(), n);
          EXPECT_BITS_EQ(dtype(), expected.data(), actual.data(), n);
        }
      }
    }
  }
}

// All 65536 values of the 16-bit dtypes; in float32 every 1021st of the 2^32.
TEST_P(KernelsTest, SiluOnAllValues) {
  const int64_t all = dtype() == DType::kF32 ? (int64_t{1} << 32) / 1021 : 1 << 16;
  constexpr int64_t kPiece = 1 << 16;
  for (int64_t first = 0; first < all; first += kPiece) {
    const int64_t n = std::min(kPiece, all - first);
    GuardedArray x(dtype(), n), expected(dtype(), n), actual(dtype(), n);
    for (int64_t i = 0; i < n; ++i) {
      const int64_t at = first + i;
      x.SetBits(i, static_cast<uint32_t>(dtype() == DType::kF32 ? at * 1021 : at));
    }
    canonical::Silu(dtype(), x.data(), expected.data(), n);
    kernels().silu(dtype(), x.data(), actual.data(), n);
    ASSERT_BITS_EQ(dtype(), expected.data(), actual.data(), n) << "from " << first;
  }
}

TEST(Isa, NamesAndTables) {
  for (Isa isa : {Isa::kPortable, Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Bf16}) {
    EXPECT_EQ(IsaFromName(IsaName(isa)), isa);
    if (IsaSupported(isa)) {
      EXPECT_EQ(SelectKernels(isa).isa, isa);
    } else {
      EXPECT_THROW(SelectKernels(isa), Error);
    }
  }
  EXPECT_TRUE(IsaSupported(Isa::kPortable));
  EXPECT_EQ(IsaFromName("native"), BestIsa());
  EXPECT_FALSE(IsaFromName("sse2"));
}

INSTANTIATE_TEST_SUITE_P(, KernelsTest,
                         testing::Combine(testing::ValuesIn(kFastIsas),
                                          testing::ValuesIn(kModelDTypes)),
                         KernelsTestName);
INSTANTIATE_TEST_SUITE_P(, AttentionTest,
                         testing::Combine(testing::ValuesIn(kFastIsas),
                                          testing::ValuesIn(kModelDTypes)),
                         KernelsTestName);

}  // namespace
}  // namespace samebits
