"""Replaying one product under candidate rules, without computing the same sums twice.

A ``Replay`` holds the operands of the largest product; smaller ones are its first rows. Sums are
computed where a candidate asks for them and kept by order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from samebits.orders import Floats, SumOrder, evaluate, products_are_exact
from samebits.rules import ROUNDINGS, Alignment, SumRule, regions

Indices: TypeAlias = npt.NDArray[np.int64]
_AHEAD = 16  # rows

Key: TypeAlias = tuple[SumOrder, int, bool]


def random_floats(
    generator: np.random.Generator, shape: tuple[int, ...], dtype: str, exact: bool = True
) -> Floats:
    """Values of the dtype. ``exact``: of 12 bits, so that products are exact in fp32.

    Of many magnitudes: sums of a few short products of one magnitude would be exact in any order.
    """
    values = generator.standard_normal(shape, np.float32)
    values *= np.exp2(generator.integers(-5, 6, shape)).astype(np.float32)
    if dtype == "float32":
        if exact:
            values = (values.view(np.uint32) & np.uint32(0xFFFFF000)).view(np.float32)
        return values
    return ROUNDINGS[dtype](values)


def cancelling(
    generator: np.random.Generator, rows: int, outs: int, size: int, dtype: str, exact: bool = True
) -> tuple[Floats, Floats]:
    """x [rows, size] and w [outs, size] whose exact products are 0 but for one element.

    Elements are paired at random, x equal and w opposite: what a kernel returns is its rounding
    errors, that is, its order.
    """
    x = random_floats(generator, (rows, size), dtype, exact)
    w = random_floats(generator, (outs, size), dtype, exact)
    order = generator.permutation(size)
    half = size // 2
    first, second = order[:half], order[half : 2 * half]
    x[:, second] = x[:, first]
    w[:, second] = -w[:, first]
    return x, w


def windows(rows: int, outs: int, held: int) -> range:
    """First rows of the products that are compared: few outputs would fit a wrong order by luck.

    The columns after a multiple of four are a class of their own, hence so many for few rows.
    """
    enough = 32 if rows <= 3 and outs % 4 else -(-4096 // (rows * outs))
    return range(0, held - rows + 1, rows)[: max(1, min(32, enough))]


def differing(a: Floats, b: Floats) -> int:
    """How many values differ in their bits; a NaN always does."""
    same = (a.view(np.uint32) == b.view(np.uint32)) & ~np.isnan(a)
    return int(a.size - np.count_nonzero(same))


@dataclass
class _Sums:
    values: Floats
    rows_done: Indices  # of each column


@dataclass
class Replay:
    """x [rows, size] times w [columns, size]: of ``outs`` outputs those in ``columns``."""

    x: Floats
    w: Floats
    columns: Indices  # ascending
    bias: Floats | None  # [columns], or [rows, columns]: the old output
    dtype: str  # of the output
    at: Alignment = field(default_factory=Alignment)
    _sums: dict[Key, _Sums] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._exact = products_are_exact(self.x, self.w)

    def _c(self, rows: slice, columns: slice) -> Floats | None:
        if self.bias is None:
            return None
        full = np.broadcast_to(self.bias, (self.x.shape[0], self.columns.size))
        return full[rows, columns]

    def _ordered(
        self, order: SumOrder, peel: int, inside: bool, rows: slice, where: slice
    ) -> Floats:
        sums = self._sums.get((order, peel, inside))
        if sums is None:
            shape = (self.x.shape[0], self.columns.size)
            sums = _Sums(np.full(shape, np.nan, np.float32), np.zeros(shape[1], np.int64))
            self._sums[order, peel, inside] = sums
        # Neighbours with as many rows done as each other; rows are done ahead, for larger products.
        done = sums.rows_done[where]
        edges = np.flatnonzero(np.diff(done)) + 1
        for part in np.split(np.arange(where.start, where.stop), edges):
            first = int(sums.rows_done[part[0]])
            if first >= rows.stop:
                continue
            columns = slice(int(part[0]), int(part[-1]) + 1)
            todo = slice(first, min(self.x.shape[0], -(-rows.stop // _AHEAD) * _AHEAD))
            c = self._c(todo, columns) if inside else None
            x, w = self.x[todo], self.w[columns]
            sums.values[todo, columns] = evaluate(order, x, w, c, peel, self._exact)
            sums.rows_done[columns] = todo.stop
        return sums.values[rows, where]

    def output(self, rule: SumRule, rows: int, outs: int, first: int = 0) -> Floats:
        """A product of ``rows`` rows from ``first`` on with ``outs`` outputs: the held columns."""
        held = int(np.searchsorted(self.columns, outs))
        result = np.full((rows, held), np.nan, np.float32)
        inside = rule.bias == "first" and self.bias is not None
        round_to = ROUNDINGS[self.dtype]
        for region in regions(rule, rows, outs, self.x.shape[1], self.at):
            begin, end = np.searchsorted(self.columns, [region.outs.start, region.outs.stop])
            where = slice(int(begin), min(int(end), held))
            if where.start >= where.stop:
                continue
            span = slice(region.rows.start, min(region.rows.stop, rows))
            held_rows = slice(first + span.start, first + span.stop)
            sums = self._ordered(region.order, region.peel, inside, held_rows, where)
            c = self._c(held_rows, where)
            if c is not None and not inside:
                sums = c + (round_to(sums) if rule.bias == "rounded" else sums)
            result[span, where] = round_to(sums)
        return result


@dataclass
class Proof:
    """What a rule was compared with."""

    rule: SumRule
    compared: int
    mismatches: int

    @property
    def proven(self) -> bool:
        return self.compared > 0 and self.mismatches == 0


Check: TypeAlias = Callable[[SumRule], tuple[int, int]]  # (compared, mismatches) of one data set


def prove(candidates: list[SumRule], checks: list[Check]) -> Proof:
    """The first candidate without a mismatch in any check; else the one with the fewest.

    Checks stand in order of cost; a candidate is dropped at the first one that it fails.
    """
    best: Proof | None = None
    for rule in dict.fromkeys(candidates):
        compared = mismatches = 0
        for check in checks:
            count, bad = check(rule)
            compared += count
            mismatches += bad
            if bad:
                break
        if mismatches == 0:
            return Proof(rule, compared, 0)
        if best is None or mismatches * best.compared < best.mismatches * compared:
            best = Proof(rule, compared, mismatches)
    if best is None:
        raise ValueError("there is no candidate rule")
    return best
