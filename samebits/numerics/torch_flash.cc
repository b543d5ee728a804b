// The scalar interpreter of torch_flash.h.
#include "samebits/numerics/torch_flash.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "samebits/base/error.h"
#include "samebits/numerics/element.h"

namespace samebits {
namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

const std::byte* At(const void* data, DType dtype, int64_t element) {
  return static_cast<const std::byte*>(data) + element * DTypeSize(dtype);
}

float ScaleAndMax(float* qk, const uint8_t* mask, float scale, int64_t n) {
  float max = kMinusInfinity;
  for (int64_t j = 0; j < n; ++j) {
    qk[j] = mask == nullptr ? qk[j] * scale
                            : std::fma(qk[j], scale, mask[j] != 0 ? 0.0F : kMinusInfinity);
    max = std::max(max, qk[j]);
  }
  return max;
}

// The lanes of up to three accumulators; element i of the vector part goes to accumulator and lane
// by its place in a block of sums * lanes; what is left of a block is the third.
float ExpAndSum(const SdpaFunction& function, DType dtype, const float* a, float max, void* p,
                int64_t n) {
  const int64_t lanes = function.lanes, block = function.sums * lanes;
  const int64_t whole = n / block * block, vectors = n / lanes * lanes;
  std::vector<float> sums(static_cast<size_t>(3 * lanes));
  for (int64_t j = 0; j < vectors; ++j) {
    const float e = torch_math::Evaluate(function.exp, a[j] - max);
    const int64_t accumulator = j < whole ? j % block / lanes : 2;
    sums[static_cast<size_t>(accumulator * lanes + j % lanes)] += e;
    StoreElement(dtype, p, j, e);  // round: dtype, for the product; the sum takes the unrounded
  }
  for (int64_t l = 0; l < lanes; ++l) {
    auto& lane = sums[static_cast<size_t>(l)];
    lane = lane + sums[static_cast<size_t>(2 * lanes + l)];
    lane = lane + sums[static_cast<size_t>(lanes + l)];
  }
  for (int64_t d = lanes / 2; d > 0; d /= 2) {
    for (int64_t l = 0; l < d; ++l)
      sums[static_cast<size_t>(l)] += sums[static_cast<size_t>(l + d)];
  }
  float sum = sums[0];
  for (int64_t j = vectors; j < n; ++j) {
    const float e = torch_math::Evaluate(function.tail_exp, a[j] - max);
    sum += e;
    StoreElement(dtype, p, j, e);
  }
  return sum;
}

void Rescale(float* x, float factor, int64_t n) {
  for (int64_t d = 0; d < n; ++d) x[d] *= factor;
}

void Finish(DType dtype, const float* x, float factor, void* y, int64_t n) {
  for (int64_t d = 0; d < n; ++d) StoreElement(dtype, y, d, x[d] * factor);
}

int64_t CeilDivide(int64_t a, int64_t b) { return (a + b - 1) / b; }

// What stays the same for all blocks of keys of a work item.
struct Item {
  const SdpaFunction& function;
  const FlashArgs& args;
  const FlashRow& row;
  int64_t batch, head, first_row, rows;
  float* qk;
  void* p;
  float* context;
  std::vector<float> max, sum;  // [rows]
};

// The softmax of one block of keys that begins at `first`.
void UpdateRows(Item* item, int64_t first, int64_t keys) {
  const FlashArgs& args = item->args;
  for (int64_t r = 0; r < item->rows; ++r) {
    float* a = item->qk + r * keys;
    if (args.is_causal) {
      for (int64_t j = std::max<int64_t>(0, item->first_row + r - first + 1); j < keys; ++j) {
        a[j] = kMinusInfinity;
      }
    }
    const uint8_t* mask = args.mask;
    if (mask != nullptr) {
      mask += item->batch * args.mask_batch_stride + (item->first_row + r) * args.mask_row_stride +
              first;
    }
    const auto i = static_cast<size_t>(r);
    const float largest =
        std::max(item->row.scale_and_max(a, mask, args.scale, keys), item->max[i]);
    auto* p = static_cast<std::byte*>(item->p) + r * keys * DTypeSize(args.dtype);
    if (largest == kMinusInfinity) {
      std::memset(p, 0, static_cast<size_t>(keys * DTypeSize(args.dtype)));
      continue;
    }
    const float t = item->row.exp_and_sum(item->function, args.dtype, a, largest, p, keys);
    const float c = torch_math::Evaluate(item->function.rescale_exp, item->max[i] - largest);
    item->sum[i] = std::fma(c, item->sum[i], t);
    item->max[i] = largest;
    if (first > 0) item->row.rescale(item->context + r * args.head_dim, c, args.head_dim);
  }
}

}  // namespace

const FlashRow kScalarFlashRow = {&ScaleAndMax, &ExpAndSum, &Rescale, &Finish};

FlashPlan PlanFlash(const SdpaFunction& function, const FlashArgs& args) {
  int64_t split = 0;
  for (const SdpaFunction::Split& candidate : function.q_splits) {
    if (args.q_len >= candidate.min_q_len) split = candidate.size;
  }
  SAMEBITS_CHECK(split > 0 && function.kv_split > 0 && args.q_len > 0 && args.kv_len > 0,
                 "PlanFlash: splits and sizes above 0");
  FlashPlan plan = {};
  plan.q_block = std::min(split, args.q_len);
  plan.kv_block = std::min(function.kv_split, args.kv_len);
  plan.q_blocks = CeilDivide(args.q_len, plan.q_block);
  plan.items = args.batch * args.heads * plan.q_blocks;
  plan.items_per_thread = CeilDivide(plan.items, std::min(args.threads, plan.items));
  plan.floats_per_thread = plan.q_block * (plan.kv_block + 2 + args.head_dim);
  const SdpaFunction::Packing& packing = function.packing;
  plan.packed =
      packing.min_q_len > 0 && args.q_len >= packing.min_q_len && args.kv_len >= packing.min_kv_len;
  return plan;
}

void* FlashScratch::Get(int64_t slot, int64_t bytes, int64_t alignment) {
  std::vector<std::byte>& buffer = buffers_[slot];
  const auto size = static_cast<size_t>(bytes + 128);
  if (buffer.size() < size) buffer.resize(size);
  const auto address = reinterpret_cast<uintptr_t>(buffer.data());
  const uintptr_t wanted = (address + 63) / 64 * 64 + static_cast<uintptr_t>(alignment);
  return buffer.data() + (wanted - address);
}

void FlashWorkItem(const SdpaFunction& function, const FlashArgs& args, const FlashPlan& plan,
                   int64_t item_index, FlashProducts& products, FlashScratch& scratch,
                   const FlashRow& row) {
  const int64_t block_index = item_index % plan.q_blocks;
  const int64_t head = item_index / plan.q_blocks % args.heads;
  const int64_t batch = item_index / plan.q_blocks / args.heads;
  const int64_t kv_head = head / (args.heads / args.kv_heads);
  const int64_t first_row = block_index * plan.q_block;
  const int64_t rows = std::min(plan.q_block, args.q_len - first_row);
  const int64_t thread = item_index / plan.items_per_thread;
  const int64_t base = thread * plan.floats_per_thread * 4;
  const int64_t size = DTypeSize(args.dtype);

  FlashBlock block = {};
  block.dtype = args.dtype;
  block.rows = rows;
  block.head_dim = args.head_dim;
  block.packed = plan.packed;
  block.q_row_stride = args.q_strides.row;
  block.k_row_stride = args.k_strides.row;
  block.v_row_stride = args.v_strides.row;
  block.q = At(
      args.q, args.dtype,
      batch * args.q_strides.batch + head * args.q_strides.head + first_row * args.q_strides.row);
  block.item = item_index;
  block.items = plan.items;
  block.thread = thread;
  block.qk_alignment = base % 64;
  block.context_alignment = (base + plan.q_block * (plan.kv_block + 2) * 4) % 64;
  block.p_alignment = args.dtype == DType::kF32 ? block.qk_alignment
                                                : thread * plan.q_block * plan.kv_block * size % 64;

  Item item = {function, args,    row,     batch,   head, first_row,
               rows,     nullptr, nullptr, nullptr, {},   {}};
  const int64_t qk_bytes = plan.q_block * plan.kv_block * 4;
  item.qk = static_cast<float*>(scratch.Get(0, qk_bytes, block.qk_alignment));
  item.p = args.dtype == DType::kF32 ? item.qk : scratch.Get(1, qk_bytes, block.p_alignment);
  item.context = static_cast<float*>(
      scratch.Get(2, plan.q_block * args.head_dim * 4, block.context_alignment));
  item.max.assign(static_cast<size_t>(rows), kMinusInfinity);
  item.sum.assign(static_cast<size_t>(rows), 0.0F);

  const int64_t num_keys = args.is_causal ? std::min(first_row + rows, args.kv_len) : args.kv_len;
  for (int64_t first = 0; first < num_keys; first += plan.kv_block) {
    block.keys = std::min(plan.kv_block, args.kv_len - first);
    const auto at = [&](const void* data, const FlashArgs::Strides& s) {
      return At(data, args.dtype, batch * s.batch + kv_head * s.head + first * s.row);
    };
    block.k = at(args.k, args.k_strides);
    block.v = at(args.v, args.v_strides);
    products.Scores(block, item.qk);
    UpdateRows(&item, first, block.keys);
    products.Context(block, item.p, first > 0, item.context);
  }

  for (int64_t r = 0; r < rows; ++r) {
    const float sum = item.sum[static_cast<size_t>(r)];
    const float inverse = 1.0F / (sum == 0 ? 1.0F : sum);
    auto* out = static_cast<std::byte*>(args.out) +
                (batch * args.out_strides.batch + head * args.out_strides.head +
                 (first_row + r) * args.out_strides.row) *
                    size;
    row.finish(args.dtype, item.context + r * args.head_dim, inverse, out, args.head_dim);
  }
}

}  // namespace samebits
