#include "samebits/diagnose/identity.h"

#include <algorithm>
#include <cstring>
#include <map>

#include "samebits/compare/metrics.h"

namespace samebits {
namespace {

// Keeps scores and probs, which come in pieces, as tensors [H, T, S].
class Keeper : public Recorder {
 public:
  explicit Keeper(std::map<std::string, Tensor, std::less<>>& tensors) : tensors_(tensors) {}

  bool Wants(std::string_view name) const override { return tensors_.contains(name); }

  void Record(std::string_view name, const TensorView& rows, int64_t first_token) override {
    Tensor& to = tensors_.find(name)->second;
    const int64_t size = DTypeSize(rows.dtype), all_keys = to.view().shape[2];
    const int64_t heads = rows.shape[0], count = rows.shape[1], keys = rows.shape[2];
    for (int64_t head = 0; head < heads; ++head) {
      for (int64_t row = 0; row < count; ++row) {
        const int64_t at = (head * to.view().shape[1] + first_token + row) * all_keys;
        std::memcpy(to.data() + at * size, rows.data + (head * count + row) * keys * size,
                    static_cast<size_t>(keys * size));
      }
    }
  }

 private:
  std::map<std::string, Tensor, std::less<>>& tensors_;
};

// Computes a node from recorded inputs.
class NodeRun {
 public:
  NodeRun(const Node& node, const ReplaySource& source, Arithmetic& arithmetic)
      : node_(node), source_(source), arithmetic_(arithmetic) {}

  // False when something is missing or stored in another dtype, or when there is nothing to compare
  // with: a small trace of many tokens must not cost the memory of what it leaves out.
  bool Ready() const {
    if (std::none_of(node_.outputs.begin(), node_.outputs.end(),
                     [this](const std::string& name) { return Recorded(name); })) {
      return false;
    }
    return std::all_of(node_.inputs.begin(), node_.inputs.end(), [this](const std::string& name) {
      return name == kInputIds || name == kPositions || Recorded(name);
    });
  }

  std::vector<Identity> Compare(const std::vector<int64_t>& chunks) {
    for (size_t i = 0; i < node_.outputs.size(); ++i) {
      const std::string& name = node_.outputs[i];
      // The kernels write all outputs but scores and probs.
      if (Recorded(name) || node_.kind != OpKind::kAttention || i == 2) {
        const Shape shape = OutputShape(*source_.graph, node_, name, source_.tokens());
        Tensor tensor(source_.dtype, shape);
        // Keys that a forward pass does not have yet have probability 0.
        std::memset(tensor.data(), 0,
                    static_cast<size_t>(tensor.elements() * DTypeSize(source_.dtype)));
        outputs_.emplace(name, std::move(tensor));
      }
    }
    int64_t begin = 0;
    for (const int64_t rows : chunks) {
      Compute(begin, rows);
      begin += rows;
    }
    std::vector<Identity> found;
    for (size_t i = 0; i < node_.outputs.size(); ++i) {
      const std::string& name = node_.outputs[i];
      if (!Recorded(name)) continue;
      std::function<bool(int64_t)> unseen;
      if (node_.kind == OpKind::kAttention && i == 0) unseen = Unseen();
      const Metrics metrics =
          CompareTensors(outputs_.at(name).view(), *source_.tensor(name), unseen);
      found.push_back({name, metrics.elements, metrics.differing});
      if (node_.kind == OpKind::kAttention && metrics.differing > 0) break;
    }
    return found;
  }

 private:
  bool Recorded(const std::string& name) const {
    const TensorView* view = source_.tensor(name);
    if (view == nullptr || view->dtype != source_.dtype) return false;
    const Node* producer = source_.graph->Producer(name);
    return producer != nullptr &&
           view->shape == OutputShape(*source_.graph, *producer, name, source_.tokens());
  }

  // Of scores: what a token does not see may hold anything.
  std::function<bool(int64_t)> Unseen() const {
    const int64_t keys = source_.tokens(), window = node_.attributes.window;
    return [keys, window](int64_t at) {
      const int64_t key = at % keys, token = at / keys % keys;
      return key > token || (window > 0 && key <= token - window);
    };
  }

  // Row `row` of an input or output.
  const std::byte* Input(size_t index, int64_t row) const {
    const TensorView& view = *source_.tensor(node_.inputs[index]);
    return view.data + row * (view.elements() / source_.tokens()) * DTypeSize(view.dtype);
  }
  std::byte* Output(size_t index, int64_t row) {
    Tensor& tensor = outputs_.at(node_.outputs[index]);
    return tensor.data() + row * (tensor.elements() / source_.tokens()) * DTypeSize(source_.dtype);
  }
  const TensorView& Weight(size_t index) const {
    return source_.checkpoint->Get(node_.weights[index]);
  }

  void Compute(int64_t begin, int64_t rows) {
    const Attributes& a = node_.attributes;
    const DType dtype = source_.dtype;
    const int64_t width = outputs_.begin()->second.elements() / source_.tokens();
    switch (node_.kind) {
      case OpKind::kEmbedding:
        return ComputeEmbedding(begin, rows);
      case OpKind::kRotary: {
        const std::vector<int64_t> lengths(static_cast<size_t>(rows), source_.length());
        const std::span<const int64_t> positions(source_.positions);
        return arithmetic_.Rotary(
            node_, dtype,
            {positions.subspan(static_cast<size_t>(begin), static_cast<size_t>(rows)), lengths},
            Output(0, begin), Output(1, begin));
      }
      case OpKind::kRmsNorm:
        return arithmetic_.RmsNorm(node_, {dtype, Weight(0).dtype, Input(0, begin), Weight(0).data,
                                           Output(0, begin), rows * std::max<int64_t>(1, a.heads),
                                           a.in_features, static_cast<float>(a.eps)});
      case OpKind::kLinear:
        return arithmetic_.Linear(node_, {dtype, Weight(0).dtype, Input(0, begin), Weight(0).data,
                                          node_.weights.size() > 1 ? Weight(1).data : nullptr,
                                          Output(0, begin), rows, a.in_features, a.out_features});
      case OpKind::kRope:
        return arithmetic_.Rope({dtype, Input(0, begin), Input(1, begin), Input(2, begin),
                                 Output(0, begin), rows, a.heads, a.head_dim});
      case OpKind::kAttention:
        return ComputeAttention(begin, rows);
      case OpKind::kAdd:
        return arithmetic_.Add(dtype, Input(0, begin), Input(1, begin), Output(0, begin), rows,
                               width);
      case OpKind::kMultiply:
        return arithmetic_.Multiply(dtype, Input(0, begin), Input(1, begin), Output(0, begin), rows,
                                    width);
      case OpKind::kActivation:
        return arithmetic_.Silu(node_, dtype, Input(0, begin), Output(0, begin), rows, width);
      case OpKind::kGather:
      case OpKind::kSend:
      case OpKind::kReceive:
        break;  // not in a whole graph
    }
  }

  void ComputeEmbedding(int64_t begin, int64_t rows) {
    Replay replay;
    replay.node = node_;
    // A row of the embedding, rounded once: deterministic, so any way of writing it will do.
    const Expectation e = Evaluate(replay, source_, source_.dtype, {begin, begin + rows});
    Tensor& y = outputs_.at(node_.outputs[0]);
    const int64_t first = begin * (y.elements() / source_.tokens());
    for (size_t i = 0; i < e.y.size(); ++i) StoreValue(y, first + static_cast<int64_t>(i), e.y[i]);
  }

  void ComputeAttention(int64_t begin, int64_t rows) {
    const Attributes& a = node_.attributes;
    AttentionArgs args{};
    args.dtype = source_.dtype;
    args.q = Input(0, begin);
    args.k = Input(1, 0);
    args.v = Input(2, 0);
    args.kv_head_stride = a.head_dim;
    args.kv_row_stride = a.kv_heads * a.head_dim;
    args.context = Output(2, begin);
    args.rows = rows;
    args.heads = a.heads;
    args.kv_heads = a.kv_heads;
    args.head_dim = a.head_dim;
    args.first_key_count = begin + 1;
    args.window = a.window;
    args.scale = a.scale;
    Keeper keeper(outputs_);
    const AttentionPart part{args, begin, 0, &keeper};
    arithmetic_.Attention(node_, {&part, 1});
  }

  const Node& node_;
  const ReplaySource& source_;
  Arithmetic& arithmetic_;
  std::map<std::string, Tensor, std::less<>> outputs_;
};

}  // namespace

std::vector<Identity> CompareBits(const Node& node, const ReplaySource& source,
                                  const std::vector<int64_t>& chunks, Arithmetic& arithmetic) {
  NodeRun run(node, source, arithmetic);
  return run.Ready() ? run.Compare(chunks) : std::vector<Identity>{};
}

}  // namespace samebits
