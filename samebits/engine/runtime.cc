#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <numeric>

#include "samebits/base/error.h"
#include "samebits/engine/kv_cache.h"
#include "samebits/engine/runtime.h"
#include "samebits/numerics/rope.h"
#include "samebits/tensor/convert.h"

namespace samebits {
namespace {

// Memory that several tensors use one after the other: as large as the largest so far.
class Slot {
 public:
  std::byte* Reserve(int64_t bytes) {
    if (bytes > size_) {
      size_ = (bytes + 4095) / 4096 * 4096;
      memory_.reset(static_cast<std::byte*>(std::aligned_alloc(64, static_cast<size_t>(size_))));
      if (memory_ == nullptr) Fail(ErrorCode::kIo, "out of memory: {} bytes", size_);
    }
    return memory_.get();
  }

 private:
  struct Free {
    void operator()(std::byte* p) const { std::free(p); }
  };
  std::unique_ptr<std::byte, Free> memory_;
  int64_t size_ = 0;
};

std::byte* Writable(const TensorView& view) { return const_cast<std::byte*>(view.data); }

// One row of a weight in the model's dtype.
void ConvertRow(const TensorView& weight, int64_t row, DType dtype, std::byte* target) {
  const int64_t size = weight.shape[1];
  const std::byte* source = weight.data + row * size * DTypeSize(weight.dtype);
  if (weight.dtype == dtype) {
    std::memcpy(target, source, static_cast<size_t>(size * DTypeSize(dtype)));
    return;
  }
  for (int64_t i = 0; i < size; ++i) {
    float value = 0;
    if (weight.dtype == DType::kF32) {
      value = reinterpret_cast<const float*>(source)[i];
    } else {
      const uint16_t bits = reinterpret_cast<const uint16_t*>(source)[i];
      value = weight.dtype == DType::kBF16 ? BF16ToFloat(bits) : F16ToFloat(bits);
    }
    if (dtype == DType::kF32) {
      reinterpret_cast<float*>(target)[i] = value;
    } else {  // round: the weight, once, as a cast of the whole checkpoint would
      reinterpret_cast<uint16_t*>(target)[i] =
          dtype == DType::kBF16 ? FloatToBF16(value) : FloatToF16(value);
    }
  }
}

}  // namespace

struct Runtime::Impl {
  const Graph& graph;
  const Checkpoint& checkpoint;
  const RuntimeOptions options;
  const Kernels& kernels;
  ThreadPool pool;
  std::map<std::string, int, std::less<>> slot_of;  // tensor -> slot
  std::vector<Slot> slots;
  std::map<std::string, TensorView, std::less<>> tensors;  // of the current chunk
  std::map<std::string, KvCache, std::less<>> caches;      // attention node -> cache
  std::vector<std::vector<const TensorView*>> weights;     // of each node
  int64_t length = 0;

  // Of the current chunk:
  std::span<const int64_t> ids;
  std::vector<int64_t> positions;
  Recorder* recorder = nullptr;
  int64_t rows() const { return static_cast<int64_t>(ids.size()); }

  Impl(const Graph& g, const Checkpoint& c, const RuntimeOptions& o)
      : graph(g), checkpoint(c), options(o), kernels(SelectKernels(o.isa)), pool(o.threads) {
    PlanSlots();
    for (const Node& node : graph.nodes) {
      weights.emplace_back();
      for (const std::string& name : node.weights) {
        weights.back().push_back(&checkpoint.Get(name));
      }
      if (node.kind == OpKind::kAttention) {
        caches.emplace(node.name,
                       KvCache(options.dtype, node.attributes.kv_heads, node.attributes.head_dim));
      }
    }
  }

  void PlanSlots();
  TensorView Make(const Node& node, const std::string& name, int64_t tokens);
  const TensorView& Input(const Node& node, size_t index) const {
    return tensors.find(node.inputs[index])->second;
  }
  void Run(const Node& node, const std::vector<const TensorView*>& node_weights);
  void RunEmbedding(const Node& node, const TensorView& weight);
  void RunRotary(const Node& node);
  void RunRmsNorm(const Node& node, const TensorView& weight);
  void RunLinear(const Node& node, const std::vector<const TensorView*>& node_weights);
  void RunRope(const Node& node);
  void RunAttention(const Node& node);
  void RunElementwise(const Node& node);
  void ForRows(int64_t count, int64_t row_work, const std::function<void(int64_t, int64_t)>& fn);
};

// A tensor's slot is free again behind the last node that reads it.
void Runtime::Impl::PlanSlots() {
  std::map<std::string, size_t, std::less<>> last_use;
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    for (const std::string& name : graph.nodes[i].inputs) last_use[name] = i;
  }
  std::vector<int> free;
  int count = 0;
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    for (const std::string& name : graph.nodes[i].outputs) {
      if (free.empty()) free.push_back(count++);
      slot_of[name] = free.back();
      free.pop_back();
    }
    for (const std::string& name : graph.nodes[i].inputs) {
      const auto used = slot_of.find(name);
      const bool last = used != slot_of.end() && last_use[name] == i;
      if (last && std::find(free.begin(), free.end(), used->second) == free.end()) {
        free.push_back(used->second);
      }
    }
    for (const std::string& name : graph.nodes[i].outputs) {  // read by nobody: scores and probs
      if (!last_use.contains(name) && graph.nodes[i].outputs.size() > 1) {
        free.push_back(slot_of[name]);
      }
    }
  }
  slots.resize(static_cast<size_t>(count));
}

TensorView Runtime::Impl::Make(const Node& node, const std::string& name, int64_t tokens) {
  TensorView view;
  view.dtype = options.dtype;
  view.shape = OutputShape(graph, node, name, tokens);
  view.data = slots[static_cast<size_t>(slot_of[name])].Reserve(view.bytes());
  tensors[name] = view;
  return view;
}

// Shares rows out when there is work enough for it.
void Runtime::Impl::ForRows(int64_t count, int64_t row_work,
                            const std::function<void(int64_t, int64_t)>& fn) {
  constexpr int64_t kPieceWork = 1 << 15;  // elements: some ten microseconds
  const int64_t piece_rows = std::max<int64_t>(1, kPieceWork / std::max<int64_t>(1, row_work));
  const int64_t pieces = (count + piece_rows - 1) / piece_rows;
  pool.ParallelFor(pieces, [&](int64_t piece) {
    fn(piece * piece_rows, std::min(count, (piece + 1) * piece_rows));
  });
}

void Runtime::Impl::RunEmbedding(const Node& node, const TensorView& weight) {
  const TensorView y = Make(node, node.name, rows());
  const int64_t row_bytes = weight.shape[1] * DTypeSize(options.dtype);
  for (int64_t t = 0; t < rows(); ++t) {
    ConvertRow(weight, ids[t], options.dtype, Writable(y) + t * row_bytes);
  }
}

void Runtime::Impl::RunRotary(const Node& node) {
  const TensorView cosine = Make(node, node.outputs[0], rows());
  const TensorView sine = Make(node, node.outputs[1], rows());
  const int64_t head_dim = node.attributes.head_dim;
  // The first forward of a text is its prompt.
  std::vector<int64_t> lengths;
  lengths.reserve(positions.size());
  for (const int64_t position : positions) {
    lengths.push_back(RopeLength(position, length == 0 ? rows() : 0));
  }
  const RotaryTable table = MakeRotaryTable(node.attributes.rope, head_dim, lengths);
  const RotaryArgs args{options.dtype,    positions.data(), table.inv_freq.data(),
                        table.row_stride, table.scaling,    Writable(cosine),
                        Writable(sine),   rows(),           head_dim};
  kernels.rotary(args, 0, rows());
}

void Runtime::Impl::RunRmsNorm(const Node& node, const TensorView& weight) {
  const TensorView& x = Input(node, 0);
  const TensorView y = Make(node, node.name, rows());
  const int64_t count = rows() * std::max<int64_t>(1, node.attributes.heads);  // rows of heads
  const RmsNormArgs args{
      options.dtype, weight.dtype, x.data,          weight.data,
      Writable(y),   count,        weight.shape[0], static_cast<float>(node.attributes.eps)};
  ForRows(count, args.size,
          [&](int64_t begin, int64_t end) { kernels.rms_norm(args, begin, end); });
}

void Runtime::Impl::RunLinear(const Node& node, const std::vector<const TensorView*>& w) {
  const TensorView& x = Input(node, 0);
  // Nobody reads the logits of the other rows.
  const bool last_only = &node == &graph.nodes.back() && recorder == nullptr;
  const int64_t count = last_only ? 1 : rows();
  const TensorView y = Make(node, node.name, count);
  const int64_t in = node.attributes.in_features, out = node.attributes.out_features;
  const LinearArgs args{options.dtype,
                        w[0]->dtype,
                        x.data + (last_only ? (rows() - 1) * in * DTypeSize(options.dtype) : 0),
                        w[0]->data,
                        w.size() > 1 ? w[1]->data : nullptr,
                        Writable(y),
                        count,
                        in,
                        out};
  SAMEBITS_CHECK(w.size() < 2 || w[1]->dtype == w[0]->dtype, "bias and weight of one dtype");
  // Pieces of a multiple of the kernels' blocks, some for every thread.
  constexpr int64_t kBlock = 24;
  const int64_t wanted = std::max<int64_t>(kBlock, out / (8 * options.threads));
  const int64_t piece_outs = (wanted + kBlock - 1) / kBlock * kBlock;
  pool.ParallelFor((out + piece_outs - 1) / piece_outs, [&](int64_t piece) {
    kernels.linear(args, 0, count, piece * piece_outs, std::min(out, (piece + 1) * piece_outs));
  });
}

void Runtime::Impl::RunRope(const Node& node) {
  const TensorView& x = Input(node, 0);
  const TensorView y = Make(node, node.name, rows());
  const RopeArgs args{options.dtype, x.data, Input(node, 1).data,   Input(node, 2).data,
                      Writable(y),   rows(), node.attributes.heads, node.attributes.head_dim};
  ForRows(rows(), args.heads * args.head_dim,
          [&](int64_t begin, int64_t end) { kernels.rope(args, begin, end); });
}

void Runtime::Impl::RunAttention(const Node& node) {
  const Attributes& a = node.attributes;
  KvCache& cache = caches.find(node.name)->second;
  cache.Append(Input(node, 1).data, Input(node, 2).data, rows());
  const TensorView context = Make(node, node.outputs[2], rows());
  AttentionArgs args{};
  args.dtype = options.dtype;
  args.q = Input(node, 0).data;
  args.k = cache.keys();
  args.v = cache.values();
  args.kv_head_stride = cache.head_stride();
  args.kv_row_stride = a.head_dim;
  args.context = Writable(context);
  args.rows = rows();
  args.heads = a.heads;
  args.kv_heads = a.kv_heads;
  args.head_dim = a.head_dim;
  args.first_key_count = length + 1;
  args.scale = a.scale;
  Tensor scores, probs;
  if (recorder != nullptr) {
    const Shape shape = {a.heads, rows(), length + rows()};
    scores = Tensor(options.dtype, shape);
    probs = Tensor(options.dtype, shape);
    args.scores = scores.data();
    args.probs = probs.data();
  }
  constexpr int64_t kRows = 8;
  const int64_t blocks = (rows() + kRows - 1) / kRows;
  pool.ParallelFor(a.heads * blocks, [&](int64_t piece) {
    const int64_t head = piece / blocks, block = piece % blocks;
    kernels.attention(args, head, head + 1, block * kRows, std::min(rows(), (block + 1) * kRows));
  });
  if (recorder != nullptr) {
    recorder->Record(node.outputs[0], scores.view(), length);
    recorder->Record(node.outputs[1], probs.view(), length);
  }
}

void Runtime::Impl::RunElementwise(const Node& node) {
  const TensorView& a = Input(node, 0);
  const TensorView y = Make(node, node.name, rows());
  const int64_t width = y.shape[1], size = DTypeSize(options.dtype);
  ForRows(rows(), width, [&](int64_t begin, int64_t end) {
    const int64_t at = begin * width * size, n = (end - begin) * width;
    if (node.kind == OpKind::kActivation) {
      kernels.silu(options.dtype, a.data + at, Writable(y) + at, n);
    } else {
      const TensorView& b = Input(node, 1);
      const auto fn = node.kind == OpKind::kAdd ? kernels.add : kernels.multiply;
      fn(options.dtype, a.data + at, b.data + at, Writable(y) + at, n);
    }
  });
}

void Runtime::Impl::Run(const Node& node, const std::vector<const TensorView*>& node_weights) {
  switch (node.kind) {
    case OpKind::kEmbedding:
      return RunEmbedding(node, *node_weights[0]);
    case OpKind::kRotary:
      return RunRotary(node);
    case OpKind::kRmsNorm:
      return RunRmsNorm(node, *node_weights[0]);
    case OpKind::kLinear:
      return RunLinear(node, node_weights);
    case OpKind::kRope:
      return RunRope(node);
    case OpKind::kAttention:
      return RunAttention(node);
    case OpKind::kAdd:
    case OpKind::kActivation:
    case OpKind::kMultiply:
      return RunElementwise(node);
  }
}

void CheckIds(std::span<const int64_t> ids, const ModelConfig& config, int64_t already) {
  if (ids.empty()) Fail(ErrorCode::kUsage, "no token ids: at least one is needed");
  for (int64_t id : ids) {
    if (id < 0 || id >= config.vocab_size) {
      Fail(ErrorCode::kUsage, "token id {}: expected 0 to {} (vocab_size - 1)", id,
           config.vocab_size - 1);
    }
  }
  const int64_t tokens = already + static_cast<int64_t>(ids.size());
  if (tokens > config.context_length) {
    Fail(ErrorCode::kUsage, "{} tokens: the model's context ends at {} (max_position_embeddings)",
         tokens, config.context_length);
  }
}

Runtime::Runtime(const Graph& graph, const Checkpoint& checkpoint, const RuntimeOptions& options)
    : impl_(std::make_unique<Impl>(graph, checkpoint, options)) {}

Runtime::~Runtime() = default;

int64_t Runtime::length() const { return impl_->length; }

const TensorView& Runtime::Forward(std::span<const int64_t> ids, Recorder* recorder) {
  Impl& impl = *impl_;
  CheckIds(ids, impl.graph.config, impl.length);
  const auto count = static_cast<int64_t>(ids.size());
  impl.ids = ids;
  impl.recorder = recorder;
  impl.positions.resize(ids.size());
  std::iota(impl.positions.begin(), impl.positions.end(), impl.length);
  impl.tensors.clear();
  for (size_t i = 0; i < impl.graph.nodes.size(); ++i) {
    const Node& node = impl.graph.nodes[i];
    impl.Run(node, impl.weights[i]);
    if (recorder == nullptr) continue;
    for (const std::string& name : node.outputs) {
      const auto made = impl.tensors.find(name);
      if (made != impl.tensors.end()) recorder->Record(name, made->second, impl.length);
    }
  }
  impl.length += count;
  TensorView& logits = impl.tensors.find(impl.graph.nodes.back().name)->second;
  const int64_t computed = logits.shape[0];
  logits.shape[0] = 1;
  logits.data += (computed - 1) * logits.bytes();
  return logits;
}

}  // namespace samebits
