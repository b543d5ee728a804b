"""Finds the tiles and the blocks of K of a kernel from a few of its outputs.

With +big at element i, -big at element j and a 1 at element k, the output tells whether k joins
before the big ones have met (the 1 is lost) or after. Every column of w asks one such question.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from samebits.orders import Floats

# x [size] and w [questions, size] to the outputs [questions] of one row
Product = Callable[[Floats, Floats], Floats]

_MAX_TILE = 64
_STEP = 32  # elements between two questions, where there are no tiles


@dataclass(frozen=True)
class Blocks:
    """``tile``: elements whose sum joins as one (2: or they join one by one), 0 for all; ``block``:
    elements of a block of K, 0 for a single block; ``part``: elements of blocks that are added to
    each other first, or 0."""

    tile: int
    block: int
    part: int


def _ask(product: Product, dtype: str, outs: int, size: int, places: list[list[int]]) -> list[bool]:
    """For each [i, j, k]: whether the 1 at k survives."""
    x, big, one = (2.0**15, 2.0**15, 2.0**-14) if dtype == "float16" else (1.0, 2.0**100, 1.0)
    kept: list[bool] = []
    for first in range(0, len(places), outs):
        part = places[first : first + outs]
        w = np.zeros((len(part), size), np.float32)
        for row, (i, j, k) in zip(w, part, strict=True):
            row[i], row[j], row[k] = big, -big, one
        sums = product(np.full(size, x, np.float32), w)
        kept += [bool(value) for value in sums == np.float32(x * one)]
    return kept


def scan(product: Product, size: int, outs: int, dtype: str) -> Blocks:
    """What ``product`` shows, which has ``outs`` outputs a row at most."""
    after = list(range(2, min(size, _MAX_TILE + 1), 2))
    kept = _ask(product, dtype, outs, size, [[0, 1, k] for k in after])
    tile = after[kept.index(True)] if True in kept else 0
    step = tile if tile > 2 else _STEP
    starts = list(range(step, size - step, step))
    kept = _ask(product, dtype, outs, size, [[j, j + step, j - step] for j in starts])
    block = starts[kept.index(True)] if True in kept else 0
    part = 0
    if block:
        starts = list(range(block, size - block, block))
        kept = _ask(product, dtype, outs, size, [[j, j + block, j - block] for j in starts])
        part = starts[kept.index(True)] if True in kept else 0
    return Blocks(tile, block, part)
