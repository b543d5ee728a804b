"""Orders of summation as values, their JSON, and a numpy interpreter of each.

The same values as ``samebits/numerics/sum_order.h``; docs/profile-format.md describes the JSON.
The interpreter works on many outputs at a time: ``evaluate(order, x, w, c, peel)`` takes
x [M, K] and w [N, K] and returns the fp32 sums [M, N].
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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
    halve: str = "down"  # "down", "up" or "rest": see block_ends()
    part: int = 0  # elements: see begins_sum()
    group: tuple[Step, ...] = ()
    tile: int = 0  # elements: one sum of the even and one of the odd ones, which join the block's
    tail_descending: bool = False
    start_in_chain: bool = False
    first_set: bool = False
    flush: bool = False
    fused: bool = True

    def _block_at(self, size: int, done: int) -> int:
        rest = size - done
        if self.block == 0:
            return rest
        total = rest if self.halve == "rest" else size
        if self.block < total < self.halve_below:
            return total // 2 if self.halve == "down" else (total + 1) // 2
        return min(self.block, rest)

    def block_ends(self, size: int) -> Iterator[int]:
        """Where the blocks end. Halved are the elements of a part (all, where there are no parts),
        or (``rest``) those of it that are left."""
        part = self.part or size
        for first in range(0, size, max(part, 1)):
            end, of_part = 0, min(part, size - first)
            while end < of_part:
                end = min(of_part, end + self._block_at(of_part, end))
                yield first + end

    def begins_sum(self, begin: int) -> bool:
        """Whether the block that begins there is not added to the one before: all of the first
        part, the first of each later one."""
        return self.part == 0 or begin < self.part or begin % self.part == 0

    def to_json(self) -> Json:
        json: Json = {"family": "chain", "product": "fused" if self.fused else "rounded"}
        if self.block:
            json["block"] = self.block
        if self.halve_below:
            json["halve_below"] = self.halve_below
        if self.halve != "down":
            json["halve"] = self.halve
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
    quarter_lanes: bool = False  # fours of lanes in sequence, then neighbours
    lane_distances: tuple[int, ...] = ()  # joined in these steps: v[i] + v[i xor distance]
    start: str = "zero"  # or "lanes", "total": what the stage before has, lane by lane or joined

    def to_json(self) -> Json:
        words = ("halves", "sequence")
        start = {} if self.start == "zero" else {"start": self.start}
        join_lanes = "quarters" if self.quarter_lanes else words[self.sequence_lanes]
        return {
            "lanes": self.lanes,
            "vectors": self.vectors,
            "accumulators": self.accumulators,
            "join_accumulators": words[self.sequence_accumulators],
            "join_lanes": list(self.lane_distances) or join_lanes,
            **start,
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
            quarter_lanes=join_lanes == "quarters",
            lane_distances=tuple(join_lanes) if isinstance(join_lanes, list) else (),
            start=json.get("start", "zero"),
        )


@dataclass(frozen=True)
class LaneOrder:
    """Elements before the first vector, stages of vectors, elements that are left."""

    stages: tuple[LaneStage, ...]
    peel: Peel = field(default_factory=Peel)
    tail: str = "sequence"  # or "lane0", "lanes"
    fused: bool = True
    tail_fused: bool = True
    peel_last: bool = False
    pairs: bool = False  # of two neighbours in a vector the odd one comes first
    flush: bool = False  # where products join

    def to_json(self) -> Json:
        words = ("rounded", "fused")
        joins = {"peel_joins": "last"} if self.peel_last else {}
        flags = {name: True for name in ("pairs", "flush") if getattr(self, name)}
        return {
            "family": "lanes",
            "peel": self.peel.to_json(),
            **joins,
            "stages": [stage.to_json() for stage in self.stages],
            "tail": self.tail,
            "product": words[self.fused],
            "tail_product": words[self.tail_fused],
            **flags,
        }


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
            halve=json.get("halve", "down"),
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
            peel_last=json.get("peel_joins") == "last",
            pairs=json.get("pairs", False),
            flush=json.get("flush", False),
            fused=fused,
            tail_fused=json.get("tail_product", json.get("product", "fused")) == "fused",
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


def _step_value(step: Step, x: Floats, w: Floats, at: int, join: Join) -> Floats:
    """The sum of a step with two elements or more: a product on the right joins what is left."""
    if isinstance(step, tuple):
        left = _step_value(step[0], x, w, at, join)
        if isinstance(step[1], int):
            return join(left, x[:, at + step[1]], w[:, at + step[1]])
        return left + _step_value(step[1], x, w, at, join)
    product: Floats = x[:, at + step] * w[:, at + step]
    return product


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
                    total = total + _step_value(step, x, w, done, join)
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
    columns = np.ascontiguousarray(w.T)  # [K, N]
    tall = np.ascontiguousarray(x.T)  # [K, M]
    for part in _tiles(rows, outs, 1):
        # [K, ., .] with K second, as _chain_block wants it.
        x_k = tall[None, :, :, None].swapaxes(0, 2)[:, :, 0]  # [M, K, 1]
        w_k = columns[None, :, part]  # [1, K, N]
        zero = np.zeros((rows, w_k.shape[2]), np.float32)
        total = of_part = zero if c is None else c[:, part]
        keep = order.first_set and c is None
        k = 0
        for end in order.block_ends(size):
            start = (total if order.start_in_chain else zero).copy()
            sums = _chain_block(order, x_k[:, k:end], w_k[:, k:end], start, join, add)
            of_part = sums if order.begins_sum(k) else of_part + sums
            k = end
            if end < size and not order.begins_sum(end):
                continue
            total = of_part if keep or order.start_in_chain else total + of_part
            keep = False
        result[:, part] = total
    return result


def _join_sequence(values: Floats) -> Floats:
    total = values[..., 0]
    for i in range(1, values.shape[-1]):
        total = total + values[..., i]
    return total


def _join_halves(values: Floats) -> Floats:
    while values.shape[-1] > 1:
        half = values.shape[-1] // 2
        values = values[..., :half] + values[..., half:]
    return values[..., 0]


def _join_lanes(stage: LaneStage, lanes: Floats) -> Floats:
    """Joins the last axis."""
    if stage.lane_distances:
        lane = np.arange(lanes.shape[-1])
        for distance in stage.lane_distances:
            lanes = lanes + lanes[..., lane ^ distance]
        return lanes[..., 0]
    if stage.quarter_lanes:
        fours = lanes.reshape(*lanes.shape[:-1], -1, 4).swapaxes(-1, -2)
        four = _join_sequence(fours)
        return (four[..., 0] + four[..., 1]) + (four[..., 2] + four[..., 3])
    return _join_sequence(lanes) if stage.sequence_lanes else _join_halves(lanes)


def _stage(
    stage: LaneStage, x: Floats, w: Floats, k: int, start: Floats, join: Join
) -> tuple[Floats, int]:
    """Accumulators [M, N, accumulators, lanes] after all complete turns, and the next element.

    ``start`` [M, N, some lanes] is where the first lanes of accumulator 0 start.
    """
    rows, size = x.shape
    outs = w.shape[0]
    turn = stage.lanes * stage.vectors
    lanes = np.zeros((rows, outs, stage.accumulators, stage.lanes), np.float32)
    lanes[:, :, 0, : start.shape[-1]] = start
    per_pass = stage.accumulators * stage.lanes
    while k + turn <= size:
        for v in range(0, turn, per_pass):
            shape = (1, stage.accumulators, stage.lanes)
            x_k = x[:, k + v : k + v + per_pass].reshape(rows, *shape)
            w_k = w[:, k + v : k + v + per_pass].reshape(1, outs, *shape[1:])
            lanes = join(lanes, x_k, w_k)
        k += turn
    return lanes, k


def _join_accumulators(stage: LaneStage, lanes: Floats) -> Floats:
    last = lanes.swapaxes(2, 3)
    return _join_sequence(last) if stage.sequence_accumulators else _join_halves(last)


def _apart(order: LaneOrder, values: Floats) -> Floats:
    """Of rows with pairs: vector 0 of a turn gets the odd elements, vector 1 the even ones."""
    if not order.pairs:
        return values
    lanes = order.stages[-1].lanes
    padded = np.pad(values, ((0, 0), (0, -values.shape[1] % (2 * lanes))))
    turns = padded.reshape(values.shape[0], -1, lanes, 2)[..., ::-1]
    return np.ascontiguousarray(turns.swapaxes(2, 3).reshape(padded.shape))


def _lanes(
    order: LaneOrder, x: Floats, w: Floats, c: Floats | None, peel: int, exact: bool
) -> Floats:
    if order.flush:
        x, w = flushed(x), flushed(w)
    x, w = _apart(order, x), _apart(order, w)
    tail = _join(order.tail_fused, exact, order.flush)
    rows, size = x.shape
    result = np.empty((rows, w.shape[0]), np.float32)
    widest = max(stage.lanes * stage.accumulators for stage in order.stages)
    for part in _tiles(rows, w.shape[0], widest):
        join = _join(order.fused, exact, order.flush)
        w_part = w[part]

        def column(k: int, w_part: Floats = w_part) -> tuple[Floats, Floats]:
            return x[:, k, None], w_part[None, :, k]

        first = np.zeros((rows, w_part.shape[0]), np.float32)
        k = min(peel, size)
        for j in range(k):
            first = join(first, *column(j))
        total: Floats | None = None  # of the stages whose lanes are joined
        start = np.zeros_like(first) if order.peel_last else first
        starts: Floats = start[..., None]
        for i, stage in enumerate(order.stages):
            lanes, k = _stage(stage, x, w_part, k, starts, join)
            if i + 1 == len(order.stages):
                if order.tail == "lane0":
                    for j in range(k, size):
                        lanes[:, :, 0, 0] = tail(lanes[:, :, 0, 0].copy(), *column(j))
                    k = size
                elif order.tail == "lanes":
                    for place, j in enumerate(range(k, size)):
                        vector, lane = divmod(place, stage.lanes)
                        at = vector % stage.accumulators
                        lanes[:, :, at, lane] = tail(lanes[:, :, at, lane].copy(), *column(j))
                    k = size
            joined = _join_accumulators(stage, lanes)
            follows = order.stages[i + 1].start if i + 1 < len(order.stages) else "zero"
            if follows == "lanes":
                starts = joined
                continue
            sums = _join_lanes(stage, joined)
            total = sums if total is None else total + sums
            starts = np.zeros_like(first)[..., None]
            if follows == "total":
                starts, total = total[..., None], None
        assert total is not None
        for j in range(k, size):
            total = tail(total, *column(j))
        if order.peel_last:
            total = first + total
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
