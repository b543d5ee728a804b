#include "samebits/engine/runtime.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <limits>
#include <map>
#include <optional>

#include "samebits/base/error.h"
#include "samebits/engine/canonical_arithmetic.h"
#include "samebits/engine/rank_exchange.h"
#include "samebits/engine/replay_arithmetic.h"
#include "samebits/engine/slot.h"
#include "samebits/numerics/element.h"

namespace samebits {
namespace {

using Clock = std::chrono::steady_clock;

// No index: of the token ids, which no node makes; of the reader of what nobody reads.
constexpr size_t kNone = std::numeric_limits<size_t>::max();

std::byte* Writable(const TensorView& view) { return const_cast<std::byte*>(view.data); }

// The share of the rank that this process is; nothing without ranks.
std::optional<Graph> ShareOf(const Graph& graph, const RuntimeOptions& options) {
  if (options.ranks == nullptr) return std::nullopt;
  // Torch's kernel cuts the work, and lays out its buffers, by all heads of a call.
  const bool whole =
      options.replay != nullptr && options.replay->attention() == AttentionKind::kSdpa;
  return SplitGraph(graph, options.parallel, options.ranks->rank(),
                    whole ? AttentionSplit::kWhole : AttentionSplit::kHeads);
}

std::unique_ptr<Arithmetic> MakeArithmetic(const RuntimeOptions& options) {
  if (options.replay == nullptr) {
    return std::make_unique<CanonicalArithmetic>(options.isa, options.threads);
  }
  if (options.replay->profile().dtype() != options.dtype) {
    Fail(ErrorCode::kUsage, "{}: a profile of {}; the model runs in {}",
         options.replay->profile().path(), ModelDTypeName(options.replay->profile().dtype()),
         ModelDTypeName(options.dtype));
  }
  return std::make_unique<ReplayArithmetic>(options.isa, options.threads, options.replay);
}

}  // namespace

struct Runtime::Impl {
  const std::optional<Graph> share;  // this rank's
  const Graph& graph;
  const Checkpoint& checkpoint;
  const RuntimeOptions options;
  const std::unique_ptr<Arithmetic> arithmetic;
  // A tensor that a node makes, as the current call has it.
  struct Value {
    size_t slot = 0;
    TensorView view;
    int64_t tokens = 0;  // that the view's shape is for
    uint64_t call = 0;   // that made it
  };
  struct Links {
    std::vector<size_t> inputs, outputs;  // indices of values
    std::vector<const TensorView*> weights;
  };
  std::vector<Slot> slots;
  std::vector<Value> values;
  std::vector<Links> links;  // of each node
  Clock::time_point counted;
  Traffic counted_traffic;
  uint64_t call = 0;

  // Of the current call: the rows of all parts, one part behind the other.
  struct PartRows {
    Sequence* sequence;
    Recorder* recorder;
    int64_t first, rows;  // of the call
    int64_t before;       // tokens of the sequence
    const Substitutes* substitutes;
  };
  std::vector<PartRows> parts;
  std::vector<int64_t> ids, positions;
  // For each row the length of text that its rotary embedding is made for, where that matters:
  // the prompt's, and behind the prompt what there is up to this token.
  std::vector<int64_t> text_lengths;
  // Of the tensors that are made now: those of the call, or the last of each part.
  int64_t rows = 0;
  size_t attention_index = 0;  // of the caches
  Slot gathered_rows, gathered_logits;
  const size_t first_for_logits;
  std::map<size_t, Slot> last_rows;  // of the values that those nodes read
  TensorView logits;
  std::optional<RankExchange> exchange;  // with ranks
  const Node* head = nullptr;            // the last linear layer, if it is run here

  Impl(const Graph& g, const Checkpoint& c, const RuntimeOptions& o)
      : share(ShareOf(g, o)),
        graph(share ? *share : g),
        checkpoint(c),
        options(o),
        arithmetic(MakeArithmetic(o)),
        first_for_logits(FirstForLogits(graph)) {
    if (o.ranks != nullptr) exchange.emplace(*o.ranks, o.parallel);
    for (const Node& node : graph.nodes) {
      if (node.name == g.nodes.back().name) head = &node;
    }
    LinkNodes();
    PlanSlots();
    if (o.node_costs != nullptr) o.node_costs->assign(graph.nodes.size(), {});
  }

  void LinkNodes();
  void PlanSlots();
  const Links& LinksOf(const Node& node) const {
    return links[static_cast<size_t>(&node - graph.nodes.data())];
  }
  const TensorView& Make(const Node& node, size_t output, int64_t tokens);
  const TensorView& Input(const Node& node, size_t index) const {
    return values[LinksOf(node).inputs[index]].view;
  }
  // What the node made in this call with a row for each token; nothing: scores and probs.
  const TensorView* Made(const Node& node, size_t output) const {
    const Value& value = values[LinksOf(node).outputs[output]];
    return value.call == call && value.view.shape[0] == rows ? &value.view : nullptr;
  }
  void Forward(std::span<const Part> given, bool want_logits);
  void KeepLastRows();
  // What was spent since the last call is this node's.
  void Count(size_t node);
  bool Overlaps(size_t index) const;
  void RunOverlapped(size_t index);
  LinearArgs LinearArgsOf(const Node& node, const TensorView& x, const TensorView& y,
                          const Range& of_rows) const;
  void Run(const Node& node);
  void RunEmbedding(const Node& node, const TensorView& weight);
  void RunRotary(const Node& node);
  void RunRmsNorm(const Node& node, const TensorView& weight);
  void RunLinear(const Node& node);
  void RunRope(const Node& node);
  void RunAttention(const Node& node);
  size_t RunTogether(size_t index);
  size_t LayersOfTheSameRows(size_t index) const;
  void RunLinearLayers(size_t index, size_t count);
  void RunElementwise(const Node& node);
  bool Activates(size_t index) const;
  void RunActivated(size_t index);
  void RunGather(const Node& node);
  void TakeLogits(const TensorView& y);
  void Finish();
  void Begin(std::span<const Part> given);
  void Substitute(const Node& node);
  bool AllSubstituted(const Node& node) const;
  void Record(const Node& node);
  TensorView LastRows(const TensorView& x, Slot& slot) const;
};

void Runtime::Impl::LinkNodes() {
  std::map<std::string, size_t, std::less<>> places;
  for (const Node& node : graph.nodes) {
    Links& link = links.emplace_back();
    for (const std::string& name : node.inputs) {
      const auto place = places.find(name);
      link.inputs.push_back(place == places.end() ? kNone : place->second);
    }
    for (const std::string& name : node.outputs) {
      link.outputs.push_back(values.size());
      places[name] = values.size();
      values.emplace_back();
    }
    for (const std::string& name : node.weights) {
      const auto other = options.weights.find(name);
      link.weights.push_back(other == options.weights.end() ? &checkpoint.Get(name)
                                                            : &other->second);
    }
  }
}

// A tensor's slot is free again behind the last node that reads it; what three nodes that overlap
// read or make, behind the third. What is computed element by element takes the place of an operand
// that nobody reads again: caches hold more of what is needed.
void Runtime::Impl::PlanSlots() {
  std::vector<size_t> last_use(values.size(), kNone);
  size_t overlap_end = 0;
  for (size_t i = 0; i < links.size(); ++i) {
    if (Overlaps(i)) overlap_end = i + 2;
    for (const size_t input : links[i].inputs) {
      if (input != kNone) last_use[input] = std::max(i, overlap_end);
    }
  }
  std::vector<std::vector<size_t>> ending(links.size());
  for (size_t value = 0; value < values.size(); ++value) {
    if (last_use[value] != kNone) ending[last_use[value]].push_back(value);
  }
  std::vector<size_t> free;
  size_t count = 0;
  for (size_t i = 0; i < links.size(); ++i) {
    const OpKind kind = graph.nodes[i].kind;
    const bool elementwise =
        kind == OpKind::kAdd || kind == OpKind::kActivation || kind == OpKind::kMultiply;
    if (elementwise && !ending[i].empty()) {
      free.push_back(values[ending[i].back()].slot);
      ending[i].pop_back();
    }
    for (const size_t output : links[i].outputs) {
      if (free.empty()) free.push_back(count++);
      values[output].slot = free.back();
      free.pop_back();
    }
    for (const size_t value : ending[i]) free.push_back(values[value].slot);
    for (const size_t output : links[i].outputs) {  // read by nobody: scores and probs
      if (last_use[output] == kNone && links[i].outputs.size() > 1) {
        free.push_back(values[output].slot);
      }
    }
  }
  slots.resize(count);
}

const TensorView& Runtime::Impl::Make(const Node& node, size_t output, int64_t tokens) {
  Value& value = values[LinksOf(node).outputs[output]];
  if (value.tokens != tokens) {
    value.view.dtype = options.dtype;
    value.view.shape = OutputShape(graph, node, node.outputs[output], tokens);
    value.tokens = tokens;
  }
  value.view.data = slots[value.slot].Reserve(value.view.bytes());
  value.call = call;
  return value.view;
}

void Runtime::Impl::RunEmbedding(const Node& node, const TensorView& weight) {
  const TensorView& y = Make(node, 0, rows);
  const int64_t size = weight.shape[1], row_bytes = size * DTypeSize(options.dtype);
  for (int64_t t = 0; t < rows; ++t) {
    const std::byte* from = weight.data + ids[t] * size * DTypeSize(weight.dtype);
    std::byte* to = Writable(y) + t * row_bytes;
    if (weight.dtype == options.dtype) {
      std::memcpy(to, from, static_cast<size_t>(row_bytes));
    } else {  // round: the weight, once, as a cast of all would
      for (int64_t i = 0; i < size; ++i) {
        StoreElement(options.dtype, to, i, LoadElement(weight.dtype, from, i));
      }
    }
  }
}

void Runtime::Impl::RunRotary(const Node& node) {
  const TensorView& cosine = Make(node, 0, rows);
  const TensorView& sine = Make(node, 1, rows);
  arithmetic->Rotary(node, options.dtype, {positions, text_lengths}, Writable(cosine),
                     Writable(sine));
}

void Runtime::Impl::RunRmsNorm(const Node& node, const TensorView& weight) {
  const TensorView& x = Input(node, 0);
  const TensorView& y = Make(node, 0, rows);
  const int64_t size = weight.shape[0];
  const int64_t count = x.bytes() / DTypeSize(options.dtype) / size;  // tokens, or heads of them
  arithmetic->RmsNorm(node, {options.dtype, weight.dtype, x.data, weight.data, Writable(y), count,
                             size, static_cast<float>(node.attributes.eps)});
}

// The last row of every part, in rows one after the other.
TensorView Runtime::Impl::LastRows(const TensorView& x, Slot& slot) const {
  if (x.shape[0] == static_cast<int64_t>(parts.size())) return x;  // these are they
  TensorView last = x;
  last.shape[0] = static_cast<int64_t>(parts.size());
  const int64_t row_bytes = last.bytes() / last.shape[0];
  if (parts.size() == 1) {
    last.data = x.data + (parts[0].rows - 1) * row_bytes;
    return last;
  }
  last.data = slot.Reserve(last.bytes());
  for (size_t i = 0; i < parts.size(); ++i) {
    std::memcpy(Writable(last) + static_cast<int64_t>(i) * row_bytes,
                x.data + (parts[i].first + parts[i].rows - 1) * row_bytes,
                static_cast<size_t>(row_bytes));
  }
  return last;
}

void Runtime::Impl::RunLinear(const Node& node) {
  // Nobody reads the logits of the other rows.
  const bool last_only =
      &node == head && std::none_of(parts.begin(), parts.end(), [&](const auto& p) {
        return p.recorder != nullptr && p.recorder->Wants(node.name);
      });
  const TensorView x = last_only ? LastRows(Input(node, 0), gathered_rows) : Input(node, 0);
  const int64_t count = last_only ? static_cast<int64_t>(parts.size()) : rows;
  const TensorView& y = Make(node, 0, count);
  arithmetic->Linear(node, LinearArgsOf(node, x, y, {0, count}));
  if (&node == head && !node.split) TakeLogits(y);
}

// So many linear layers from this one on read the same rows: q, k and v; gate and up.
size_t Runtime::Impl::LayersOfTheSameRows(size_t index) const {
  const auto rest = std::span(graph.nodes).subspan(index);
  const auto end = std::find_if_not(rest.begin(), rest.end(), [&](const Node& node) {
    return node.kind == OpKind::kLinear && &node != head && node.inputs[0] == rest[0].inputs[0];
  });
  return static_cast<size_t>(end - rest.begin());
}

void Runtime::Impl::RunLinearLayers(size_t index, size_t count) {
  const auto nodes = std::span(graph.nodes).subspan(index, count);
  std::vector<LinearArgs> layers;
  for (const Node& node : nodes) {
    layers.push_back(LinearArgsOf(node, Input(node, 0), Make(node, 0, rows), {0, rows}));
  }
  arithmetic->LinearLayers(nodes, layers);
  Count(index);
}

LinearArgs Runtime::Impl::LinearArgsOf(const Node& node, const TensorView& x, const TensorView& y,
                                       const Range& of_rows) const {
  const std::vector<const TensorView*>& w = LinksOf(node).weights;
  SAMEBITS_CHECK(w.size() < 2 || w[1]->dtype == w[0]->dtype, "bias and weight of one dtype");
  const int64_t in = node.attributes.in_features, out = node.attributes.out_features;
  // The rows of the weight that are this rank's.
  const int64_t first = node.split ? node.split.range().begin * node.split.unit : 0;
  const int64_t size = DTypeSize(w[0]->dtype), own_size = DTypeSize(options.dtype);
  return {options.dtype,
          w[0]->dtype,
          x.data + of_rows.begin * in * own_size,
          w[0]->data + first * in * size,
          w.size() > 1 ? w[1]->data + first * size : nullptr,
          Writable(y) + of_rows.begin * out * own_size,
          of_rows.size(),
          in,
          out};
}

// A linear layer between two gathers, in the arithmetic whose bits do not depend on how many rows
// are computed at once.
bool Runtime::Impl::Overlaps(size_t index) const {
  if (options.replay != nullptr || index + 2 >= graph.nodes.size()) return false;
  const Node &in = graph.nodes[index], &linear = graph.nodes[index + 1],
             &out = graph.nodes[index + 2];
  return in.kind == OpKind::kGather && linear.kind == OpKind::kLinear &&
         out.kind == OpKind::kGather && linear.inputs[0] == in.outputs[0] &&
         out.inputs[0] == linear.outputs[0];
}

// The pieces of the first gather travel while the layer computes with those that have arrived, and
// what it has made travels while it goes on.
void Runtime::Impl::RunOverlapped(size_t index) {
  const Node &in = graph.nodes[index], &linear = graph.nodes[index + 1],
             &out = graph.nodes[index + 2];
  const TensorView &x_share = Input(in, 0), &x = Make(in, 0, rows),
                   &y_share = Make(linear, 0, rows), &y = Make(out, 0, rows);
  std::vector<Range> pieces;
  for (int64_t row = 0; row < rows; row += options.exchange_rows) {
    pieces.push_back({row, std::min(rows, row + options.exchange_rows)});
  }
  std::vector<int64_t> arriving;
  arriving.reserve(pieces.size());
  for (const Range& piece : pieces) {
    arriving.push_back(exchange->BeginGather(in.split, piece, x_share, x));
  }
  int64_t last = 0;
  for (size_t i = 0; i < pieces.size(); ++i) {
    exchange->Wait(arriving[i]);
    Count(index);
    arithmetic->Linear(linear, LinearArgsOf(linear, x, y_share, pieces[i]));
    Count(index + 1);
    last = exchange->BeginGather(out.split, pieces[i], y_share, y);
  }
  exchange->Wait(last);
  Count(index + 2);
}

// y: the logits of all rows, or only those of each part's last one.
void Runtime::Impl::TakeLogits(const TensorView& y) { logits = LastRows(y, gathered_logits); }

void Runtime::Impl::RunGather(const Node& node) {
  const TensorView& x = Input(node, 0);
  const TensorView& y = Make(node, 0, x.shape[0]);
  exchange->Gather(node.split, x, y);
  if (head != nullptr && &node == &graph.nodes.back()) TakeLogits(y);
}

void Runtime::Impl::RunRope(const Node& node) {
  const TensorView& x = Input(node, 0);
  const TensorView& y = Make(node, 0, rows);
  arithmetic->Rope({options.dtype, x.data, Input(node, 1).data, Input(node, 2).data, Writable(y),
                    rows, node.attributes.heads, node.attributes.head_dim});
}

void Runtime::Impl::RunAttention(const Node& node) {
  const Attributes& a = node.attributes;
  const TensorView &q = Input(node, 0), &k = Input(node, 1), &v = Input(node, 2);
  const TensorView& context = Make(node, 2, rows);
  std::vector<AttentionPart> calls(parts.size());
  std::vector<ShareRecorder> shares;  // of scores and probs
  shares.reserve(parts.size());
  for (size_t i = 0; i < parts.size(); ++i) {
    const PartRows& part = parts[i];
    KvCache& cache = part.sequence->caches_[attention_index];
    const auto rows_of = [&part](const TensorView& view) {
      return view.data + view.bytes() / view.shape[0] * part.first;
    };
    cache.Append(rows_of(k), rows_of(v), part.rows, arithmetic->pool());
    calls[i].before = part.before;
    calls[i].padding = part.sequence->padding_;
    calls[i].recorder = part.recorder;
    if (exchange && part.recorder != nullptr) {
      shares.push_back({*exchange, i, *part.recorder, node.split});
      calls[i].recorder = &shares.back();
    }
    AttentionArgs& args = calls[i].args;
    args.dtype = options.dtype;
    args.q = rows_of(q);
    args.k = cache.keys();
    args.v = cache.values();
    args.kv_head_stride = cache.head_stride();
    args.kv_row_stride = a.head_dim;
    args.context = const_cast<std::byte*>(rows_of(context));
    args.rows = part.rows;
    args.heads = a.heads;
    args.kv_heads = a.kv_heads;
    args.head_dim = a.head_dim;
    args.first_key_count = part.before + 1;
    args.scale = a.scale;
    args.window = a.window;
  }
  ++attention_index;
  arithmetic->Attention(node, calls);
}

void Runtime::Impl::RunElementwise(const Node& node) {
  const TensorView& a = Input(node, 0);
  const TensorView& y = Make(node, 0, rows);
  const int64_t width = y.bytes() / DTypeSize(options.dtype) / rows;
  if (node.kind == OpKind::kActivation) {
    return arithmetic->Silu(node, options.dtype, a.data, Writable(y), rows, width);
  }
  const std::byte* b = Input(node, 1).data;
  if (node.kind == OpKind::kAdd) {
    arithmetic->Add(options.dtype, a.data, b, Writable(y), rows, width);
  } else {
    arithmetic->Multiply(options.dtype, a.data, b, Writable(y), rows, width);
  }
}

// An activation and the product behind it, which reads it.
bool Runtime::Impl::Activates(size_t index) const {
  if (index + 1 == graph.nodes.size()) return false;
  const Node &node = graph.nodes[index], &next = graph.nodes[index + 1];
  return node.kind == OpKind::kActivation && next.kind == OpKind::kMultiply &&
         next.inputs[0] == node.outputs[0];
}

void Runtime::Impl::RunActivated(size_t index) {
  const Node &node = graph.nodes[index], &product = graph.nodes[index + 1];
  const TensorView x = Input(node, 0), b = Input(product, 1);
  const TensorView activated = Make(node, 0, rows), y = Make(product, 0, rows);
  arithmetic->SiluMultiply(node, options.dtype, x.data, b.data, Writable(activated), Writable(y),
                           rows, y.bytes() / DTypeSize(options.dtype) / rows);
  Count(index);
}

void Runtime::Impl::Run(const Node& node) {
  const std::vector<const TensorView*>& node_weights = LinksOf(node).weights;
  switch (node.kind) {
    case OpKind::kEmbedding:
      return RunEmbedding(node, *node_weights[0]);
    case OpKind::kRotary:
      return RunRotary(node);
    case OpKind::kRmsNorm:
      return RunRmsNorm(node, *node_weights[0]);
    case OpKind::kLinear:
      return RunLinear(node);
    case OpKind::kRope:
      return RunRope(node);
    case OpKind::kAttention:
      return RunAttention(node);
    case OpKind::kAdd:
    case OpKind::kActivation:
    case OpKind::kMultiply:
      return RunElementwise(node);
    case OpKind::kGather:
      return RunGather(node);
    case OpKind::kSend:
      return exchange->SendOn(Input(node, 0));
    case OpKind::kReceive: {
      const TensorView& y = Make(node, 0, rows);
      return exchange->ReceiveFrom(y, Writable(y));
    }
  }
}

// Checks everything before it changes anything.
void Runtime::Impl::Begin(std::span<const Part> given) {
  SAMEBITS_CHECK(!given.empty(), "at least one part");
  SAMEBITS_CHECK(!exchange || std::all_of(given.begin(), given.end(),
                                          [](const Part& part) {
                                            return part.substitutes == nullptr ||
                                                   part.substitutes->empty();
                                          }),
                 "no substitutes with ranks");
  std::vector<PartRows> next;
  next.reserve(given.size());
  int64_t count = 0;
  for (const Part& part : given) {
    Sequence& sequence = *part.sequence;
    SAMEBITS_CHECK(sequence.graph_ == &graph && sequence.dtype_ == options.dtype,
                   "a sequence of this graph and dtype");
    SAMEBITS_CHECK(std::none_of(next.begin(), next.end(),
                                [&](const PartRows& p) { return p.sequence == &sequence; }),
                   "each sequence once");
    CheckIds(part.ids, graph.config, sequence.length());
    SAMEBITS_CHECK(part.positions.empty() || part.positions.size() == part.ids.size(),
                   "a position for each id");
    const auto part_rows = static_cast<int64_t>(part.ids.size());
    next.push_back(
        {&sequence, part.recorder, count, part_rows, sequence.length(), part.substitutes});
    count += part_rows;
  }
  parts = std::move(next);
  rows = count;
  ids.clear();
  positions.clear();
  text_lengths.clear();
  ++call;
  attention_index = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    Sequence& sequence = *parts[i].sequence;
    for (KvCache& cache : sequence.caches_) cache.Truncate(sequence.length_);
    if (sequence.planned_ == 0) sequence.planned_ = sequence.length_ + parts[i].rows;
    ids.insert(ids.end(), given[i].ids.begin(), given[i].ids.end());
    for (int64_t t = 0; t < parts[i].rows; ++t) {
      positions.push_back(given[i].positions.empty() ? parts[i].before + t
                                                     : given[i].positions[static_cast<size_t>(t)]);
      text_lengths.push_back(std::max(sequence.planned_, parts[i].before + t + 1));
    }
  }
}

// Whether every part brings what the node computes. Attention also fills the caches.
bool Runtime::Impl::AllSubstituted(const Node& node) const {
  if (node.kind == OpKind::kAttention || &node == head || exchange) return false;
  return std::all_of(node.outputs.begin(), node.outputs.end(), [&](const std::string& name) {
    return std::all_of(parts.begin(), parts.end(), [&](const PartRows& part) {
      return part.substitutes != nullptr && part.substitutes->contains(name);
    });
  });
}

void Runtime::Impl::Substitute(const Node& node) {
  for (const PartRows& part : parts) {
    if (part.substitutes == nullptr) continue;
    for (size_t i = 0; i < node.outputs.size(); ++i) {
      const TensorView* made = Made(node, i);
      const auto other = part.substitutes->find(node.outputs[i]);
      if (made == nullptr || other == part.substitutes->end()) continue;
      const TensorView& from = other->second;
      SAMEBITS_CHECK(from.dtype == options.dtype && from.shape[0] >= part.before + part.rows,
                     "a substitute in the model's dtype, with all rows");
      const int64_t row_bytes = made->bytes() / rows;
      std::memcpy(Writable(*made) + part.first * row_bytes, from.data + part.before * row_bytes,
                  static_cast<size_t>(part.rows * row_bytes));
    }
  }
}

// Scores and probs have been recorded with the attention; what is gathered or received has been by
// the node that made it.
void Runtime::Impl::Record(const Node& node) {
  if (node.kind == OpKind::kGather || node.kind == OpKind::kReceive) return;
  if (exchange && exchange->stage() > 0 && node.kind == OpKind::kRotary) return;
  for (const PartRows& part : parts) {
    if (part.recorder == nullptr) continue;
    for (size_t i = 0; i < node.outputs.size(); ++i) {
      const TensorView* made = Made(node, i);
      if (made == nullptr || !part.recorder->Wants(node.outputs[i])) continue;
      TensorView view = *made;
      view.data += view.bytes() / rows * part.first;
      view.shape[0] = part.rows;
      if (exchange) {
        exchange->Record(static_cast<size_t>(&part - parts.data()), *part.recorder, node.split,
                         node.outputs[i], view, part.before);
      } else {
        part.recorder->Record(node.outputs[i], view, part.before);
      }
    }
  }
}

// What the other stages have: their records for rank 0, the logits for all.
void Runtime::Impl::Finish() {
  std::vector<Recorder*> recorders;
  for (const PartRows& part : parts) recorders.push_back(part.recorder);
  if (std::any_of(recorders.begin(), recorders.end(), [](Recorder* r) { return r != nullptr; })) {
    exchange->FinishRecords(recorders);
  }
  if (head == nullptr) {
    logits.dtype = options.dtype;
    logits.shape = {static_cast<int64_t>(parts.size()), graph.config.vocab_size};
    logits.data = gathered_logits.Reserve(logits.bytes());
  }
  exchange->ShareLogits(Writable(logits), logits.bytes());
}

void Runtime::Impl::Count(size_t node) {
  if (options.node_costs == nullptr) return;
  NodeCost& cost = (*options.node_costs)[node];
  const Clock::time_point now = Clock::now();
  cost.seconds += std::chrono::duration<double>(now - counted).count();
  counted = now;
  if (options.ranks == nullptr) return;
  const Traffic traffic = options.ranks->traffic();
  cost.traffic += traffic - counted_traffic;
  counted_traffic = traffic;
}

// From here on nodes see the last row of each part.
void Runtime::Impl::KeepLastRows() {
  rows = static_cast<int64_t>(parts.size());
  for (size_t i = first_for_logits; i < links.size(); ++i) {
    for (const size_t input : links[i].inputs) {
      if (input == kNone || values[input].call != call) continue;  // not made yet
      TensorView& view = values[input].view;
      view = LastRows(view, last_rows[input]);
      values[input].tokens = 0;  // its shape is made anew in the next call
    }
  }
}

// Runs nodes together where nobody looks at what is made between them; so many: 0, none.
size_t Runtime::Impl::RunTogether(size_t index) {
  if (rows > options.exchange_rows && Overlaps(index)) {
    RunOverlapped(index);
    return 3;
  }
  if (Activates(index)) {
    RunActivated(index);
    return 2;
  }
  const size_t layers = LayersOfTheSameRows(index);
  if (layers < 2) return 0;
  RunLinearLayers(index, layers);
  return layers;
}

void Runtime::Impl::Forward(std::span<const Part> given, bool want_logits) {
  Begin(given);
  const bool observed = std::any_of(given.begin(), given.end(), [](const Part& part) {
    return part.recorder != nullptr || (part.substitutes != nullptr && !part.substitutes->empty());
  });
  counted = Clock::now();
  if (options.ranks != nullptr) counted_traffic = options.ranks->traffic();
  const size_t end = want_logits ? graph.nodes.size() : first_for_logits;
  for (size_t i = 0; i < end; ++i) {
    const Node& node = graph.nodes[i];
    if (i == first_for_logits && !observed && options.replay == nullptr) KeepLastRows();
    if (const size_t together = observed ? 0 : RunTogether(i); together > 0) {
      i += together - 1;
      continue;
    }
    if (AllSubstituted(node)) {
      for (size_t output = 0; output < node.outputs.size(); ++output) Make(node, output, rows);
    } else {
      Run(node);
    }
    Substitute(node);
    Record(node);
    Count(i);
  }
  if (exchange && want_logits) Finish();
  for (const PartRows& part : parts) part.sequence->length_ += part.rows;
}

Runtime::Runtime(const Graph& graph, const Checkpoint& checkpoint, const RuntimeOptions& options)
    : impl_(std::make_unique<Impl>(graph, checkpoint, options)) {}

Runtime::~Runtime() = default;

const Graph& Runtime::graph() const { return impl_->graph; }

Sequence Runtime::NewSequence() const { return {impl_->graph, impl_->options.dtype}; }

const TensorView& Runtime::Forward(Sequence& sequence, std::span<const int64_t> ids,
                                   Recorder* recorder) {
  const Part part{&sequence, ids, recorder};
  return Forward(std::span(&part, 1));
}

const TensorView& Runtime::Forward(std::span<const Part> parts) {
  impl_->Forward(parts, true);
  return impl_->logits;
}

void Runtime::Read(Sequence& sequence, std::span<const int64_t> ids) {
  const Part part{&sequence, ids};
  impl_->Forward(std::span(&part, 1), false);
}

}  // namespace samebits
