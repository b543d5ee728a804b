// Orders of summation as values: in which order a framework's kernel adds the products of one dot
// product. A profile (docs/profile-format.md) holds them as JSON; Dot() is the scalar interpreter
// and thereby the definition, kernels/replay.h has fast kernels for the common ones. Measured
// orders: docs/numerics/torch-linear.md. Left out: which output has which order (sum_rule.h).
//
// Everything is fp32. A product joins a sum either fused, sum = fma(x, w, sum), or rounded,
// sum = sum + x * w. Denormals are kept unless an order says flush.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "samebits/base/json.h"

namespace samebits {

enum class ProductKind : uint8_t { kFused, kRounded };

// Where the elements before the first vector come from: an address, as loops that want aligned
// loads do. The count is `least` + the number of elements from there to the next multiple of 16
// bytes, where `least` itself is the first to be tried: least 0 gives 0..3, least 1 gives 1..4.
enum class PeelFrom : uint8_t { kCount, kX, kW, kY };
struct Peel {
  PeelFrom from = PeelFrom::kCount;
  int32_t count = 0;  // kCount: just this many
  int32_t least = 0;  // 0 or 1
  int32_t row = -1;   // whose address: this row of the matrix; -1: the output's own row
  bool operator==(const Peel&) const = default;
};

// Chains: one sum over each block of elements in ascending order, from +0; the blocks' sums are
// added in order to c (the bias, the old output, or +0):
//   for each block: s = 0; for k in block: s joined by x[k] w[k]; c = c + s
enum class Halving : uint8_t {
  kDown,  // all elements: a block has size / 2
  kUp,    // all elements: a block has (size + 1) / 2
  kRest,  // what is left where a block begins: it has (rest + 1) / 2
};
struct ChainOrder {
  int64_t block = 0;        // elements of a block; 0: all elements are one block
  int64_t halve_below = 0;  // more than a block but fewer elements than this are halved
  Halving halve = Halving::kDown;
  // Elements of a part, as one of several threads takes it: a part is cut into blocks as if it were
  // all. The first part's sums are added to c, those of each later part to each other before their
  // sum is. 0: no parts.
  int64_t part = 0;
  // Steps of a group of elements, where a step is a sum tree in postfix form (element of the group,
  // or kJoin: the two before are added). A step of one element is a product joining the sum; any
  // other adds rounded products to each other and their total to the sum. Empty: one by one.
  // Inside a step too a single element on the right joins the sum on its left as `product` says.
  // {{1}, {0}} is VDPBF16PS; {{0, 2, kJoin, 1, 3, kJoin, kJoin}} adds ((p0 + p2) + (p1 + p3)).
  std::vector<std::vector<int32_t>> group;
  // Elements of a tile: its even elements are one chain and its odd ones another, both from +0; the
  // two are joined, and that joins the block's sum. The last tile of a block may be shorter. It is
  // TDPBF16PS of AMX with 32. 0: no tiles. Goes with no group.
  int64_t tile = 0;
  bool tail_descending = false;  // elements of an incomplete last group, last one first
  bool start_in_chain = false;   // c is where the (only) chain starts: s = c instead of 0 and c + s
  bool first_set = false;        // c = s instead of c = 0 + s where there is no c: keeps a -0
  bool flush = false;            // inside blocks: denormal inputs and results count as 0
  ProductKind product = ProductKind::kFused;
  bool operator==(const ChainOrder&) const = default;
};
constexpr int32_t kJoin = -1;

// Lanes: `peel` elements one by one; then stages, each taking as many complete turns of vectors x
// lanes elements as are left; vector v of a turn joins accumulator v mod accumulators, lane by
// lane. Accumulators and then lanes are joined; the totals of later stages are added to the first.
// Then the elements that are left, one by one. c is added last: c + total.
enum class Joining : uint8_t {
  kHalves,    // for d = n/2, n/4 .. 1: v[i] = v[i] + v[i + d]
  kSequence,  // ((v[0] + v[1]) + v[2]) + ...
  kQuarters,  // lanes only: v[i] = ((v[i] + v[i + 4]) + v[i + 8]) + ..; (v[0] + v[1]) + (v[2] +
              // v[3])
};
enum class LaneTail : uint8_t {
  kSequence,  // what is left joins the total one by one
  kLane0,     // it joins lane 0 of the last stage before its joins
  kLanes,     // it is one more turn of the last stage, as far as it goes
};
enum class StageStart : uint8_t {
  kZero,   // all lanes start at +0
  kLanes,  // accumulator 0 starts where the stage before ended, lane by lane: those are not joined
  kTotal,  // lane 0 of accumulator 0 starts at the total so far, which nothing is added to
};
struct LaneStage {
  int32_t lanes = 8;
  int32_t vectors = 1;       // of one turn
  int32_t accumulators = 1;  // divides vectors
  Joining join_accumulators = Joining::kHalves;
  Joining join_lanes = Joining::kHalves;
  // Not empty: lanes are joined in these steps instead, for each d: v[i] = v[i] + v[i xor d] for
  // all i. Each power of two below `lanes` once; kHalves is lanes/2 .. 1.
  std::vector<int32_t> lane_distances;
  StageStart start = StageStart::kZero;  // of the first stage: kZero
  bool operator==(const LaneStage&) const = default;
};
struct LaneOrder {
  Peel peel;  // their sum is where lane 0 of accumulator 0 of the first stage starts
  std::vector<LaneStage> stages;
  LaneTail tail = LaneTail::kSequence;
  bool peel_last = false;  // the peel's sum is no start: the total is added to it
  // Two vectors of a turn share 2 x lanes elements: the first takes the odd ones, the second the
  // even ones, which is VDPBF16PS. With a single stage, no peel and kLanes, where zeros fill the
  // last 2 x lanes elements.
  bool pairs = false;
  bool flush = false;  // where products join: denormal inputs and results count as 0
  ProductKind product = ProductKind::kFused;
  ProductKind tail_product = ProductKind::kFused;
  bool operator==(const LaneOrder&) const = default;
};

// The last resort: a tree of additions of rounded or fused products for one size, in postfix form
// (element, or kJoin). Fused: a join whose right side is an element is fma(x, w, left).
struct TreeOrder {
  std::vector<int32_t> postfix;
  ProductKind product = ProductKind::kRounded;
  bool operator==(const TreeOrder&) const = default;
};

using SumOrder = std::variant<ChainOrder, LaneOrder, TreeOrder>;

// sum_k x[k] w[k], and c. `has_c` false: there is none (c = 0 is not read). `peel`: resolved by
// sum_rule.h; only LaneOrder looks at it. A TreeOrder must have been made for this size.
float Dot(const SumOrder& order, int64_t size, const float* x, const float* w, bool has_c, float c,
          int32_t peel);

// Joins the lanes of a stage, which it may change.
float JoinLanes(const LaneStage& stage, float* lanes);

// Whether the sum of the block that begins at `begin` is added to c, alone or with the further
// blocks of its part; otherwise it is added to the block before.
bool BeginsSum(const ChainOrder& order, int64_t begin);

// Where the block of `size` elements that begins at `begin` < size ends.
int64_t BlockEnd(const ChainOrder& order, int64_t size, int64_t begin);

// Throws Error(kBadInput) that starts with `place`.
SumOrder ReadSumOrder(const Json& json, const std::string& place);
Peel ReadPeel(const Json& json, const std::string& place);

}  // namespace samebits
