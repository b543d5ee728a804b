#include "samebits/compare/layouts.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <numeric>
#include <string_view>

namespace samebits {
namespace {

constexpr int64_t kMaxLines = 1 << 22;  // of a permutation: a hash and a place for each

// A tensor as rows of bytes.
struct Rows {
  const std::byte* data = nullptr;
  int64_t count = 0, bytes = 0;

  std::string_view row(int64_t i) const {
    return {reinterpret_cast<const char*>(data) + i * bytes, static_cast<size_t>(bytes)};
  }
};

Rows AsRows(const TensorView& view, int64_t block) {
  const int64_t count = view.shape[0] / block;
  return {view.data, count, view.bytes() / count};
}

uint64_t Mixed(uint64_t value) {
  value *= 0x9e3779b97f4a7c15U;
  return (value ^ (value >> 31)) * 0xbf58476d1ce4e5b9U;
}

template <typename T>
uint64_t SumOf(const TensorView& view) {
  uint64_t sum = 0;
  const int64_t n = view.elements();
  for (int64_t i = 0; i < n; ++i) sum += Mixed(view.as<T>()[i]);
  return sum;
}

// Does not depend on the order of the elements: two tensors of which one is the other in any order
// have the same sum, most others have not.
uint64_t SumOf(const TensorView& view) {
  switch (DTypeSize(view.dtype)) {
    case 1:
      return SumOf<uint8_t>(view);
    case 2:
      return SumOf<uint16_t>(view);
    case 4:
      return SumOf<uint32_t>(view);
    default:
      return SumOf<uint64_t>(view);
  }
}

// For each hash of b a place of a with the same hash, every place used once; equal hashes in
// order. Nothing when a hash has no place.
std::optional<std::vector<int64_t>> MatchHashes(const std::vector<uint64_t>& a,
                                                const std::vector<uint64_t>& b) {
  const auto sorted = [](const std::vector<uint64_t>& hashes) {
    std::vector<int64_t> order(hashes.size());
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(), [&hashes](int64_t x, int64_t y) {
      return hashes[x] != hashes[y] ? hashes[x] < hashes[y] : x < y;
    });
    return order;
  };
  const std::vector<int64_t> in_a = sorted(a), in_b = sorted(b);
  std::vector<int64_t> order(b.size());
  for (size_t i = 0; i < order.size(); ++i) {
    if (a[in_a[i]] != b[in_b[i]]) return std::nullopt;
    order[in_b[i]] = in_a[i];
  }
  return order;
}

bool RowsAre(const Rows& a, const Rows& b, const std::vector<int64_t>& order) {
  for (int64_t i = 0; i < b.count; ++i) {
    if (b.row(i) != a.row(order[i])) return false;
  }
  return true;
}

std::optional<std::vector<int64_t>> RowOrder(const Rows& a, const Rows& b) {
  if (a.count < 2 || a.count > kMaxLines) return std::nullopt;
  const auto hashes = [](const Rows& rows) {
    std::vector<uint64_t> result;
    for (int64_t i = 0; i < rows.count; ++i) {
      result.push_back(std::hash<std::string_view>()(rows.row(i)));
    }
    return result;
  };
  std::optional<std::vector<int64_t>> order = MatchHashes(hashes(a), hashes(b));
  if (order && !RowsAre(a, b, *order)) return std::nullopt;  // two rows with one hash
  return order;
}

// A hash of each block of `block` columns of a matrix [rows, columns], read row by row.
template <typename T>
std::vector<uint64_t> ColumnHashes(const TensorView& view, int64_t block) {
  const int64_t rows = view.shape[0], columns = view.shape[1];
  std::vector<uint64_t> hashes(static_cast<size_t>(columns / block));
  for (int64_t r = 0; r < rows; ++r) {
    const T* row = view.as<T>() + r * columns;
    for (int64_t c = 0; c < columns; ++c) {
      uint64_t& hash = hashes[c / block];
      hash = (hash + row[c] + 1) * 0x9e3779b97f4a7c15U;
      hash ^= hash >> 32;
    }
  }
  return hashes;
}

template <typename T>
std::optional<std::vector<int64_t>> ColumnOrder(const TensorView& a, const TensorView& b,
                                                int64_t block) {
  const int64_t rows = a.shape[0], columns = a.shape[1];
  if (columns / block < 2 || columns / block > kMaxLines) return std::nullopt;
  std::optional<std::vector<int64_t>> order =
      MatchHashes(ColumnHashes<T>(a, block), ColumnHashes<T>(b, block));
  if (!order) return std::nullopt;
  for (int64_t r = 0; r < rows; ++r) {
    const T* x = a.as<T>() + r * columns;
    const T* y = b.as<T>() + r * columns;
    for (int64_t c = 0; c < columns; ++c) {
      if (y[c] != x[(*order)[c / block] * block + c % block]) return std::nullopt;
    }
  }
  return order;
}

std::optional<std::vector<int64_t>> ColumnOrder(const TensorView& a, const TensorView& b,
                                                int64_t block) {
  switch (DTypeSize(a.dtype)) {
    case 1:
      return ColumnOrder<uint8_t>(a, b, block);
    case 2:
      return ColumnOrder<uint16_t>(a, b, block);
    case 4:
      return ColumnOrder<uint32_t>(a, b, block);
    default:
      return ColumnOrder<uint64_t>(a, b, block);
  }
}

bool IsTransposed(const TensorView& a, const TensorView& b) {
  constexpr int64_t kRows = 32;  // at once: a cache line of a holds as many 16-bit columns
  const int64_t rows = b.shape[0], row_bytes = b.bytes() / std::max<int64_t>(1, rows);
  std::vector<std::byte> strip(static_cast<size_t>(std::min(kRows, rows) * row_bytes));
  for (int64_t r = 0; r < rows; r += kRows) {
    const int64_t count = std::min(kRows, rows - r);
    TransposedRows(a, r, count, strip.data());
    if (std::memcmp(strip.data(), b.data + r * row_bytes, static_cast<size_t>(count * row_bytes)) !=
        0) {
      return false;
    }
  }
  return true;
}

template <typename T>
void TransposedRowsOf(const TensorView& view, int64_t begin, int64_t count, T* rows) {
  const int64_t n = view.shape[0], m = view.shape[1];
  for (int64_t i = 0; i < n; ++i) {
    const T* from = view.as<T>() + i * m + begin;
    for (int64_t r = 0; r < count; ++r) rows[r * n + i] = from[r];
  }
}

// Row i of b is row order[i] of a: pairs (2i, 2i + 1) of a head become halves.
std::vector<int64_t> PairsToHalves(int64_t rows, int64_t head_dim) {
  std::vector<int64_t> order(static_cast<size_t>(rows));
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t head = row / head_dim, place = row % head_dim, half = head_dim / 2;
    order[row] = head * head_dim + 2 * (place % half) + place / half;
  }
  return order;
}

std::optional<Relation> FindRotary(const TensorView& a, const TensorView& b, int64_t head_dim) {
  const int64_t rows = a.shape[0];
  if (head_dim < 4 || head_dim % 2 != 0 || rows % head_dim != 0 || rows > kMaxLines) {
    return std::nullopt;  // of two rows each is a pair and a half
  }
  const Rows in_a = AsRows(a, 1), in_b = AsRows(b, 1);
  const std::vector<int64_t> order = PairsToHalves(rows, head_dim);
  if (RowsAre(in_a, in_b, order)) return Relation{"rotary-pairs-to-halves", true, {}, 0, false};
  if (RowsAre(in_b, in_a, order)) return Relation{"rotary-halves-to-pairs", true, {}, 0, false};
  return std::nullopt;
}

std::optional<Relation> FindPermutation(const TensorView& a, const TensorView& b,
                                        int64_t head_dim) {
  const auto result = [](const char* id, std::optional<std::vector<int64_t>> order) {
    if (!order) return std::optional<Relation>();
    return std::optional<Relation>(Relation{id, true, std::move(*order), 0, false});
  };
  const auto blocks = [head_dim](int64_t size) { return head_dim > 1 && size % head_dim == 0; };
  if (blocks(a.shape[0])) {
    auto found = result("heads-permuted", RowOrder(AsRows(a, head_dim), AsRows(b, head_dim)));
    if (found) return found;
  }
  if (auto found = result("rows-permuted", RowOrder(AsRows(a, 1), AsRows(b, 1)))) return found;
  if (a.shape.size() != 2) return std::nullopt;
  if (blocks(a.shape[1])) {
    auto found = result("head-columns-permuted", ColumnOrder(a, b, head_dim));
    if (found) return found;
  }
  return result("columns-permuted", ColumnOrder(a, b, 1));
}

}  // namespace

bool ShapesAreTransposed(const Shape& a, const Shape& b) {
  return a.size() == 2 && b.size() == 2 && a[0] == b[1] && a[1] == b[0];
}

void TransposedRows(const TensorView& view, int64_t begin, int64_t count, std::byte* rows) {
  switch (DTypeSize(view.dtype)) {
    case 1:
      return TransposedRowsOf(view, begin, count, reinterpret_cast<uint8_t*>(rows));
    case 2:
      return TransposedRowsOf(view, begin, count, reinterpret_cast<uint16_t*>(rows));
    case 4:
      return TransposedRowsOf(view, begin, count, reinterpret_cast<uint32_t*>(rows));
    default:
      return TransposedRowsOf(view, begin, count, reinterpret_cast<uint64_t*>(rows));
  }
}

std::optional<Relation> FindLayout(const TensorView& a, const TensorView& b, int64_t head_dim) {
  const int64_t elements = a.elements();
  if (elements == 0) return std::nullopt;
  if (a.shape != b.shape && std::memcmp(a.data, b.data, static_cast<size_t>(a.bytes())) == 0) {
    return Relation{"reshaped", true, {}, 0, false};
  }
  if (a.shape.empty() || b.shape.empty() || SumOf(a) != SumOf(b)) return std::nullopt;
  if (ShapesAreTransposed(a.shape, b.shape) && IsTransposed(a, b)) {
    return Relation{"transposed", true, {}, 0, false};
  }
  if (a.shape != b.shape) return std::nullopt;
  if (auto found = FindRotary(a, b, head_dim)) return found;
  return FindPermutation(a, b, head_dim);
}

}  // namespace samebits
