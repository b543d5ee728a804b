"""Rules that have been seen in PyTorch's kernels: what the probe tries before it searches.

Where each was seen: docs/numerics/torch-linear.md.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from samebits.block_scan import Blocks
from samebits.orders import ChainOrder, LaneOrder, LaneStage, Peel, SumOrder
from samebits.rules import Columns, OrderClass, SumRule

# ATen's dot product of bfloat16 and float16 operands.
LANES_8X8 = LaneOrder((LaneStage(8, 8, 8), LaneStage(8, 2, 1)), tail_fused=False)
# ATen's sum with four partial sums.
PARTIAL_4 = LaneOrder((LaneStage(4, 1, 1, sequence_lanes=True),), tail="lane0")
# ATen's plain loop, and MKL's for few rows.
PLAIN = ChainOrder(fused=False)
# MKL's blocked kernel.
BLOCKED = ChainOrder(block=192, halve_below=384)


# The same library's kernels for Intel CPUs with AVX-512: blocks of 384, where either all elements
# or those that are left are halved; 16 lanes.
WIDE_BLOCKED = ChainOrder(block=384, halve_below=768, halve="up")
WIDE_BLOCKED_REST = ChainOrder(block=384, halve_below=768, halve="rest")
_WIDE = LaneStage(16, 1, 1)
_WIDE_2 = (LaneStage(16, 2, 2), LaneStage(16, 1, 1, start="lanes"))
_WIDE_SMALL = LaneOrder((LaneStage(16, 1, 1, quarter_lanes=True),), tail="lanes")
_WIDE_EVEN = LaneOrder(_WIDE_2, tail="lanes")
_WIDE_ODD = LaneOrder((_WIDE,), tail="lanes")
_WIDE_ROW = LaneOrder((_WIDE, LaneStage(16, 1, 1, start="total")), peel=Peel(count=1), tail="lanes")
_WIDE_LAST = LaneOrder((_WIDE,), peel=Peel(count=1), tail="lanes", peel_last=True)
_WIDE_LAST_2 = LaneOrder(_WIDE_2, peel=Peel(count=1), tail="lanes", peel_last=True)
_WIDE_AXPY = ChainOrder(group=(6, 4, (7, 5), ((2, 0), (3, 1))), start_in_chain=True)


def pairs(block: int, part: int = 0) -> ChainOrder:
    """oneDNN with VDPBF16PS: pairs, the odd element first, denormals flushed."""
    return ChainOrder(block=block, part=part, group=(1, 0), flush=True, first_set=True)


def tiles(found: Blocks, start_in_chain: bool = False) -> ChainOrder:
    """AMX's TDPBF16PS: an even and an odd sum of a tile, joined; denormals flushed."""
    return ChainOrder(
        block=found.block,
        part=found.part,
        tile=found.tile or 32,
        flush=True,
        first_set=not start_in_chain,
        start_in_chain=start_in_chain,
    )


# MKL's dot product of bfloat16 with VDPBF16PS, 16 pairs side by side.
PAIR_LANES = LaneOrder(
    (LaneStage(16, 2, 1, lane_distances=(8, 1, 2, 4)),), tail="lanes", pairs=True, flush=True
)


def _dot(vectors: int, accumulators: int, peel: Peel) -> LaneOrder:
    stage = LaneStage(4, vectors, accumulators)
    return LaneOrder((stage,), peel=peel, fused=False, tail_fused=False)


def _one(order: SumOrder, bias: str = "last") -> SumRule:
    return SumRule((OrderClass(order),), bias)


_BY_X_ROW = Peel(of="x")
_SMALL = (
    OrderClass(_dot(1, 1, _BY_X_ROW), Columns("complete", 4)),
    OrderClass(_dot(2, 2, _BY_X_ROW), Columns("rest", 4)),
)
_BY_X = Peel(of="x", row=0, least=1)
# MKL's matrix-vector product and its dot kernel for few rows or columns.
ROW_RULE = SumRule(
    (
        OrderClass(_dot(1, 1, Peel(of="w", row=3, least=1)), Columns("complete", 4)),
        OrderClass(_dot(2, 2, _BY_X), Columns("rest", 4, at=0)),
        OrderClass(_dot(2, 1, _BY_X), Columns("rest", 4, at=1)),
        OrderClass(_dot(2, 2, _BY_X), Columns("rest", 4, at=2)),
    ),
    "first",
)
SMALL_RULE = SumRule(_SMALL, "first")
BLOCKED_RULE = _one(BLOCKED, "first")
LANES_RULE = _one(LANES_8X8)
PARTIAL_4_RULE = _one(PARTIAL_4)
PLAIN_RULE = _one(PLAIN)
SSE_RULE = _one(_dot(1, 1, Peel()))
_ONE_BLOCK = Blocks(tile=32, block=0, part=0)
TILES_RULE = _one(tiles(_ONE_BLOCK))
TILES_IN_CHAIN_RULE = _one(tiles(_ONE_BLOCK, start_in_chain=True), "first")
PAIR_LANES_RULE = _one(PAIR_LANES)
# MKL's matrix-vector product with VDPBF16PS: eight rows of the matrix at a time.
PAIRS_8_RULE = _one(pairs(8), "first")


def block_rules(found: Blocks) -> list[SumRule]:
    """For 16-bit floats, where tiles and blocks of K were measured."""
    if found.tile > 2:
        return [_one(tiles(found))]
    rules = [_one(tiles(found))] if found.tile else []
    if found.block:
        chain = ChainOrder(block=found.block, part=found.part, first_set=True)
        return [_one(pairs(found.block, found.part)), _one(chain), *rules]
    return rules


def packed_rules(found: Blocks) -> list[SumRule]:
    """For p v of packed calls of the fused attention kernel."""
    return [_one(tiles(found, start_in_chain=True), "first")]


WIDE_ROW_RULE = SumRule(
    (
        OrderClass(_WIDE_ROW, Columns("complete", 4)),
        OrderClass(_WIDE_LAST_2, Columns("rest", 4, at=0)),
        OrderClass(_WIDE_LAST, Columns("rest", 4, at=1)),
        OrderClass(_WIDE_LAST_2, Columns("rest", 4, at=2)),
    ),
    "first",
)
WIDE_SMALL_RULE = _one(_WIDE_SMALL, "first")
_NARROW_ROWS = 15
# Few rows of one to three outputs: even rows have two accumulators.
WIDE_NARROW_RULE = SumRule(
    tuple(
        OrderClass(
            _WIDE_ODD if row % 2 else _WIDE_EVEN,
            row_begin=row,
            row_end=row + 1 if row + 1 < _NARROW_ROWS else None,
        )
        for row in range(_NARROW_ROWS)
    ),
    "first",
)
WIDE_BLOCKED_RULE = _one(WIDE_BLOCKED, "first")
WIDE_BLOCKED_REST_RULE = _one(WIDE_BLOCKED_REST, "first")
WIDE_AXPY_RULE = SumRule(
    (
        OrderClass(_WIDE_AXPY, Columns("complete", 16)),
        OrderClass(ChainOrder(start_in_chain=True), Columns("rest", 16)),
    ),
    "first",
)


def _cut(row: int, rest: tuple[OrderClass, ...]) -> SumRule:
    first = OrderClass(BLOCKED, row_end=row)
    last = [OrderClass(c.order, c.columns, row_begin=row) for c in rest]
    return SumRule((first, *last), "first")


def _cut_row(rows: int, threads: int) -> int:
    """Where MKL cuts the rows for two threads, where the second part is of 1 to 3 rows; or 0."""
    if threads != 2 or rows < 5:
        return 0
    half = (rows + 1) // 2
    first = (half + 3) // 4 * 4
    return first if 1 <= rows - first <= 3 else 0


def _pair_rules() -> Iterator[SumRule]:
    yield _one(pairs(512))
    yield _one(pairs(1024))


@functools.cache
def _wide_cpu() -> bool:
    """Whether MKL is likely to take its kernels for AVX-512: it asks who made the CPU."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return "GenuineIntel" in text and re.search(r"\bavx512vl\b", text) is not None


def _ordered(wide: list[SumRule], others: list[SumRule]) -> list[SumRule]:
    return [*wide, *others] if _wide_cpu() else [*others, *wide]


def _wide_column_rule(rows: int) -> SumRule:
    """The matrix-vector product where there is one output a row: the matrix is x."""
    complete = rows // 4 * 4
    if complete == rows:
        return _one(_WIDE_ROW, "first")
    classes = [OrderClass(_WIDE_ROW, row_end=complete)] if complete else []
    for at in range(complete, rows):
        order = _WIDE_LAST if at - complete == 1 else _WIDE_LAST_2
        end = at + 1 if at + 1 < rows else None
        classes.append(OrderClass(order, row_begin=at, row_end=end))
    return SumRule(tuple(classes), "first")


def _shared_rules(size: int, threads: int) -> list[SumRule]:
    """Where the threads share the elements: a part for each."""
    if threads == 1:
        return []
    part = -(-size // threads)
    orders = [replace(order, part=part) for order in (WIDE_BLOCKED, WIDE_BLOCKED_REST)]
    return [_one(order, "first") for order in orders]


def _wide_product_rules(rows: int, outs: int) -> list[SumRule]:
    if rows == 1:
        return [WIDE_ROW_RULE, WIDE_SMALL_RULE]
    few = [_wide_column_rule(rows)] if outs == 1 else []
    if outs <= 3 and rows <= _NARROW_ROWS:
        few.append(WIDE_NARROW_RULE)
    small = [WIDE_SMALL_RULE] if rows <= 15 else []
    return [*few, *small, WIDE_BLOCKED_RULE, WIDE_BLOCKED_REST_RULE]


def product_rules(dtype: str, rows: int, threads: int, outs: int, size: int) -> list[SumRule]:
    """For linear layers and q k^T, the likeliest first."""
    if dtype != "float32":
        return [LANES_RULE, TILES_RULE, *_pair_rules(), PLAIN_RULE, PARTIAL_4_RULE]
    wide = [*_wide_product_rules(rows, outs), *_shared_rules(size, threads)]
    return _ordered(wide, _narrow_product_rules(rows, threads))


def _narrow_product_rules(rows: int, threads: int) -> list[SumRule]:
    cut = _cut_row(rows, threads)
    rules = [_cut(cut, _SMALL)] if cut else []
    likely = [ROW_RULE] if rows == 1 else [SMALL_RULE] if rows <= 3 else [BLOCKED_RULE]
    return [*likely, *rules, BLOCKED_RULE, SMALL_RULE, ROW_RULE, PLAIN_RULE]


def context_rules(dtype: str, rows: int, threads: int) -> list[SumRule]:
    """For p v of eager attention."""
    if dtype != "float32":
        return [PARTIAL_4_RULE, TILES_RULE, *_pair_rules(), PLAIN_RULE, LANES_RULE]
    cut = _cut_row(rows, threads)
    rules = [_cut(cut, (OrderClass(PLAIN),))] if cut else []
    likely = [PLAIN_RULE] if rows <= 3 else [BLOCKED_RULE]
    return _ordered(_wide_context_rules(rows), [*likely, *rules, BLOCKED_RULE, PLAIN_RULE])


def _wide_context_rules(rows: int) -> list[SumRule]:
    blocked = [WIDE_BLOCKED_RULE, WIDE_BLOCKED_REST_RULE]
    # More rows with a single key have it too.
    return [WIDE_AXPY_RULE, *blocked] if rows == 1 else [*blocked, WIDE_AXPY_RULE]


_EIGHTS = ChainOrder(group=(0, 1, 2, 3, (((4, 5), 6), 7)), start_in_chain=True, fused=False)
_FOURS = ChainOrder(
    group=(((0, 2), (1, 3)),), tail_descending=True, start_in_chain=True, fused=False
)
_IN_CHAIN = ChainOrder(start_in_chain=True, fused=False)
_BY_Y = Peel(of="y")
FEW_ROWS_RULE = SumRule(
    (
        OrderClass(_EIGHTS, Columns("in_peel", peel=_BY_Y)),
        OrderClass(_IN_CHAIN, Columns("after_peel", peel=_BY_Y)),
    ),
    "first",
)
FOURS_RULE = _one(_FOURS, "first")


def _column_rule(rows: int) -> SumRule:
    """MKL's matrix-vector product where there is one output a row: the matrix is x."""
    complete = rows // 4 * 4
    by_row, by_w = Peel(of="x", row=3, least=1), Peel(of="w", row=0, least=1)
    classes = [OrderClass(_dot(1, 1, by_row), row_end=complete)] if complete else []
    for at in range(complete, rows):
        order = _dot(2, 1 if at - complete == 1 else 2, by_w)
        classes.append(OrderClass(order, row_begin=at, row_end=at + 1))
    return SumRule(tuple(classes), "first")


def sdpa_score_rules(dtype: str, rows: int, keys: int) -> list[SumRule]:
    """For one block of q k^T inside the fused attention kernel, the likeliest first."""
    few = rows > 1 and (rows <= 3 or keys <= 11)
    if dtype == "float32":
        column = [_column_rule(rows)] if rows > 1 and keys == 1 else []
        likely = [SMALL_RULE] if few else [ROW_RULE] if rows == 1 else [BLOCKED_RULE]
        narrow = [*column, *likely, ROW_RULE, SMALL_RULE, BLOCKED_RULE]
        return _ordered(_wide_product_rules(rows, keys), narrow)
    if dtype == "float16":
        wide = _wide_product_rules(rows, keys) if rows > 1 else []
        wide = [*wide, WIDE_SMALL_RULE, WIDE_BLOCKED_RULE, WIDE_NARROW_RULE]
        return _ordered(wide, [SMALL_RULE, BLOCKED_RULE, SSE_RULE])
    likely = [SMALL_RULE] if few and keys > 1 else []
    with_bfloat16 = [PAIR_LANES_RULE] if rows == 1 or keys == 1 else [TILES_RULE]
    return [*likely, SSE_RULE, SMALL_RULE, BLOCKED_RULE, *with_bfloat16]


def sdpa_context_rules(dtype: str, rows: int) -> list[SumRule]:
    """For one block of p v inside the fused attention kernel."""
    if dtype == "float32":
        likely = [BLOCKED_RULE] if rows > 3 else []
        narrow = [*likely, FEW_ROWS_RULE, BLOCKED_RULE]
        return _ordered(_wide_context_rules(rows), narrow)
    if dtype == "float16":
        wide = [WIDE_BLOCKED_RULE, WIDE_BLOCKED_REST_RULE]
        return _ordered(wide, [FEW_ROWS_RULE, BLOCKED_RULE])
    return [FOURS_RULE, FEW_ROWS_RULE, BLOCKED_RULE, PAIRS_8_RULE, TILES_IN_CHAIN_RULE]
