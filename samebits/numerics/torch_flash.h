// PyTorch's flash kernel for the CPU (scaled_dot_product_attention), to the bit; the order of the
// two matrix products inside is somebody else's and comes in as FlashProducts. Measured: PyTorch
// 2.13, docs/numerics/torch-ops.md.
//
// The query rows are cut into blocks (SdpaFunction::q_splits), the keys into blocks of kv_split.
// A work item is one (batch, head, block of query rows). For each block of keys:
//   qk = q k^T                                                        (product, fp32)
//   causal: -infinity for keys after the row's own position; the last block is computed whole
//   a = qk scale;  with a mask: a = fma(qk, scale, 0 or -infinity)
//   M = max(M, a); p = exp(a - M) in vectors, tail_exp behind the last vector; t = their sum
//   c = rescale_exp(old M - M); sum = fma(c, sum, t); context = context c       (not the first)
//   context = p v + context                              (product, fp32; p is rounded to dtype)
// out = round(context (1 / sum)); a row without a visible key is 0.
//
// What the caller gives is one call of PyTorch's function: q_len, kv_len, batch and heads are part
// of the arithmetic (blocks, and which thread takes what). transformers 5.24 calls it
//   without padding:  all heads, no mask, is_causal = q_len > 1, kv_len = q_len when causal
//   with a mask, q_len == 1:  "packed": heads = kv_heads, the heads of a group as q_len rows
//   with a mask, otherwise:   all heads, mask, not causal
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "samebits/numerics/torch_functions.h"
#include "samebits/tensor/dtype.h"

namespace samebits {

struct FlashArgs {
  // Element (b, h, row, d) of a tensor stands at b batch + h head + row row + d, in elements.
  struct Strides {
    int64_t batch, head, row;
  };
  DType dtype;    // kF32, kBF16, kF16
  const void* q;  // [batch, heads, q_len, head_dim] dtype
  const void* k;  // [batch, kv_heads, kv_len, head_dim] dtype
  const void* v;  // as k
  void* out;      // [batch, heads, q_len, head_dim] dtype
  Strides q_strides, k_strides, v_strides, out_strides;
  int64_t batch, heads, kv_heads, q_len, kv_len, head_dim;
  float scale;
  bool is_causal;                 // row i sees the keys 0 .. i
  const uint8_t* mask = nullptr;  // null, or 1 = visible: [batch, q_len, kv_len] by strides
  int64_t mask_batch_stride = 0, mask_row_stride = 0;  // 0: the same for all
  int64_t threads = 1;                                 // PyTorch's, part of the arithmetic
};

// One matrix product of the kernel: what its order may depend on.
struct FlashBlock {
  DType dtype;
  int64_t rows, keys, head_dim;
  bool packed;                                       // by another kernel, for long calls
  const void* q;                                     // [rows, head_dim] dtype
  const void* k;                                     // [keys, head_dim] dtype
  const void* v;                                     // [keys, head_dim] dtype
  int64_t q_row_stride, k_row_stride, v_row_stride;  // elements
  int64_t item, items;                               // work item, and how many there are
  int64_t thread;                                    // of PyTorch, that does it
  // Where PyTorch's buffers lie, in bytes modulo 64.
  int64_t qk_alignment, p_alignment, context_alignment;
};

class FlashProducts {
 public:
  FlashProducts() = default;
  FlashProducts(const FlashProducts&) = delete;
  FlashProducts& operator=(const FlashProducts&) = delete;
  virtual ~FlashProducts() = default;

  // qk[r keys + j] = sum over d of q[r, d] k[j, d], fp32.
  virtual void Scores(const FlashBlock& block, float* qk) = 0;

  // context[r head_dim + d] = sum over j of p[r keys + j] v[j, d], fp32, p of block.dtype; on top
  // of what stands there when `accumulate`, which is not read otherwise.
  virtual void Context(const FlashBlock& block, const void* p, bool accumulate, float* context) = 0;
};

// The loops over one row, so that they can be exchanged for faster ones with the same bits.
struct FlashRow {
  // a[j] = qk[j] scale (+ mask); returns the largest. mask: null, or n bytes. In place.
  float (*scale_and_max)(float* qk, const uint8_t* mask, float scale, int64_t n);
  // p[j] = exp(a[j] - max), rounded to dtype; returns the sum of the unrounded. p may be a for
  // kF32.
  float (*exp_and_sum)(const SdpaFunction& function, DType dtype, const float* a, float max,
                       void* p, int64_t n);
  // x[d] = x[d] factor
  void (*rescale)(float* x, float factor, int64_t n);
  // y[d] = round(x[d] factor)
  void (*finish)(DType dtype, const float* x, float factor, void* y, int64_t n);
};
extern const FlashRow kScalarFlashRow;

// How a call is cut.
struct FlashPlan {
  int64_t q_block;   // rows of a block
  int64_t kv_block;  // keys of a block
  int64_t q_blocks, items;
  int64_t items_per_thread;
  int64_t floats_per_thread;  // of PyTorch's buffer: q_block (kv_block + 2 + head_dim)
  bool packed;                // whether all products of the call are
};
FlashPlan PlanFlash(const SdpaFunction& function, const FlashArgs& args);

// Buffers of one of our threads; grows as needed.
class FlashScratch {
 public:
  // At least `bytes` at an address that is `alignment` modulo 64.
  void* Get(int64_t slot, int64_t bytes, int64_t alignment);

 private:
  std::vector<std::byte> buffers_[3];
};

// Computes work item `item` of [0, plan.items): items are numbered batch first, then head, then
// block of rows. Any order and any number of our own threads give the same bits.
void FlashWorkItem(const SdpaFunction& function, const FlashArgs& args, const FlashPlan& plan,
                   int64_t item, FlashProducts& products, FlashScratch& scratch,
                   const FlashRow& row = kScalarFlashRow);

}  // namespace samebits
