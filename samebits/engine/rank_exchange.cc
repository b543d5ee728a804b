#include "samebits/engine/rank_exchange.h"

#include <array>
#include <cstring>
#include <string>

#include "samebits/base/error.h"

namespace samebits {
namespace {

constexpr size_t kMaxRank = 3;  // [H, rows, keys]

// In front of a recorded tensor's name and bytes; part -1: no more.
struct RecordHeader {
  int64_t part = -1, name_size = 0, dtype = 0, first_token = 0, rank = 0;
  std::array<int64_t, kMaxRank> shape = {};
};

// Outputs of attention with a row for each head, not for each token.
bool RowsAreHeads(std::string_view name) {
  return name.ends_with(".scores") || name.ends_with(".probs");
}

}  // namespace

RankExchange::RankExchange(Communicator& ranks, const ParallelPlan& plan)
    : ranks_(ranks), plan_(plan) {
  SAMEBITS_CHECK(ranks.size() == plan.ranks(), "as many ranks as the plan has");
}

void RankExchange::Gather(const Split& split, int64_t rows, int64_t size, const std::byte* own,
                          std::byte* all) {
  const int64_t unit = split.unit * size;
  std::vector<int64_t> bytes;
  int64_t total = 0;
  bool in_place = rows == 1;  // one row's shares lie one behind the other
  for (const Range& range : split.ranges) {
    in_place = in_place && range.begin * unit == total;
    bytes.push_back(rows * range.size() * unit);
    total += bytes.back();
  }
  const int first = stage() * plan_.tp;
  if (in_place) return ranks_.AllGather(first, own, bytes, all);
  staging_.resize(static_cast<size_t>(total));
  ranks_.AllGather(first, own, bytes, staging_.data());
  const std::byte* from = staging_.data();
  for (const Range& range : split.ranges) {
    const int64_t share = range.size() * unit;
    for (int64_t row = 0; row < rows; ++row, from += share) {
      std::memcpy(all + row * split.whole * unit + range.begin * unit, from,
                  static_cast<size_t>(share));
    }
  }
}

void RankExchange::ShareLogits(std::byte* data, int64_t bytes) {
  if (plan_.pp > 1) ranks_.Broadcast((plan_.pp - 1) * plan_.tp, data, bytes);
}

void RankExchange::Record(size_t part, Recorder& recorder, const Split& split,
                          std::string_view name, const TensorView& rows, int64_t first_token) {
  TensorView whole = rows;
  if (split) {
    const int64_t size = DTypeSize(rows.dtype);
    if (RowsAreHeads(name)) {
      Split heads = split;
      heads.unit = rows.shape[1] * rows.shape[2];
      whole.shape[0] = split.whole;
      recorded_.resize(static_cast<size_t>(whole.bytes()));
      Gather(heads, 1, size, rows.data, recorded_.data());
    } else {
      // [T, columns] or [T, heads, D]
      whole.shape[1] = split.whole * (rows.shape.size() == 2 ? split.unit : 1);
      recorded_.resize(static_cast<size_t>(whole.bytes()));
      Gather(split, rows.shape[0], size, rows.data, recorded_.data());
    }
    whole.data = recorded_.data();
  }
  if (ranks_.rank() == 0) return recorder.Record(name, whole, first_token);
  if (ranks_.rank() % plan_.tp == 0) SendRecord(part, name, whole, first_token);
}

void RankExchange::SendRecord(size_t part, std::string_view name, const TensorView& rows,
                              int64_t first_token) {
  SAMEBITS_CHECK(rows.shape.size() <= kMaxRank, "a tensor of a trace");
  RecordHeader header{static_cast<int64_t>(part),
                      static_cast<int64_t>(name.size()),
                      static_cast<int64_t>(rows.dtype),
                      first_token,
                      static_cast<int64_t>(rows.shape.size()),
                      {}};
  std::copy(rows.shape.begin(), rows.shape.end(), header.shape.begin());
  ranks_.Send(0, &header, sizeof(header));
  ranks_.Send(0, name.data(), header.name_size);
  ranks_.Send(0, rows.data, rows.bytes());
}

bool RankExchange::TakeRecord(int from, std::span<Recorder* const> recorders) {
  RecordHeader header;
  ranks_.Receive(from, &header, sizeof(header));
  if (header.part < 0) return false;
  std::string name(static_cast<size_t>(header.name_size), '\0');
  ranks_.Receive(from, name.data(), header.name_size);
  TensorView view;
  view.dtype = static_cast<DType>(header.dtype);
  view.shape.assign(header.shape.begin(), header.shape.begin() + header.rank);
  recorded_.resize(static_cast<size_t>(view.bytes()));
  view.data = recorded_.data();
  ranks_.Receive(from, recorded_.data(), view.bytes());
  recorders[static_cast<size_t>(header.part)]->Record(name, view, header.first_token);
  return true;
}

void RankExchange::FinishRecords(std::span<Recorder* const> recorders) {
  if (ranks_.rank() != 0) {
    const RecordHeader end;
    if (ranks_.rank() % plan_.tp == 0) ranks_.Send(0, &end, sizeof(end));
    return;
  }
  for (int stage = 1; stage < plan_.pp; ++stage) {
    while (TakeRecord(stage * plan_.tp, recorders)) {
    }
  }
}

}  // namespace samebits
