"""Orders of summation as values, their JSON, and a numpy interpreter of each.

The same values as ``samebits/numerics/sum_order.h``; docs/profile-format.md describes the JSON.
The interpreter works on many outputs at a time: ``evaluate(order, x, w, c, peel)`` takes
x [M, K] and w [N, K] and returns the fp32 sums [M, N].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float32]
Json: TypeAlias = dict[str, Any]
Step: TypeAlias = Any  # an element of a group, or a pair (Step, Step)

_TILE = 32768  # values of a temporary array: it should stay in the second-level cache


@dataclass(frozen=True)
class Peel:
    """How many elements come before the first vector: ``count``, or by the address of a row."""

    count: int = 0
    of: str | None = None  # "x", "w" or "y"
    row: int | None = None  # None: the output's own row
    least: int = 0

    def to_json(self) -> int | Json:
        if self.of is None:
            return self.count
        row = {} if self.row is None else {"row": self.row}
        return {"of": self.of, **row, "least": self.least}

    @staticmethod
    def from_json(json: int | Json) -> Peel:
        if isinstance(json, int):
            return Peel(count=json)
        return Peel(of=json["of"], row=json.get("row"), least=json.get("least", 0))


@dataclass(frozen=True)
class ChainOrder:
    """Sums over blocks of elements in order, the blocks' sums added in order."""

    block: int = 0
    halve_below: int = 0
    part: int = 0  # elements: blocks are added to each other in parts first
    group: tuple[Step, ...] = ()
    tile: int = (
        0  # elements: a sum of the even and one of the odd ones, joined, added to the block's
    )
    tail_descending: bool = False
    start_in_chain: bool = False
    first_set: bool = False
    flush: bool = False
    fused: bool = True

    def block_size(self, size: int) -> int:
        if self.block == 0 or size <= self.block:
            return max(size, 1)
        return size // 2 if size < self.halve_below else self.block

    def to_json(self) -> Json:
        json: Json = {"family": "chain", "product": "fused" if self.fused else "rounded"}
        if self.block:
            json["block"] = self.block
        if self.halve_below:
            json["halve_below"] = self.halve_below
        if self.part:
            json["part"] = self.part
        if self.group:
            json["group"] = _lists(self.group)
        if self.tile:
            json["tile"] = self.tile
        if self.tail_descending:
            json["tail"] = "descending"
        if self.start_in_chain:
            json["start"] = "chain"
        if self.first_set:
            json["first"] = "set"
        if self.flush:
            json["flush"] = True
        return json


@dataclass(frozen=True)
class LaneStage:
    """One loop over vectors: vector v of a turn joins accumulator v mod ``accumulators``."""

    lanes: int = 8
    vectors: int = 1
    accumulators: int = 1
    sequence_accumulators: bool = False  # otherwise joined by halves
    sequence_lanes: bool = False
    lane_distances: tuple[int, ...] = ()  # joined in these steps: v[i] + v[i xor distance]

    def to_json(self) -> Json:
        words = ("halves", "sequence")
        distances = list(self.lane_distances)
        return {
            "lanes": self.lanes,
            "vectors": self.vectors,
            "accumulators": self.accumulators,
            "join_accumulators": words[self.sequence_accumulators],
            "join_lanes": distances or words[self.sequence_lanes],
        }

    @staticmethod
    def from_json(json: Json) -> LaneStage:
        join_lanes = json.get("join_lanes", "halves")
        return LaneStage(
            lanes=json["lanes"],
            vectors=json["vectors"],
            accumulators=json["accumulators"],
            sequence_accumulators=json.get("join_accumulators") == "sequence",
            sequence_lanes=join_lanes == "sequence",
            lane_distances=tuple(join_lanes) if isinstance(join_lanes, list) else (),
        )


@dataclass(frozen=True)
class LaneOrder:
    """Elements before the first vector, stages of vectors, elements that are left."""

    stages: tuple[LaneStage, ...]
    peel: Peel = field(default_factory=Peel)
    tail: str = "sequence"  # or "lane0", "lanes"
    fused: bool = True
    tail_fused: bool = True
    pairs: bool = False  # of two neighbours in a vector the odd one comes first
    flush: bool = False  # in joining products

    def to_json(self) -> Json:
        words = ("rounded", "fused")
        json: Json = {
            "family": "lanes",
            "peel": self.peel.to_json(),
            "stages": [stage.to_json() for stage in self.stages],
            "tail": self.tail,
            "product": words[self.fused],
            "tail_product": words[self.tail_fused],
        }
        if self.pairs:
            json["pairs"] = True
        if self.flush:
            json["flush"] = True
        return json


@dataclass(frozen=True)
class TreeOrder:
    """A tree of additions for one size: elements, and -1 for a sum of the two before it."""

    postfix: tuple[int, ...]
    fused: bool = False

    def to_json(self) -> Json:
        product = "fused" if self.fused else "rounded"
        return {"family": "tree", "tree": list(self.postfix), "product": product}


SumOrder: TypeAlias = ChainOrder | LaneOrder | TreeOrder


def _lists(step: Step) -> Any:
    return [_lists(part) for part in step] if isinstance(step, tuple) else step


def _tuples(step: Any) -> Step:
    return tuple(_tuples(part) for part in step) if isinstance(step, list) else step


def order_from_json(json: Json) -> SumOrder:
    """The inverse of ``to_json``; the C++ reader is the strict one."""
    fused = json.get("product", "fused") == "fused"
    if json["family"] == "chain":
        return ChainOrder(
            block=json.get("block", 0),
            halve_below=json.get("halve_below", 0),
            part=json.get("part", 0),
            group=_tuples(json.get("group", [])),
            tile=json.get("tile", 0),
            tail_descending=json.get("tail") == "descending",
            start_in_chain=json.get("start") == "chain",
            first_set=json.get("first") == "set",
            flush=json.get("flush", False),
            fused=fused,
        )
    if json["family"] == "lanes":
        stages = tuple(LaneStage.from_json(stage) for stage in json["stages"])
        return LaneOrder(
            stages=stages,
            peel=Peel.from_json(json.get("peel", 0)),
            tail=json.get("tail", "sequence"),
            fused=fused,
            tail_fused=json.get("tail_product", json.get("product", "fused")) == "fused",
            pairs=json.get("pairs", False),
            flush=json.get("flush", False),
        )
    if json["family"] == "tree":
        return TreeOrder(tuple(json["tree"]), fused)
    raise ValueError(f"no family of orders is named {json['family']!r}")


_TINY = 2.0**-126


def flushed(values: Floats) -> Floats:
    """Denormal inputs as the CPU sees them with DAZ: zeros of the same sign."""
    small = np.abs(values) < np.float32(_TINY)
    return np.where(small, np.copysign(np.float32(0), values), values)


def fma(x: Floats, w: Floats, c: Floats, flush: bool = False) -> Floats:
    """fp32 fused multiply-add: x * w + c rounded once.

    The product is exact in fp64. The sum is rounded to odd there, so that rounding it again, to
    fp32, gives the correctly rounded result (denormals too: 53 >= 2 * 24 + 2 bits).
    """
    product = x.astype(np.float64) * w.astype(np.float64)
    addend = c.astype(np.float64)
    total = product + addend
    back = total - product
    error = (product - (total - back)) + (addend - back)
    bits = total.view(np.int64)
    inexact = (error != 0) & ((bits & 1) == 0) & np.isfinite(total)
    # One step towards the exact value; both of an even value's neighbours are odd.
    step = np.where((error > 0) == (total > 0), 1, -1)
    odd = np.where(inexact, bits + step, bits).view(np.float64)
    result = odd.astype(np.float32)
    if flush:
        tiny = np.abs(odd) < _TINY * (1 - 2.0**-25)  # after rounding to 24 bits
        result = np.where(tiny, np.copysign(np.float32(0), result), result)
    return result


def products_are_exact(x: Floats, w: Floats) -> bool:
    """Whether every x * w is an fp32 number and no sum of them a denormal one other than 0: then
    neither fused nor flushed is seen."""

    def short(values: Floats) -> tuple[bool, float, float]:
        used = np.abs(values[values != 0])
        if used.size == 0:
            return True, 1.0, 1.0
        fits = not bool((values.view(np.uint32) & 0xFFF).any()) and bool(np.isfinite(used).all())
        return fits, float(used.min()), float(used.max())

    x_fits, x_low, x_high = short(x)
    w_fits, w_low, w_high = short(w)
    # All are multiples of the last bit of the smallest possible one.
    return x_fits and w_fits and x_low * w_low >= 2.0**-102 and x_high * w_high < 2.0**120


Join: TypeAlias = Callable[[Floats, Floats, Floats], Floats]  # (sum, x, w) -> sum, may reuse sum
Add: TypeAlias = Callable[[Floats, Floats], Floats]


def _rounded_join() -> Join:
    product: list[Floats] = []

    def join(total: Floats, x: Floats, w: Floats) -> Floats:
        if not product or product[0].shape != total.shape:
            product[:] = [np.empty(total.shape, np.float32)]
        np.multiply(x, w, out=product[0])
        total += product[0]
        return total

    return join


def _join(fused: bool, exact: bool, flush: bool = False) -> Join:
    if not fused or exact:
        return _rounded_join()
    return lambda total, x, w: fma(x, w, total, flush)


def _add(flush: bool) -> Add:
    if flush:  # a sum among the denormals is exact before it is flushed
        return lambda a, b: flushed(a + b)
    return lambda a, b: a + b


def _tiles(rows: int, outs: int, per_output: int) -> Sequence[slice]:
    count = max(1, _TILE // max(1, rows * per_output))
    return [slice(n, min(n + count, outs)) for n in range(0, outs, count)]


def _step_value(step: Step, x: Floats, w: Floats, at: int) -> Floats:
    """The sum of rounded products of a step with two elements or more."""
    if isinstance(step, tuple):
        left = _step_value(step[0], x, w, at)
        return left + _step_value(step[1], x, w, at)
    return x[:, at + step] * w[:, at + step]


def _elements(step: Step) -> int:
    return sum(_elements(part) for part in step) if isinstance(step, tuple) else 1


def _tile(x: Floats, w: Floats, tile: range, like: Floats, join: Join, add: Add) -> Floats:
    """The even and the odd elements' chains, joined."""
    even, odd = np.zeros_like(like), np.zeros_like(like)
    for k in tile[::2]:
        even = join(even, x[:, k], w[:, k])
        if k + 1 < tile.stop:
            odd = join(odd, x[:, k + 1], w[:, k + 1])
    return add(even, odd)


def _chain_block(
    order: ChainOrder, x: Floats, w: Floats, total: Floats, join: Join, add: Add
) -> Floats:
    """x [M, 1 or M, K] ... as column views: x[:, k] is [M, 1] and w[:, k] is [1, N]."""
    size = x.shape[1]
    if order.tile:
        for k in range(0, size, order.tile):
            tile = range(k, min(k + order.tile, size))
            total = add(total, _tile(x, w, tile, total, join, add))
        return total
    done = 0
    group = sum(_elements(step) for step in order.group)
    if group:
        while done + group <= size:
            for step in order.group:
                if isinstance(step, tuple):
                    total = total + _step_value(step, x, w, done)
                else:
                    total = join(total, x[:, done + step], w[:, done + step])
            done += group
    rest = range(done, size)
    for k in reversed(rest) if order.tail_descending else rest:
        total = join(total, x[:, k], w[:, k])
    return total


def _chain(order: ChainOrder, x: Floats, w: Floats, c: Floats | None, exact: bool) -> Floats:
    if order.flush:
        x, w = flushed(x), flushed(w)
    join = _join(order.fused, exact, order.flush)
    add = _add(order.flush and not exact)
    rows, size = x.shape
    outs = w.shape[0]
    result = np.empty((rows, outs), np.float32)
    block = order.block_size(size)
    part_size = order.part or block
    columns = np.ascontiguousarray(w.T)  # [K, N]
    tall = np.ascontiguousarray(x.T)  # [K, M]
    for part in _tiles(rows, outs, 1):
        # [K, ., .] with K second, as _chain_block wants it.
        x_k = tall[None, :, :, None].swapaxes(0, 2)[:, :, 0]  # [M, K, 1]
        w_k = columns[None, :, part]  # [1, K, N]
        zero = np.zeros((rows, w_k.shape[2]), np.float32)
        total = of_part = zero if c is None else c[:, part]
        keep = order.first_set and c is None
        for k in range(0, size, block):
            end = min(k + block, size)
            start = (total if order.start_in_chain else zero).copy()
            sums = _chain_block(order, x_k[:, k:end], w_k[:, k:end], start, join, add)
            of_part = sums if k % part_size == 0 else of_part + sums
            if (k + block) % part_size and end < size:
                continue
            total = of_part if keep or order.start_in_chain else total + of_part
            keep = False
        result[:, part] = total
    return result


def _join_all(values: Floats, sequence: bool, distances: tuple[int, ...] = ()) -> Floats:
    """Joins the last axis."""
    if distances:
        lanes = np.arange(values.shape[-1])
        for distance in distances:
            values = values + values[..., lanes ^ distance]
        return values[..., 0]
    if sequence:
        total = values[..., 0]
        for i in range(1, values.shape[-1]):
            total = total + values[..., i]
        return total
    while values.shape[-1] > 1:
        half = values.shape[-1] // 2
        values = values[..., :half] + values[..., half:]
    return values[..., 0]


def _stage(
    stage: LaneStage, x: Floats, w: Floats, k: int, start: Floats | None, join: Join
) -> tuple[Floats, int]:
    """Accumulators [M, N, accumulators, lanes] after all complete turns, and the next element."""
    rows, size = x.shape
    outs = w.shape[0]
    turn = stage.lanes * stage.vectors
    lanes = np.zeros((rows, outs, stage.accumulators, stage.lanes), np.float32)
    if start is not None:
        lanes[:, :, 0, 0] = start
    per_pass = stage.accumulators * stage.lanes
    while k + turn <= size:
        for v in range(0, turn, per_pass):
            shape = (1, stage.accumulators, stage.lanes)
            x_k = x[:, k + v : k + v + per_pass].reshape(rows, *shape)
            w_k = w[:, k + v : k + v + per_pass].reshape(1, outs, *shape[1:])
            lanes = join(lanes, x_k, w_k)
        k += turn
    return lanes, k


def _padded(order: LaneOrder, values: Floats) -> Floats:
    """Rows with zeros behind them up to a whole turn of the last stage, and pairs apart: vector 0
    of a turn then holds the odd elements, vector 1 the even ones."""
    rows, size = values.shape
    last = order.stages[-1]
    if order.tail == "lanes":
        values = np.pad(values, ((0, 0), (0, -size % (last.lanes * last.vectors))))
    if order.pairs:
        whole = values.shape[1] // (2 * last.lanes) * 2 * last.lanes
        apart = values[:, :whole].reshape(rows, -1, last.lanes, 2)[..., ::-1].swapaxes(2, 3)
        values = np.concatenate([apart.reshape(rows, whole), values[:, whole:]], axis=1)
    return values


def _lanes(
    order: LaneOrder, x: Floats, w: Floats, c: Floats | None, peel: int, exact: bool
) -> Floats:
    if order.flush:
        x, w = flushed(x), flushed(w)
    x, w = _padded(order, x), _padded(order, w)
    join = _join(order.fused, exact, order.flush)
    tail = _join(order.tail_fused, exact, order.flush)
    rows, size = x.shape
    result = np.empty((rows, w.shape[0]), np.float32)
    widest = max(stage.lanes * stage.accumulators for stage in order.stages)
    for part in _tiles(rows, w.shape[0], widest):
        w_part = w[part]

        def column(k: int, w_part: Floats = w_part) -> tuple[Floats, Floats]:
            return x[:, k, None], w_part[None, :, k]

        start = np.zeros((rows, w_part.shape[0]), np.float32)
        k = min(peel, size)
        for j in range(k):
            start = join(start, *column(j))
        total: Floats = start
        for i, stage in enumerate(order.stages):
            lanes, k = _stage(stage, x, w_part, k, start if i == 0 else None, join)
            if order.tail == "lane0" and i + 1 == len(order.stages):
                for j in range(k, size):
                    lanes[:, :, 0, 0] = tail(lanes[:, :, 0, 0], *column(j))
                k = size
            by_lane = _join_all(lanes.swapaxes(2, 3), stage.sequence_accumulators)
            joined = _join_all(by_lane, stage.sequence_lanes, stage.lane_distances)
            total = joined if i == 0 else total + joined
        for j in range(k, size):
            total = tail(total, *column(j))
        result[:, part] = total if c is None else c[:, part] + total
    return result


def _tree(order: TreeOrder, x: Floats, w: Floats, c: Floats | None) -> Floats:
    stack: list[tuple[Floats, int]] = []
    for item in order.postfix:
        if item >= 0:
            stack.append((x[:, item, None] * w[None, :, item], item))
            continue
        right, element = stack.pop()
        left, _ = stack.pop()
        if order.fused and element >= 0:
            total = fma(x[:, element, None], w[None, :, element], left)
        else:
            total = left + right
        stack.append((total, -1))
    total = stack[0][0]
    return total if c is None else c + total


def evaluate(
    order: SumOrder,
    x: Floats,
    w: Floats,
    c: Floats | None = None,
    peel: int = 0,
    exact: bool | None = None,
) -> Floats:
    """sum_k x[m, k] w[n, k] in the given order, and c [M, N] as the order adds it.

    ``exact``: whether products_are_exact(x, w), where that is known.
    """
    with np.errstate(all="ignore"):
        if isinstance(order, TreeOrder):
            return _tree(order, x, w, c)
        if exact is None:
            exact = products_are_exact(x, w)
        if isinstance(order, ChainOrder):
            return _chain(order, x, w, c, exact)
        return _lanes(order, x, w, c, peel, exact)
