#include "samebits/numerics/sum_rule.h"

#include <algorithm>

#include "samebits/base/error.h"
#include "samebits/numerics/element.h"

namespace samebits {
namespace {

float LoadWeight(const ProductArgs& a, const void* data, int64_t i) {
  const float value = LoadElement(a.weight_dtype, data, i);
  return a.weight_dtype == a.dtype ? value : RoundElement(a.dtype, value);
}

// Half-open ranges of outputs n of a class of columns.
struct Range {
  int64_t begin, end;
};

Range Columns(const ColumnClass& columns, int64_t out, int32_t peel) {
  const int64_t complete = out / columns.count * columns.count;
  switch (columns.kind) {
    case ColumnKind::kAll:
      return {0, out};
    case ColumnKind::kComplete:
      return {0, complete};
    case ColumnKind::kRest:
      if (columns.at < 0) return {complete, out};
      return {std::min(out, complete + columns.at), std::min(out, complete + columns.at + 1)};
    case ColumnKind::kInPeel:
      return {0, std::min<int64_t>(peel, out)};
    case ColumnKind::kAfterPeel:
      return {std::min<int64_t>(peel, out), out};
  }
  return {0, 0};
}

int32_t ResolvePeel(const Peel& peel, const ProductArgs& a, int64_t row, int64_t out) {
  if (peel.from == PeelFrom::kCount) return peel.count;
  int64_t position = 0;
  if (peel.from == PeelFrom::kX) {
    position = a.alignment.x + (peel.row >= 0 ? peel.row : row) * a.x_row_stride;
  } else if (peel.from == PeelFrom::kW) {
    position = a.alignment.w + (peel.row >= 0 ? peel.row : out) * a.w_out_stride;
  } else {
    position = a.alignment.y + (peel.row >= 0 ? peel.row : row) * a.y_row_stride;
  }
  // The elements from position + least on to the next multiple of four, and those `least`.
  return static_cast<int32_t>(peel.least + ((-(position + peel.least)) & 3));
}

bool DependsOnRow(const Peel& peel, const ProductArgs& a) {
  return peel.row < 0 && ((peel.from == PeelFrom::kX && a.x_row_stride % 4 != 0) ||
                          (peel.from == PeelFrom::kY && a.y_row_stride % 4 != 0));
}

bool DependsOnOut(const Peel& peel, const ProductArgs& a) {
  return peel.row < 0 && peel.from == PeelFrom::kW && a.w_out_stride % 4 != 0;
}

const Peel* OrderPeel(const SumOrder& order) {
  const auto* lanes = std::get_if<LaneOrder>(&order);
  return lanes == nullptr ? nullptr : &lanes->peel;
}

// Appends the regions of one class, cut where the peel changes from row to row or out to out.
void AppendRegions(const OrderClass& c, const ProductArgs& a, std::vector<OrderRegion>& regions) {
  const int64_t last = c.row_end < 0 ? a.rows : std::min(c.row_end, a.rows);
  const Peel* peel = OrderPeel(c.order);
  const bool by_row =
      DependsOnRow(c.columns.peel, a) || (peel != nullptr && DependsOnRow(*peel, a));
  for (int64_t row = c.row_begin; row < last;) {
    const int64_t row_end = by_row ? row + 1 : last;
    const Range range =
        Columns(c.columns, a.out_features, ResolvePeel(c.columns.peel, a, row, /*out=*/0));
    for (int64_t out = range.begin; out < range.end;) {
      const int64_t end = peel != nullptr && DependsOnOut(*peel, a) ? out + 1 : range.end;
      regions.push_back({row, row_end, out, end, &c.order,
                         peel == nullptr ? 0 : ResolvePeel(*peel, a, row, out)});
      out = end;
    }
    row = row_end;
  }
}

bool Overlap(const OrderRegion& a, const OrderRegion& b) {
  return a.row_begin < b.row_end && b.row_begin < a.row_end && a.out_begin < b.out_end &&
         b.out_begin < a.out_end;
}

void ProductRegion(const ProductArgs& a, BiasRule bias, const OrderRegion& r) {
  const int64_t size = a.in_features;
  std::vector<float> x(static_cast<size_t>(size)), w(static_cast<size_t>(size));
  const bool has_c = a.bias != nullptr || a.accumulate;
  for (int64_t n = r.out_begin; n < r.out_end; ++n) {
    for (int64_t k = 0; k < size; ++k) {
      w[k] = LoadWeight(a, a.w, n * a.w_out_stride + k * a.w_in_stride);
    }
    for (int64_t m = r.row_begin; m < r.row_end; ++m) {
      for (int64_t k = 0; k < size; ++k) x[k] = LoadElement(a.dtype, a.x, m * a.x_row_stride + k);
      const int64_t at = m * a.y_row_stride + n;
      const float c = a.bias != nullptr ? LoadWeight(a, a.bias, n)
                      : a.accumulate    ? LoadElement(a.y_dtype, a.y, at)
                                        : 0.0F;
      if (bias == BiasRule::kFirst || !has_c) {
        StoreElement(a.y_dtype, a.y, at, Dot(*r.order, size, x.data(), w.data(), has_c, c, r.peel));
        continue;
      }
      float sum = Dot(*r.order, size, x.data(), w.data(), /*has_c=*/false, 0.0F, r.peel);
      if (bias == BiasRule::kRounded)
        sum = RoundElement(a.y_dtype, sum);       // round: a separate addition
      StoreElement(a.y_dtype, a.y, at, c + sum);  // round: to the output's dtype
    }
  }
}

}  // namespace

ProductArgs ProductOf(const LinearArgs& args, const Alignment& alignment) {
  return {.dtype = args.dtype,
          .weight_dtype = args.weight_dtype,
          .y_dtype = args.dtype,
          .x = args.x,
          .w = args.w,
          .bias = args.bias,
          .y = args.y,
          .accumulate = false,
          .rows = args.rows,
          .in_features = args.in_features,
          .out_features = args.out_features,
          .x_row_stride = args.in_features,
          .w_out_stride = args.in_features,
          .w_in_stride = 1,
          .y_row_stride = args.out_features,
          .alignment = alignment};
}

std::vector<OrderRegion> Regions(const SumRule& rule, const ProductArgs& args) {
  std::vector<OrderRegion> regions;
  for (const OrderClass& c : rule.classes) {
    const auto* tree = std::get_if<TreeOrder>(&c.order);
    if (tree != nullptr && std::ssize(tree->postfix) != 2 * args.in_features - 1) {
      Fail(ErrorCode::kBadInput, "{}: a tree of {} elements, for a product of {}", rule.place,
           (tree->postfix.size() + 1) / 2, args.in_features);
    }
    AppendRegions(c, args, regions);
  }
  int64_t outputs = 0;
  for (size_t i = 0; i < regions.size(); ++i) {
    const OrderRegion& r = regions[i];
    outputs += (r.row_end - r.row_begin) * (r.out_end - r.out_begin);
    if (regions.size() > 64) continue;  // one of many rows of one class
    for (size_t j = 0; j < i; ++j) {
      if (Overlap(r, regions[j])) {
        Fail(ErrorCode::kBadInput, "{}: two classes of the rule hold row {}, column {}", rule.place,
             std::max(r.row_begin, regions[j].row_begin),
             std::max(r.out_begin, regions[j].out_begin));
      }
    }
  }
  if (outputs != args.rows * args.out_features) {
    Fail(ErrorCode::kBadInput, "{}: the classes of the rule hold {} outputs of {} x {}", rule.place,
         outputs, args.rows, args.out_features);
  }
  return regions;
}

void Product(const ProductArgs& args, const SumRule& rule, int64_t row_begin, int64_t row_end,
             int64_t out_begin, int64_t out_end) {
  for (OrderRegion region : Regions(rule, args)) {
    region.row_begin = std::max(region.row_begin, row_begin);
    region.row_end = std::min(region.row_end, row_end);
    region.out_begin = std::max(region.out_begin, out_begin);
    region.out_end = std::min(region.out_end, out_end);
    ProductRegion(args, rule.bias, region);
  }
}

}  // namespace samebits
