// What the ranks of a run exchange beside and between their nodes: shares of tensors, the
// activations of a stage, recorded tensors on their way to rank 0, the logits.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "samebits/engine/communicator.h"
#include "samebits/engine/recorder.h"
#include "samebits/graph/parallel.h"

namespace samebits {

class RankExchange {
 public:
  RankExchange(Communicator& ranks, const ParallelPlan& plan);
  ~RankExchange();

  int stage() const { return ranks_.rank() / plan_.tp; }

  // own: [T, share]; all: [T, whole] of the same dtype.
  void Gather(const Split& split, const TensorView& own, const TensorView& all);
  // The same of some rows, while this thread does something else. They are there behind Wait with
  // the number that is returned; what was begun before is there as well. Until everything that was
  // begun has been waited for, no other exchange may be made.
  int64_t BeginGather(const Split& split, const Range& rows, const TensorView& own,
                      const TensorView& all);
  void Wait(int64_t number);
  // Between ranks of the same place in neighbouring stages.
  void SendOn(const TensorView& x) { ranks_.Send(ranks_.rank() + plan_.tp, x.data, x.bytes()); }
  void ReceiveFrom(const TensorView& x, std::byte* data) {
    ranks_.Receive(ranks_.rank() - plan_.tp, data, x.bytes());
  }
  // From the last stage to all ranks; nothing to do when there is one stage.
  void ShareLogits(std::byte* data, int64_t bytes);

  // Tensors of this rank's share become whole and reach the recorder of part `part` on rank 0. All
  // ranks of a stage call it, in one order, with recorders that want the same tensors.
  void Record(size_t part, Recorder& recorder, const Split& split, std::string_view name,
              const TensorView& rows, int64_t first_token);
  // Behind the last node, when any part has a recorder: rank 0 takes what the other stages
  // recorded.
  void FinishRecords(std::span<Recorder* const> recorders);

 private:
  class Background;

  // own: [rows, share], of elements of `size` bytes; all: [rows, whole].
  void GatherRows(const Split& split, int64_t rows, int64_t size, const std::byte* own,
                  std::byte* all);
  void SendRecord(size_t part, std::string_view name, const TensorView& rows, int64_t first_token);
  bool TakeRecord(int from, std::span<Recorder* const> recorders);

  Communicator& ranks_;
  const ParallelPlan plan_;
  std::vector<std::byte> staging_, recorded_;
  std::unique_ptr<Background> background_;  // from the first BeginGather on
};

// For a recorder of part `part`: takes scores and probs of this rank's heads.
class ShareRecorder : public Recorder {
 public:
  ShareRecorder(RankExchange& exchange, size_t part, Recorder& whole, const Split& split)
      : exchange_(exchange), part_(part), whole_(whole), split_(split) {}
  bool Wants(std::string_view name) const override { return whole_.Wants(name); }
  void Record(std::string_view name, const TensorView& rows, int64_t first_token) override {
    exchange_.Record(part_, whole_, split_, name, rows, first_token);
  }

 private:
  RankExchange& exchange_;
  const size_t part_;
  Recorder& whole_;
  const Split& split_;
};

}  // namespace samebits
