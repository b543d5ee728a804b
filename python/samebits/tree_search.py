"""Finds the tree of additions of an unknown kernel from its outputs alone (FPRev's method).

With +big at element i, -big at element j and ones elsewhere, all ones that are added to either
before the two meet are lost; how many are left tells the height at which i and j meet.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from samebits.orders import Floats, TreeOrder
from samebits.rules import OrderClass, SumRule

Dot = Callable[[Floats, Floats], float]

_BIG = {"float32": 2.0**100, "bfloat16": 2.0**100, "float16": 2.0**15}
_ONE = {"float32": 1.0, "bfloat16": 1.0, "float16": 2.0**-10}
_MAX_WORK = 2e10  # multiply-adds of all probes together


def search_tree(dot: Dot, size: int, dtype: str, outputs: int) -> list[SumRule]:
    """Candidate rules in which all outputs have the tree of output 0; none if it is too dear."""
    if float(size) * size * size * outputs > _MAX_WORK * 8:
        return []
    calls = 0

    def lost(i: int, j: int) -> int:
        nonlocal calls
        big, one = _BIG[dtype], _ONE[dtype]
        kept = 0.0
        others = np.array([k for k in range(size) if k not in (i, j)])
        # A bfloat16 result counts exactly to 256 only, so ones are set in parts.
        for part in np.array_split(others, max(1, -(-others.size // 128))):
            x = np.full(size, one, np.float32)
            w = np.zeros(size, np.float32)
            w[part] = one
            x[i] = x[j] = big
            w[i], w[j] = (big, -big) if dtype == "float16" else (1.0, -1.0)
            calls += 1
            kept += round(dot(x, w) / (one * one))
        return size - round(kept)

    def build(elements: list[int]) -> list[int]:
        """Postfix of the subtree that holds these, which are closed under meeting."""
        first = elements[0]
        if len(elements) == 1:
            return [first]
        heights: dict[int, list[int]] = {}
        for other in elements[1:]:
            heights.setdefault(lost(first, other), []).append(other)
        postfix = [first]
        for height in sorted(heights):
            postfix += [*build(heights[height]), -1]
        return postfix

    try:
        tree = tuple(build(list(range(size))))
    except (RecursionError, ValueError, OverflowError):
        return []
    return [SumRule((OrderClass(TreeOrder(tree, fused)),), "last") for fused in (True, False)]
