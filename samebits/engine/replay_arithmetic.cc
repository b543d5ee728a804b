#include "samebits/engine/replay_arithmetic.h"

#include <algorithm>
#include <cmath>

#include "samebits/base/error.h"
#include "samebits/kernels/replay.h"
#include "samebits/numerics/rope.h"
#include "samebits/numerics/torch_ops.h"

namespace samebits {
namespace {

// A function of the profile, which may lack it.
template <typename Function>
const Function& Required(const std::optional<Function>& function, const char* name,
                         const Profile& profile) {
  if (!function) {
    Fail(ErrorCode::kBadInput,
         "{}: functions has no '{}'; `python -m samebits probe` makes a whole profile",
         profile.path(), name);
  }
  return *function;
}

}  // namespace

void ReplayArithmetic::Linear(const Node& node, const LinearArgs& args) {
  ProductShape shape;
  shape.rows = args.rows;
  shape.in_features = args.in_features;
  // Orders are those of the whole layer, whatever share of it is computed here.
  shape.out_features = node.split ? node.split.whole * node.split.unit : args.out_features;
  shape.bias = args.bias != nullptr;
  const SumRule& rule = *profile().Find(ProductOp::kLinear, shape).rule;
  const auto alignment = static_cast<int32_t>(replay_->WeightAlignment(node.weights[0]) / 4 % 4);
  const int64_t first = node.split ? node.split.range().begin * node.split.unit : 0;
  ProductArgs product = ProductOf(args, {.x = 0, .w = alignment, .y = 0});
  if (first > 0) {
    const auto back = [first](const void* data, int64_t bytes) {
      return data == nullptr ? nullptr : static_cast<const std::byte*>(data) - first * bytes;
    };
    const int64_t weight_size = DTypeSize(args.weight_dtype);
    product.w = back(product.w, args.in_features * weight_size);
    product.bias = back(product.bias, weight_size);
    product.y = static_cast<std::byte*>(product.y) - first * DTypeSize(args.dtype);
  }
  product.out_features = shape.out_features;
  constexpr int64_t kBlock = 24;
  const int64_t out = args.out_features;
  const int64_t wanted = std::max<int64_t>(kBlock, out / (8 * pool_.threads()));
  const int64_t piece_outs = (wanted + kBlock - 1) / kBlock * kBlock;
  pool_.ParallelFor((out + piece_outs - 1) / piece_outs, [&](int64_t piece) {
    ReplayProduct(kernels_.isa, product, rule, 0, args.rows, first + piece * piece_outs,
                  first + std::min(out, (piece + 1) * piece_outs));
  });
}

void ReplayArithmetic::RmsNorm(const Node&, const RmsNormArgs& args) {
  const SumFunction& function = Required(profile().functions().sum, "sum", profile());
  ForRows(args.rows, args.size,
          [&](int64_t begin, int64_t end) { torch_.rms_norm(function, args, begin, end); });
}

// The trace's own angles, or the profile's for the same frequencies: those that an fp32 evaluation
// of the configuration's formula can give.
const RotaryFunction& ReplayArithmetic::FindRotary(const Node& node) const {
  const Attributes& a = node.attributes;
  const auto expected = exact::InverseFrequencies(a.rope, a.head_dim, 1);
  const auto fits = [&expected](const RotaryFunction& rotary) {
    if (rotary.inv_freq.size() != expected.size()) return false;
    for (size_t i = 0; i < expected.size(); ++i) {
      const auto [value, relative] = expected[i];
      if (!(std::fabs(rotary.inv_freq[i] - value) <= relative * value)) return false;
    }
    return true;
  };
  if (const RotaryFunction* own = replay_->rotary(); own != nullptr) {
    if (!fits(*own)) {
      Fail(ErrorCode::kBadInput,
           "the trace's 'rotary': not the frequencies of this checkpoint's config.json");
    }
    return *own;
  }
  for (const RotaryFunction& rotary : profile().functions().rotary) {
    if (fits(rotary)) return rotary;
  }
  Fail(ErrorCode::kBadInput,
       "{}: functions.rotary has no entry for this checkpoint's rotary embedding; `python -m "
       "samebits probe --model DIR` of this checkpoint makes one",
       profile().path());
}

void ReplayArithmetic::Rotary(const Node& node, DType dtype, const RotaryRows& rows, void* cosine,
                              void* sine) {
  const Attributes& a = node.attributes;
  for (int64_t length : rows.text_lengths) {
    if (RopeDependsOnLength(a.rope, length)) {
      Fail(ErrorCode::kUnsupported,
           "a text of {} tokens: a replay has no frequencies that change with the length", length);
    }
  }
  const auto count = static_cast<int64_t>(rows.positions.size());
  const RotaryArgs args{
      dtype,     rows.positions.data(), nullptr, 0, RotaryScaling(a.rope), cosine, sine, count,
      a.head_dim};
  const RotaryFunction& rotary = FindRotary(node);
  ForRows(count, 16 * a.head_dim,
          [&](int64_t begin, int64_t end) { torch_ops::Rotary(rotary, args, begin, end); });
}

void ReplayArithmetic::Silu(const Node& node, DType dtype, const void* x, void* y, int64_t rows,
                            int64_t width) {
  const SiluFunction& function = Required(profile().functions().silu, "silu", profile());
  if (node.split) {  // torch counts the elements of whole rows
    const int64_t whole = node.split.whole * node.split.unit;
    for (int64_t row = 0; row < rows; ++row) {
      const int64_t begin = row * whole + node.split.range().begin * node.split.unit;
      const int64_t back = (begin - row * width) * DTypeSize(dtype);
      torch_.silu(function, dtype, static_cast<const std::byte*>(x) - back,
                  static_cast<std::byte*>(y) - back, begin, begin + width, rows * whole,
                  profile().threads());
    }
    return;
  }
  ForRows(rows, width, [&](int64_t begin, int64_t end) {
    torch_.silu(function, dtype, x, y, begin * width, end * width, rows * width,
                profile().threads());
  });
}

void ReplayArithmetic::Attention(const Node& node, std::span<const AttentionPart> parts) {
  for (const AttentionPart& part : parts) {
    const AttentionArgs& a = part.args;
    SAMEBITS_CHECK(a.rows == parts[0].args.rows && part.before == parts[0].before,
                   "a padded batch has one length");
    if (a.window > 0 && part.before > 0 && part.before + a.rows > a.window) {
      Fail(ErrorCode::kUnsupported,
           "decoding {} tokens behind a window of {}: transformers drops keys there, and no replay "
           "does",
           part.before + a.rows, a.window);
    }
  }
  if (replay_->attention() == AttentionKind::kEager) {
    Eager(node, parts);
  } else {
    SAMEBITS_CHECK(!node.split, "sdpa: attention is whole on each rank");
    Sdpa(parts);
  }
}

// In blocks of rows, so that scores take bounded memory; the rules are those of all rows.
void ReplayArithmetic::Eager(const Node& node, std::span<const AttentionPart> parts) {
  const AttentionArgs& first = parts[0].args;
  const int64_t keys = parts[0].before + first.rows;
  ProductShape shape;
  shape.rows = first.rows;
  shape.keys = keys;
  shape.head_dim = first.head_dim;
  shape.batch = static_cast<int64_t>(parts.size());
  shape.kv_heads = node.split ? node.kv_split.whole : first.kv_heads;
  shape.matrices = shape.batch * (node.split ? node.split.whole : first.heads);
  const SumRule& scores_rule = *profile().Find(ProductOp::kScores, shape).rule;
  const SumRule& context_rule = *profile().Find(ProductOp::kContext, shape).rule;
  constexpr int64_t kBytes = 16 << 20;
  const int64_t row_bytes = first.heads * keys * DTypeSize(first.dtype);
  const int64_t height = std::clamp<int64_t>(kBytes / row_bytes, 1, first.rows);
  for (const AttentionPart& part : parts) {
    for (int64_t row = 0; row < first.rows; row += height) {
      const int64_t end = std::min(first.rows, row + height);
      const Shape block_shape = {first.heads, end - row, keys};
      Tensor scores(first.dtype, block_shape), probs(first.dtype, block_shape);
      const EagerBlock block{&node, &part, row, end, &scores, &probs, &scores_rule, &context_rule};
      pool_.ParallelFor(first.heads, [&](int64_t head) { EagerHead(block, head); });
      if (part.recorder == nullptr) continue;
      if (part.recorder->Wants(node.outputs[0])) {
        part.recorder->Record(node.outputs[0], scores.view(), part.before + row);
      }
      if (part.recorder->Wants(node.outputs[1])) {
        part.recorder->Record(node.outputs[1], probs.view(), part.before + row);
      }
    }
  }
}

void ReplayArithmetic::EagerHead(const EagerBlock& block, int64_t head) const {
  const AttentionArgs& a = block.part->args;
  const int64_t size = DTypeSize(a.dtype), keys = block.part->before + a.rows;
  const int64_t rows = block.row_end - block.row_begin, d = a.head_dim;
  const int64_t kv = KvHead(*block.node, head) * a.kv_head_stride * size;
  std::byte* scores = block.scores->data() + head * rows * keys * size;
  std::byte* probs = block.probs->data() + head * rows * keys * size;
  // Rows of a product count from its first one, this block begins at row_begin: nothing before that
  // is touched.
  const auto origin = [&](std::byte* at) { return at - block.row_begin * keys * size; };
  ProductArgs product{};
  product.dtype = product.weight_dtype = product.y_dtype = a.dtype;
  product.rows = a.rows;
  product.x = static_cast<const std::byte*>(a.q) + head * d * size;
  product.x_row_stride = a.heads * d;
  product.in_features = d;
  product.w = static_cast<const std::byte*>(a.k) + kv;
  product.w_out_stride = a.kv_row_stride;
  product.w_in_stride = 1;
  product.out_features = keys;
  product.y = origin(scores);
  product.y_row_stride = keys;
  ReplayProduct(kernels_.isa, product, *block.scores_rule, block.row_begin, block.row_end, 0, keys);
  torch_.multiply_by_number(a.dtype, scores, a.scale, scores, rows * keys);

  std::vector<float> wide(static_cast<size_t>(keys));
  std::vector<uint8_t> keep(static_cast<size_t>(keys));
  const SoftmaxFunction& softmax = Required(profile().functions().softmax, "softmax", profile());
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t own = block.part->before + block.row_begin + r;  // the token's own key
    const int64_t begin = a.window > 0 ? std::max<int64_t>(0, own + 1 - a.window) : 0;
    for (int64_t j = 0; j < keys; ++j) {
      keep[static_cast<size_t>(j)] =
          static_cast<uint8_t>(j <= own && j >= begin && j >= block.part->padding);
    }
    std::byte* p = probs + r * keys * size;
    torch_.masked_softmax_row(softmax, a.dtype, scores + r * keys * size, keep.data(), p,
                              wide.data(), keys);
  }
  product.x = origin(probs);
  product.x_row_stride = keys;
  product.in_features = keys;
  product.w = static_cast<const std::byte*>(a.v) + kv;
  product.w_out_stride = 1;
  product.w_in_stride = a.kv_row_stride;
  product.out_features = d;
  product.y = static_cast<std::byte*>(a.context) + head * d * size;
  product.y_row_stride = a.heads * d;
  ReplayProduct(kernels_.isa, product, *block.context_rule, block.row_begin, block.row_end, 0, d);
}

}  // namespace samebits
