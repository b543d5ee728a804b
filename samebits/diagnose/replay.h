// One node, computed as some port may compute it: the node itself (its attributes, weights and
// inputs can be edited: a porting bug is a graph edit) and where that port rounds.
// Evaluate gives, from the candidate's own recorded inputs, what a legitimate implementation of
// exactly that may have produced: an interval for every element.
#pragma once

#include <algorithm>
#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "samebits/checkpoint/checkpoint.h"
#include "samebits/diagnose/dot_cache.h"
#include "samebits/graph/graph.h"
#include "samebits/kernels/thread_pool.h"
#include "samebits/numerics/exact.h"
#include "samebits/numerics/tail.h"

namespace samebits {

enum class BiasPlace {
  kBeforeRounding,  // Hugging Face: inside the sum
  kAfterRounding,   // the product is rounded, then each bias is added and rounded
  kBeforeAndAfter,  // one inside the sum, the further ones after the rounding
};

enum class ScalePlace {
  kAfterRounding,    // Hugging Face: round(round(q . k) * scale)
  kBeforeRounding,   // round(q . k * scale)
  kRoundedConstant,  // as kAfterRounding, the constant rounded to the model's dtype
  kOnQuery,          // round(round(q * scale) . k)
};

// Which keys a token sees. A window of the node cuts all but kNone off on the left.
enum class MaskKind {
  kCausal,   // key j is seen by token t when j <= t
  kNone,     // every key
  kLater,    // every key, as far as the window goes
  kNotSelf,  // j < t
  kNext,     // j <= t + 1
};

// How RMSNorm loses precision (all in the model's dtype).
struct NormPrecision {
  bool low = false;
  bool squares_rounded = false;
  enum class Finish { kFloat32, kRsqrt, kSqrtDivide } finish = Finish::kFloat32;
};

// How softmax or SiLU lose precision: 0 is the fp32 form, the others are the forms in ports, see
// low_precision.cc.
using LowPrecisionForm = int;
inline constexpr int kSoftmaxForms = 5;
inline constexpr int kActivationForms = 3;

// Outputs of a linear that are rows of other weights than its own, or of its own in another order:
// output n is row `row[n].second` of weights[row[n].first], with that row's bias if there is one.
struct RowMap {
  std::vector<std::string> weights, biases;  // biases: parallel, or empty
  std::vector<std::pair<int, int64_t>> row;
};

// Where rotary tables lose bits: the inverse frequency, the position, or their product.
enum class RotaryRounding { kNone, kFrequency, kPosition, kAngle };

// Attention in one kernel, of the output context: scores and softmax are never rounded to the
// model's dtype; the weights exp(s - max) are, for the product with v, or not.
enum class FusedAttention { kNone, kRoundedWeights, kFloat32 };

// What becomes of 1 + w: it stays in fp32, is rounded to the model's dtype, or was added to the
// weight as it is stored, in its dtype.
enum class OffsetPlace { kFloat32, kModel, kStored };

// Where tanh caps a value: in fp32 with one cast at the end, from what was rounded before or not,
// or with each step in the model's dtype.
struct Softcap {
  enum class Rounding { kEnd, kBeforeAndEnd, kSteps };
  double cap = 0;  // 0: none
  Rounding rounding = Rounding::kEnd;
};
inline constexpr Softcap::Rounding kSoftcapRoundings[] = {
    Softcap::Rounding::kEnd, Softcap::Rounding::kBeforeAndEnd, Softcap::Rounding::kSteps};

class SharedSums;

struct Replay {
  Node node;
  int output = 0;  // index into node.outputs

  // Where the port rounds (defaults: Hugging Face).
  BiasPlace bias_place = BiasPlace::kBeforeRounding;
  ScalePlace scale_place = ScalePlace::kAfterRounding;
  bool norm_weight_fp32 = false;
  bool rope_fp32 = false;
  bool all_scores = false;  // the masked ones, too
  bool kept_fp32 = false;   // the output stays in fp32 although the model runs in less
  FusedAttention fused = FusedAttention::kNone;
  bool truncate = false;          // every cast cuts bits off
  bool truncate_weights = false;  // the cast of the weights, too

  // How the port adds and multiplies, where that is not IEEE fp32 (exact.h).
  exact::Products products = exact::Products::kFull;
  bool truncating_sums = false;  // tensor cores: every addition may cut bits off
  double exp_error = 0;          // relative, of every exponential

  // What a graph can not say, since it is wrong.
  std::optional<DType> rounded_to;      // the output has the bits of this narrower dtype
  std::optional<DType> weight_through;  // the weights were rounded to this dtype before
  std::shared_ptr<const RowMap> row_map;
  double embedding_factor = 1;
  bool mean_subtracted = false;  // LayerNorm
  bool weight_left_out = false;  // of a norm
  bool norm_whole_row = false;   // the mean over all heads of a token
  bool norm_after_rope = false;  // of kRope: rotates, then normalises with node.weights
  int64_t rotary_dim = 0;        // only so many dimensions of a head are rotated; 0: all
  double frequency_dim = 0;      // denominator of the exponents of theta; 0: head_dim
  RotaryRounding rotary_rounding = RotaryRounding::kNone;
  DType rotary_dtype = DType::kBF16;
  bool heads_minor = false;          // reads [head_dim, heads] where [heads, head_dim] stands
  bool heads_minor_output = false;   // of context
  bool rotates_v = false;            // of context
  std::optional<DType> cache_dtype;  // k and v were rounded to this dtype, as a cache keeps them
  bool drops_first = false;          // kAdd: the residual is left out
  Softcap softcap;
  bool weight_transposed = false;
  int bias_times = 1;
  double weight_offset = 0;  // RMSNorm: 1 for (1 + w)
  OffsetPlace offset_place = OffsetPlace::kFloat32;
  bool norm_skipped = false;
  NormPrecision norm_precision;
  bool rotary_interleaved = false;  // cos, sin: columns 2i and 2i + 1 hold pair i
  double sin_sign = 1;              // rotary and rope
  int64_t position_offset = 0;
  int64_t offset_from = 0;          // only rows from here on are off
  bool rope_interleaved = false;    // pairs are (2i, 2i + 1)
  bool rope_angle_by_pair = false;  //   and pair i takes column i of cos and sin
  bool rope_output_halves = false;  //   and the output has the halves one after the other
  bool rope_skipped = false;
  bool kv_heads_tiled = false;  // head h reads kv head h mod K
  MaskKind mask = MaskKind::kCausal;
  LowPrecisionForm softmax_form = 0;
  LowPrecisionForm activation_form = 0;
};

// Where a replay takes tensors from: a candidate's trace, or a run of its own.
struct ReplaySource {
  const Graph* graph = nullptr;
  const Checkpoint* checkpoint = nullptr;
  ThreadPool* pool = nullptr;
  SharedSums* shared_sums = nullptr;         // null: this process computes them all
  DType dtype = DType::kF32;                 // the model's
  std::shared_ptr<DotCache> dots = nullptr;  // null: nothing is kept
  std::vector<int64_t> input_ids;
  std::vector<int64_t> positions;
  std::vector<int64_t> chunks;                                // tokens of each forward pass
  std::function<const TensorView*(std::string_view)> tensor;  // null when absent

  int64_t tokens() const { return static_cast<int64_t>(input_ids.size()); }
  // Of the text, as far as the positions go: what dynamic rope scaling goes by.
  int64_t length() const {
    int64_t last = -1;
    for (const int64_t position : positions) last = std::max(last, position);
    return last + 1;
  }
};

// Rows [row_begin, row_end) of one output: for [T, ...] tensors the elements of those tokens, for
// [H, T, S] tensors the elements [H, rows, S].
struct Expectation {
  int64_t columns = 1;        // last axis: what a tail's columns count
  std::vector<double> y;      // exact value of the uncertain stage
  std::vector<double> bound;  // B; empty: 0 everywhere
  double likely_share = 1;    // of B: what errors that are independent of each other need
  Tail tail;
  // Forms in low precision are not a sum with a tail: they give the outcomes themselves, and y is
  // the middle one (tail empty).
  std::vector<double> low, high;
  std::vector<uint8_t> ignore;  // empty, or 1 where an element can not be judged
};

struct RowRange {
  int64_t begin = 0, end = 0;
  int64_t size() const { return end - begin; }
};

// The names of the tensors that Evaluate reads for `output` of the node (input_ids and positions
// left out).
std::vector<std::string> RequiredTensors(const Replay& replay);

// Every required tensor must be there with the graph's shape. `stored` is the dtype of the tensor
// that is judged.
Expectation Evaluate(const Replay& replay, const ReplaySource& source, DType stored, RowRange rows);

// The outcomes of element i, for errors of up to `share` of B: the ends and the rounded exact one.
struct Interval {
  double low, middle, high;
};
Interval IntervalOf(const Expectation& e, size_t i, double share = 1);

// Rounding errors of a run of our own: every uncertain stage is moved within the share of B that is
// typical for its operation.
class RoundingNoise {
 public:
  explicit RoundingNoise(uint64_t seed) : random_(seed) {}
  double Of(double bound) { return bound * uniform_(random_); }

 private:
  std::mt19937_64 random_;
  std::uniform_real_distribution<double> uniform_{-1, 1};
};

// The share of B that a rounding error of this operation typically is.
double TypicalShare(const Replay& replay, int64_t keys);

// Writes the correctly rounded outcomes of `replay`, moved by `noise` unless that is null; elements
// that can not be judged are left as they are.
void StoreOutcomes(const Replay& replay, const Expectation& e, int64_t keys, RoundingNoise* noise,
                   Tensor& tensor);

// Multiplications of one output of a node for so many tokens, roughly.
double ReplayCost(const Replay& replay, int64_t tokens);

// The values of rows of a tensor in the layout of Expectation. `per_head` for [H, T, S] tensors.
std::vector<double> GatherRows(const TensorView& view, RowRange rows, bool per_head);

// Whether an output of the node has the layout [H, T, S].
bool IsPerHead(const Replay& replay);

}  // namespace samebits
