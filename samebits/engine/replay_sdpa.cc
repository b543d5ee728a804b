// How transformers calls torch's scaled_dot_product_attention, replayed.
#include <algorithm>
#include <cstring>

#include "samebits/base/error.h"
#include "samebits/engine/replay_arithmetic.h"
#include "samebits/kernels/replay.h"
#include "samebits/numerics/torch_flash.h"

namespace samebits {
namespace {

// The two products inside the flash kernel, by the profile.
class ProfileProducts : public FlashProducts {
 public:
  ProfileProducts(Isa isa, const Profile& profile) : isa_(isa), profile_(profile) {}

  void Scores(const FlashBlock& block, float* qk) override {
    ProductArgs args{};
    args.dtype = args.weight_dtype = block.dtype;
    args.y_dtype = DType::kF32;
    args.x = block.q;
    args.w = block.k;
    args.y = qk;
    args.rows = block.rows;
    args.in_features = block.head_dim;
    args.out_features = block.keys;
    args.x_row_stride = block.q_row_stride;
    args.w_out_stride = block.k_row_stride;
    args.w_in_stride = 1;
    args.y_row_stride = block.keys;
    args.alignment.y = static_cast<int32_t>(block.qk_alignment / 4 % 4);
    Run(args, ProductOp::kSdpaScores, block);
  }

  void Context(const FlashBlock& block, const void* p, bool accumulate, float* context) override {
    ProductArgs args{};
    args.dtype = args.weight_dtype = block.dtype;
    args.y_dtype = DType::kF32;
    args.x = p;
    args.w = block.v;
    args.y = context;
    args.accumulate = accumulate;
    args.rows = block.rows;
    args.in_features = block.keys;
    args.out_features = block.head_dim;
    args.x_row_stride = block.keys;
    args.w_out_stride = 1;
    args.w_in_stride = block.v_row_stride;
    args.y_row_stride = block.head_dim;
    args.alignment.x = static_cast<int32_t>(block.p_alignment / 4 % 4);
    args.alignment.y = static_cast<int32_t>(block.context_alignment / 4 % 4);
    Run(args, accumulate ? ProductOp::kSdpaAccumulate : ProductOp::kSdpaContext, block);
  }

 private:
  void Run(const ProductArgs& args, ProductOp op, const FlashBlock& block) {
    ProductShape shape;
    shape.rows = block.rows;
    shape.keys = block.keys;
    shape.head_dim = block.head_dim;
    shape.matrices = block.items;
    shape.packed = block.packed;
    ReplayProduct(isa_, args, *profile_.Find(op, shape).rule, 0, args.rows, 0, args.out_features);
  }

  const Isa isa_;
  const Profile& profile_;
};

// Keys or values of several sequences, one behind the other: [batch, kv_heads, keys, head_dim].
std::vector<std::byte> Gather(std::span<const AttentionPart> parts, bool keys) {
  const AttentionArgs& first = parts[0].args;
  const int64_t rows = parts[0].before + first.rows, size = DTypeSize(first.dtype);
  const int64_t head_bytes = rows * first.head_dim * size;
  std::vector<std::byte> all(parts.size() * static_cast<size_t>(first.kv_heads * head_bytes));
  std::byte* to = all.data();
  for (const AttentionPart& part : parts) {
    for (int64_t head = 0; head < first.kv_heads; ++head) {
      const auto* from = static_cast<const std::byte*>(keys ? part.args.k : part.args.v) +
                         head * part.args.kv_head_stride * size;
      std::memcpy(to, from, static_cast<size_t>(head_bytes));
      to += head_bytes;
    }
  }
  return all;
}

// 1 where a token sees a key: [batch, rows, keys].
std::vector<uint8_t> Mask(std::span<const AttentionPart> parts) {
  std::vector<uint8_t> mask;
  for (const AttentionPart& part : parts) {
    const int64_t keys = part.before + part.args.rows, window = part.args.window;
    for (int64_t own = part.before; own < keys; ++own) {
      const int64_t begin = window > 0 ? std::max<int64_t>(0, own + 1 - window) : 0;
      for (int64_t j = 0; j < keys; ++j) {
        mask.push_back(static_cast<uint8_t>(j <= own && j >= begin && j >= part.padding));
      }
    }
  }
  return mask;
}

bool NeedsMask(std::span<const AttentionPart> parts) {
  const AttentionArgs& first = parts[0].args;
  const int64_t before = parts[0].before, keys = before + first.rows;
  return (first.rows > 1 && before > 0) || (first.window > 0 && keys > first.window) ||
         std::any_of(parts.begin(), parts.end(),
                     [](const AttentionPart& part) { return part.padding > 0; });
}

}  // namespace

// Without a mask: all heads, is_causal for more than one row. With a mask and one row: the heads of
// a group become the rows of one matrix. With a mask and several rows: all heads.
void ReplayArithmetic::Sdpa(std::span<const AttentionPart> parts) {
  if (!profile().functions().sdpa) {
    Fail(ErrorCode::kBadInput,
         "{}: functions has no 'sdpa'; `python -m samebits probe --attention sdpa` makes it",
         profile().path());
  }
  const SdpaFunction& function = *profile().functions().sdpa;
  const AttentionArgs& a = parts[0].args;
  const int64_t d = a.head_dim, keys = parts[0].before + a.rows;
  const auto batch = static_cast<int64_t>(parts.size());
  FlashArgs args{};
  args.dtype = a.dtype;
  args.q = a.q;
  args.out = a.context;
  args.q_strides = args.out_strides = {a.rows * a.heads * d, d, a.heads * d};
  args.k = a.k;
  args.v = a.v;
  args.k_strides = args.v_strides = {0, a.kv_head_stride, a.kv_row_stride};
  std::vector<std::byte> all_keys, all_values;
  if (batch > 1) {
    all_keys = Gather(parts, true);
    all_values = Gather(parts, false);
    args.k = all_keys.data();
    args.v = all_values.data();
    args.k_strides = args.v_strides = {a.kv_heads * keys * d, keys * d, d};
  }
  args.batch = batch;
  args.heads = a.heads;
  args.kv_heads = a.kv_heads;
  args.q_len = a.rows;
  args.kv_len = keys;
  args.head_dim = d;
  args.scale = a.scale;
  args.threads = profile().threads();
  const bool masked = NeedsMask(parts);
  args.is_causal = !masked && a.rows > 1;
  std::vector<uint8_t> mask;
  if (masked) {
    mask = Mask(parts);
    args.mask = mask.data();
    args.mask_batch_stride = a.rows * keys;
    args.mask_row_stride = keys;
    if (a.rows == 1) {
      args.heads = a.kv_heads;
      args.q_len = a.heads / a.kv_heads;
      args.q_strides = args.out_strides = {a.heads * d, args.q_len * d, d};
      args.mask_row_stride = 0;
    }
  }
  const FlashPlan plan = PlanFlash(function, args);
  pool_.ParallelFor(plan.items, [&](int64_t item) {
    ProfileProducts products(kernels_.isa, profile());
    FlashScratch scratch;
    FlashWorkItem(function, args, plan, item, products, scratch, torch_.flash_row);
  });
}

}  // namespace samebits
