// The model as data: a list of nodes in the order of execution. The engine runs it, traces are
// named by it, the judge replays single nodes of it and the diagnosis edits them. Left out: how it
// is run (cache, chunks, threads) is no part of it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "samebits/checkpoint/config.h"

namespace samebits {

enum class OpKind {
  kEmbedding,  // input_ids [T], weight [V, E] -> [T, E]
  kRotary,     // positions [T] -> cos [T, D], sin [T, D]
  kRmsNorm,    // x [T, E], weight [E] -> [T, E]; of heads: x [T, heads*D], weight [D] -> [T, heads,
               // D]
  kLinear,     // x [T, K], weight [N, K] (, bias [N]) -> [T, N]
  kRope,       // x [T, heads*D] or [T, heads, D], cos, sin -> [T, heads, D]
  kAttention,  // q_rope [T, H, D], k_rope [T, K, D], v_proj [T, K*D]
               //   -> scores [H, T, S], probs [H, T, S], context [T, H*D]
  kAdd,        // a [T, E] + b [T, E]
  kActivation,  // x [T, F] -> [T, F]
  kMultiply,    // a [T, F] * b [T, F]
  // Only in the graph of one of several ranks (graph/parallel.h):
  kGather,   // this rank's share of the columns of x [T, N] -> all of them
  kSend,     // x [T, E] to the next stage
  kReceive,  // -> x [T, E] of the stage before
};

std::string_view OpKindName(OpKind kind);  // "linear"

// Each op kind reads the fields named beside them; the others keep their defaults.
struct Attributes {
  double eps = 0;            // kRmsNorm: rms_norm_eps
  RopeParameters rope;       // kRotary
  int64_t head_dim = 0;      // kRotary, kRope, kAttention, kRmsNorm of heads: D
  int64_t heads = 0;         // kRope, kRmsNorm: heads of this tensor (0: no heads); kAttention: H
  int64_t kv_heads = 0;      // kAttention: K
  int64_t window = 0;        // kAttention: token p sees the keys p - window < j <= p; 0: all j <= p
  float scale = 0;           // kAttention: float32(head_dim ** -0.5)
  int64_t in_features = 0;   // kLinear: K;   kRmsNorm: E, or D of heads
  int64_t out_features = 0;  // kLinear: N
  std::string activation;    // kActivation: "silu"
};

// Half-open.
struct Range {
  int64_t begin = 0, end = 0;
  int64_t size() const { return end - begin; }
  bool operator==(const Range&) const = default;
};

// Which columns of a tensor's rows each rank of a stage computes, of `unit` elements each (1, or a
// head). Ranges may overlap (shared KV heads); together they are all of [0, whole).
struct Split {
  std::vector<Range> ranges;  // one a rank; empty: the tensor is whole
  size_t own = 0;             // this rank's
  int64_t whole = 0, unit = 1;

  explicit operator bool() const { return !ranges.empty(); }
  const Range& range() const { return ranges[own]; }
  bool operator==(const Split&) const = default;
};

struct Node {
  OpKind kind;
  std::string
      name;        // of its output; kAttention: "model.layers.N.self_attn", kRotary: "model.rotary"
  int layer = -1;  // -1 outside the layers
  std::vector<std::string> inputs;   // tensor names in the order of OpKind's comment
  std::vector<std::string> weights;  // checkpoint tensor names
  std::vector<std::string> outputs;  // tensor names as in docs/trace-format.md
  Attributes attributes;
  // Of the outputs; kGather: of its input. With one, the attributes' heads, kv_heads and
  // out_features are those of this rank, and kLinear reads only those rows of its weights.
  Split split = {};
  Split kv_split = {};  // kAttention: of k and v
};

struct Graph {
  ModelConfig config;
  std::vector<Node> nodes;

  // The node that computes a tensor; null when there is none.
  const Node* Producer(std::string_view tensor) const;
};

// Names of the two tensors that no node computes.
inline constexpr std::string_view kInputIds = "input_ids";
inline constexpr std::string_view kPositions = "positions";

// The nodes from this index on reach nothing but the logits: behind the last attention, which fills
// the last cache.
size_t FirstForLogits(const Graph& graph);

// Shape of any output of `node` for `tokens` tokens.
std::vector<int64_t> OutputShape(const Graph& graph, const Node& node, std::string_view output,
                                 int64_t tokens);

// Builds the graph of config.model_type ("llama", "mistral", "qwen2", "qwen3"); throws
// Error(kUnsupported) with the reasons of config.unsupported.
Graph BuildGraph(const ModelConfig& config);

}  // namespace samebits
