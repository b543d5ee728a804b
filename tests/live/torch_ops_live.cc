// For test_torch_ops.py: the interpreters of PyTorch's operations behind a C interface, so that the
// test can call them beside PyTorch in one process. The matrix products inside the flash kernel are
// taken from the library that PyTorch itself calls, given by address: this test is about
// everything else.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "samebits/base/error.h"
#include "samebits/kernels/torch_ops.h"
#include "samebits/numerics/canonical.h"
#include "samebits/numerics/torch_flash.h"
#include "samebits/numerics/torch_functions.h"
#include "samebits/numerics/torch_ops.h"

namespace {

using samebits::DType;
using samebits::FlashArgs;
using samebits::FlashBlock;

samebits::TorchFunctions g_functions;
const samebits::TorchKernels* g_kernels = &samebits::SelectTorchKernels(samebits::Isa::kPortable);
std::string g_error;

// The library's entry points: float32, and the two with 16-bit operands.
using Sgemm = void (*)(const char* transa, const char* transb, const int* m, const int* n,
                       const int* k, const float* alpha, const float* a, const int* lda,
                       const float* b, const int* ldb, const float* beta, float* c, const int* ldc);
using MixedGemm = void (*)(int layout, int transa, int transb, int m, int n, int k, float alpha,
                           const uint16_t* a, int lda, const uint16_t* b, int ldb, float beta,
                           float* c, int ldc);
// at::native::cpublas::brgemm and brgemm_release: c [m, n] (+)= a [m, k] b, b in pairs of elements.
using Brgemm = void (*)(int64_t m, int64_t n, int64_t k, int64_t lda, int64_t ldb, int64_t ldc,
                        bool add_c, const void* a, const void* b, float* c, bool is_vnni);
using BrgemmRelease = void (*)(bool is_vnni);
constexpr int kColumnMajor = 102, kNoTranspose = 111, kTranspose = 112;

class LibraryProducts : public samebits::FlashProducts {
 public:
  LibraryProducts(void* sgemm, void* mixed, void* brgemm, void* brgemm_release)
      : sgemm_(reinterpret_cast<Sgemm>(sgemm)),
        mixed_(reinterpret_cast<MixedGemm>(mixed)),
        brgemm_(reinterpret_cast<Brgemm>(brgemm)),
        brgemm_release_(reinterpret_cast<BrgemmRelease>(brgemm_release)) {}

  void Scores(const FlashBlock& block, float* qk) override {
    if (block.packed) {
      return Packed(block.q, block.q_row_stride, block.k, 1, block.k_row_stride, block.rows,
                    block.keys, block.head_dim, false, qk);
    }
    Call(true, Int(block.keys), Int(block.rows), Int(block.head_dim), block.k,
         Int(block.k_row_stride), block.q, Int(block.q_row_stride), 0.0F, qk, Int(block.keys),
         block.dtype);
  }
  void Context(const FlashBlock& block, const void* p, bool accumulate, float* context) override {
    if (block.packed) {
      return Packed(p, block.keys, block.v, block.v_row_stride, 1, block.rows, block.head_dim,
                    block.keys, accumulate, context);
    }
    Call(false, Int(block.head_dim), Int(block.rows), Int(block.keys), block.v,
         Int(block.v_row_stride), p, Int(block.keys), accumulate ? 1.0F : 0.0F, context,
         Int(block.head_dim), block.dtype);
  }

 private:
  static int Int(int64_t value) { return static_cast<int>(value); }
  void Call(bool transpose, int m, int n, int k, const void* a, int lda, const void* b, int ldb,
            float beta, float* c, int ldc, DType dtype) {
    // PyTorch gives the library what a row of one element may leave open.
    if (n == 1) ldc = m, ldb = k;
    if (transpose ? m == 1 : k == 1) lda = transpose ? k : m;
    const float one = 1.0F;
    if (dtype == DType::kF32) {
      sgemm_(transpose ? "t" : "n", "n", &m, &n, &k, &one, static_cast<const float*>(a), &lda,
             static_cast<const float*>(b), &ldb, &beta, c, &ldc);
    } else {
      mixed_(kColumnMajor, transpose ? kTranspose : kNoTranspose, kNoTranspose, m, n, k, one,
             static_cast<const uint16_t*>(a), lda, static_cast<const uint16_t*>(b), ldb, beta, c,
             ldc);
    }
  }
  // b: element (k, n) at k * k_stride + n * n_stride. An odd k gets a zero.
  void Packed(const void* a, int64_t a_stride, const void* b, int64_t k_stride, int64_t n_stride,
              int64_t m, int64_t n, int64_t k, bool add_c, float* c) {
    const int64_t even = (k + 1) / 2 * 2;
    std::vector<uint16_t> rows(static_cast<size_t>(m * even)), pairs(static_cast<size_t>(even * n));
    const auto* from_a = static_cast<const uint16_t*>(a);
    const auto* from_b = static_cast<const uint16_t*>(b);
    for (int64_t i = 0; i < m; ++i) std::copy_n(from_a + i * a_stride, k, &rows[i * even]);
    for (int64_t j = 0; j < k; ++j) {
      for (int64_t i = 0; i < n; ++i) {
        pairs[(j / 2 * n + i) * 2 + j % 2] = from_b[j * k_stride + i * n_stride];
      }
    }
    brgemm_(m, n, even, even, n, n, add_c, rows.data(), pairs.data(), c, true);
    brgemm_release_(true);
  }
  Sgemm sgemm_;
  MixedGemm mixed_;
  Brgemm brgemm_;
  BrgemmRelease brgemm_release_;
};

DType ToDType(int dtype) {
  return dtype == 0 ? DType::kF32 : dtype == 1 ? DType::kBF16 : DType::kF16;
}

}  // namespace

extern "C" {

// dtype: 0 float32, 1 bfloat16, 2 float16.

const char* live_error() { return g_error.c_str(); }

// The section "functions" of a profile; 0, or 1 with a message in live_error().
int live_functions(const char* json) {
  try {
    g_functions = samebits::ReadTorchFunctions(samebits::ParseJson(json, "functions"), "functions");
    return 0;
  } catch (const samebits::Error& error) {
    g_error = error.what();
    return 1;
  }
}

// 0: the interpreters, 1: the fast versions of this CPU.
void live_select(int fast) {
  using samebits::Isa;
  g_kernels = &samebits::SelectTorchKernels(fast != 0 ? samebits::BestIsa() : Isa::kPortable);
}

void live_exp(int function, const float* x, float* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    y[i] = samebits::torch_math::Evaluate(static_cast<samebits::torch_math::Exp>(function), x[i]);
  }
}

void live_pow(float base, const float* x, float* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = samebits::torch_math::PowSleefU10(base, x[i]);
}

void live_cos_sin(const float* x, float* cos, float* sin, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    cos[i] = samebits::torch_math::CosRounded(x[i]);
    sin[i] = samebits::torch_math::SinRounded(x[i]);
  }
}

void live_sum(const float* x, float* y, int64_t rows, int64_t n) {
  for (int64_t r = 0; r < rows; ++r) {
    y[r] = samebits::torch_ops::CascadeSum(*g_functions.sum, x + r * n, n);
  }
}

void live_rms_norm(int dtype, const void* x, const void* w, void* y, int64_t rows, int64_t size,
                   float eps) {
  const DType type = ToDType(dtype);
  g_kernels->rms_norm(*g_functions.sum, {type, type, x, w, y, rows, size, eps}, 0, rows);
}

void live_softmax(const float* x, float* y, int64_t rows, int64_t n) {
  for (int64_t r = 0; r < rows; ++r) {
    samebits::torch_ops::SoftmaxRow(*g_functions.softmax, x + r * n, y + r * n, n);
  }
}

// Eager attention's rows: scores [rows, n] of dtype, keep [n].
void live_masked_softmax(int dtype, const void* scores, const uint8_t* keep, void* probs,
                         int64_t rows, int64_t n) {
  const DType type = ToDType(dtype);
  std::vector<float> wide(static_cast<size_t>(n));
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t at = r * n * samebits::DTypeSize(type);
    g_kernels->masked_softmax_row(*g_functions.softmax, type,
                                  static_cast<const std::byte*>(scores) + at, keep,
                                  static_cast<std::byte*>(probs) + at, wide.data(), n);
  }
}

void live_silu(int dtype, const void* x, void* y, int64_t n, int64_t threads) {
  g_kernels->silu(*g_functions.silu, ToDType(dtype), x, y, 0, n, n, threads);
}

void live_multiply_by_number(int dtype, const void* x, double number, void* y, int64_t n) {
  g_kernels->multiply_by_number(ToDType(dtype), x, number, y, n);
}

void live_add_mask(int dtype, const void* x, const uint8_t* keep, void* y, int64_t n) {
  samebits::torch_ops::AddMask(ToDType(dtype), x, keep, y, n);
}

void live_add(int dtype, const void* a, const void* b, void* y, int64_t n) {
  samebits::canonical::Add(ToDType(dtype), a, b, y, n);
}

void live_multiply(int dtype, const void* a, const void* b, void* y, int64_t n) {
  samebits::canonical::Multiply(ToDType(dtype), a, b, y, n);
}

void live_rope(int dtype, const void* x, const void* cos, const void* sin, void* y, int64_t rows,
               int64_t heads, int64_t head_dim) {
  samebits::canonical::Rope({ToDType(dtype), x, cos, sin, y, rows, heads, head_dim}, 0, rows);
}

int live_rotary(int dtype, int64_t entry, const int64_t* positions, void* cos, void* sin,
                int64_t rows, int64_t head_dim) {
  try {
    samebits::torch_ops::Rotary(
        g_functions.rotary.at(static_cast<size_t>(entry)),
        {ToDType(dtype), positions, nullptr, 0, 1.0F, cos, sin, rows, head_dim}, 0, rows);
    return 0;
  } catch (const samebits::Error& error) {
    g_error = error.what();
    return 1;
  }
}

// One call of scaled_dot_product_attention. sizes: batch, heads, kv_heads, q_len, kv_len, head_dim,
// threads, mask_batch_stride, mask_row_stride, is_causal; strides: batch, head, row of q, k, v,
// out.
void live_flash(int dtype, const void* q, const void* k, const void* v, void* out,
                const uint8_t* mask, const int64_t* sizes, const int64_t* strides, float scale,
                void* sgemm, void* mixed, void* brgemm, void* brgemm_release) {
  FlashArgs args = {};
  args.dtype = ToDType(dtype);
  args.q = q, args.k = k, args.v = v, args.out = out, args.mask = mask;
  FlashArgs::Strides* all[4] = {&args.q_strides, &args.k_strides, &args.v_strides,
                                &args.out_strides};
  for (int i = 0; i < 4; ++i) *all[i] = {strides[3 * i], strides[3 * i + 1], strides[3 * i + 2]};
  args.batch = sizes[0], args.heads = sizes[1], args.kv_heads = sizes[2];
  args.q_len = sizes[3], args.kv_len = sizes[4], args.head_dim = sizes[5];
  args.threads = sizes[6], args.mask_batch_stride = sizes[7], args.mask_row_stride = sizes[8];
  args.is_causal = sizes[9] != 0, args.scale = scale;
  LibraryProducts products(sgemm, mixed, brgemm, brgemm_release);
  samebits::FlashScratch scratch;
  const samebits::FlashPlan plan = samebits::PlanFlash(*g_functions.sdpa, args);
  for (int64_t item = 0; item < plan.items; ++item) {
    samebits::FlashWorkItem(*g_functions.sdpa, args, plan, item, products, scratch,
                            g_kernels->flash_row);
  }
}

}  // extern "C"
