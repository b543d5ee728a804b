"""Products as accelerators form them, simulated in numpy: healthy, but not IEEE float32.

Products are exact here (float64), so each function shows one habit alone: operands that lose bits,
or sums that do.
"""

from __future__ import annotations

from collections.abc import Set
from typing import Any

import ml_dtypes
import numpy as np

Array = np.ndarray[Any, Any]
BLOCK = 8


def tf32(x: Array) -> Array:
    """10 bits of mantissa, to nearest even."""
    mantissa, exponent = np.frexp(x)
    return np.ldexp(np.rint(mantissa * 2**11), exponent - 11)


def truncate(x: Array, unit: Array) -> Array:
    """Cut off below `unit`, towards zero."""
    return np.trunc(x / unit) * unit


def truncated_sum(products: Array) -> Array:
    """Over the last axis: blocks of 8 terms and the sum so far, aligned to the largest and cut."""
    length = products.shape[-1]
    total = np.zeros(products.shape[:-1])
    for begin in range(0, length, BLOCK):
        terms = np.concatenate([total[..., None], products[..., begin : begin + BLOCK]], axis=-1)
        largest = np.abs(terms).max(axis=-1, keepdims=True)
        _, exponent = np.frexp(np.where(largest == 0, 1, largest))
        total = truncate(terms, np.ldexp(1.0, exponent - 24)).sum(axis=-1)
        _, exponent = np.frexp(np.where(total == 0, 1, total))
        total = truncate(total, np.ldexp(1.0, exponent - 24))
    return total


def product(spec: str, a: Any, b: Any, habits: Set[str]) -> Array:
    """np.einsum(spec, a, b) for specs of a matrix product, in float32."""
    x, y = (np.asarray(v).astype(np.float64) for v in (a, b))
    if "products-tf32" in habits:
        x, y = tf32(x), tf32(y)
    low = 0.0
    if "products-bf16x3" in habits:
        parts = []
        for v in (x, y):
            high = v.astype(ml_dtypes.bfloat16).astype(np.float64)
            parts.append((high, (v - high).astype(ml_dtypes.bfloat16).astype(np.float64)))
        (x, x_low), (y, y_low) = ((high + rest, rest) for high, rest in parts)
        low = np.einsum(spec, x_low, y_low)
    if "sums-truncated" not in habits:
        return (np.einsum(spec, x, y) - low).astype(np.float32)
    left, out = spec.split("->")
    first, second = left.split(",")
    summed = next(letter for letter in first if letter in second and letter not in out)
    rows = np.einsum(f"{spec.split('->')[0]}->{out}{summed}", x, y)
    return truncated_sum(rows).astype(np.float32)
