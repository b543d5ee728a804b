"""PyTorch's CPU operations that are not matrix products, with the parameters of a profile.

The same as samebits/numerics/torch_ops.cc and torch_flash.cc, which define them; here in numpy
and for many rows at once. Rounding to the model's dtype is left to the caller.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from samebits.elementary import EXP, F32, fma32

Rounding = Callable[[F32], F32]  # to the model's dtype and back
LEVELS = 4


def _ceil_log2(n: int) -> int:
    return 1 if n <= 2 else (n - 1).bit_length()


def _cascade(vectors: F32) -> F32:
    """[rows, count, ...] summed over count, in a cascade of levels."""
    count = vectors.shape[1]
    power = max(4, _ceil_log2(count) // LEVELS)
    step = 1 << power
    level = np.zeros((LEVELS, vectors.shape[0], *vectors.shape[2:]), np.float32)
    i = 0
    while i + step <= count:
        for _ in range(step):
            level[0] += vectors[:, i]
            i += 1
        for j in range(1, LEVELS):
            level[j] += level[j - 1]
            level[j - 1] = 0
            if i & ((step - 1) << (j * power)):
                break
    for k in range(i, count):
        level[0] += vectors[:, k]
    for j in range(1, LEVELS):
        level[0] += level[j]
    first: F32 = level[0]
    return first


def cascade_sum(x: F32, lanes: int) -> F32:
    """[rows, n] summed over n."""
    rows, n = x.shape
    width = lanes if n >= lanes else 1
    count = n // width
    groups = count // 4
    total = np.zeros(rows, np.float32)
    for i in range(width * count, n):
        total += x[:, i]
    vectors = x[:, : width * count].reshape(rows, count, width)
    sums = _cascade(vectors[:, : 4 * groups].reshape(rows, groups, 4, width))
    first = sums[:, 0]
    for t in range(4 * groups, count):
        first += vectors[:, t]
    for k in range(1, 4):
        first += sums[:, k]
    for lane in range(width):
        total += first[:, lane]
    return total


def _halve(lanes: F32) -> F32:
    """[rows, lanes] reduced by a tree: lane l takes lane l + half."""
    while lanes.shape[1] > 1:
        half = lanes.shape[1] // 2
        lanes = lanes[:, :half] + lanes[:, half:]
    return lanes[:, 0]


def softmax(x: F32, lanes: int, exp: str) -> F32:
    """[rows, n], over n."""
    rows, n = x.shape
    e = EXP[exp](x - x.max(axis=1, keepdims=True))
    if n < lanes:
        total = np.zeros(rows, np.float32)
        for i in range(n):
            total += e[:, i]
    else:
        sums = e[:, :lanes].copy()
        for i in range(lanes, n, lanes):
            part = e[:, i : i + lanes]
            sums[:, : part.shape[1]] += part
        total = _halve(sums)
    return e * (np.float32(1) / total)[:, None]


def silu_tail(numel: int, block: int, grain: int, threads: int) -> npt.NDArray[np.bool_]:
    """Which elements of a tensor take the tail's function of e^x."""
    size = numel
    if numel > grain and threads > 1:
        parts = min(threads, -(-numel // grain))
        size = -(-numel // parts)
    index = np.arange(numel)
    first = index // size * size
    length = np.minimum(size, numel - first)
    return np.asarray(index - first >= length // block * block)


def silu(x: F32, tail: npt.NDArray[np.bool_], exp: str, tail_exp: str) -> F32:
    body = EXP[exp](-x)
    if exp != tail_exp:
        body[tail] = EXP[tail_exp](-x[tail])
    with np.errstate(invalid="ignore"):  # -inf / inf
        return x / (np.float32(1) + body)


def _exp_and_sum(a: F32, largest: F32, sdpa: dict[str, Any]) -> tuple[F32, F32]:
    """e^(a - largest) of [rows, keys], and its sums."""
    lanes, block = sdpa["lanes"], sdpa["sums"] * sdpa["lanes"]
    rows, n = a.shape
    whole, vectors = n // block * block, n // lanes * lanes
    x = a - largest[:, None]
    e = np.empty_like(x)
    e[:, :vectors] = EXP[sdpa["exp"]](x[:, :vectors])
    e[:, vectors:] = EXP[sdpa["tail_exp"]](x[:, vectors:])
    sums = np.zeros((3, rows, lanes), np.float32)
    for j in range(0, vectors, lanes):
        sums[j % block // lanes if j < whole else 2] += e[:, j : j + lanes]
    total = _halve((sums[0] + sums[2]) + sums[1])
    for j in range(vectors, n):
        total = total + e[:, j]
    return e, total


def flash_weights(
    scores: F32, scale: float, sdpa: dict[str, Any], rounded: Rounding
) -> tuple[F32, F32, F32]:
    """What each key's row of v is multiplied with in the end, before the last rounding, for exact
    products: scores [rows, keys], -inf where hidden. With the sums and the maxima."""
    rows, keys = scores.shape
    weights = np.zeros_like(scores)
    running = np.full(rows, -np.inf, np.float32)
    total = np.zeros(rows, np.float32)
    for first in range(0, keys, sdpa["kv_split"]):
        a = scores[:, first : first + sdpa["kv_split"]] * np.float32(scale)
        largest = np.maximum(running, a.max(axis=1))
        live = largest != -np.inf
        if not live.any():
            continue
        e, t = _exp_and_sum(a[live], largest[live], sdpa)
        c = EXP[sdpa["rescale_exp"]](running[live] - largest[live])
        total[live] = fma32(c, total[live], t)
        running[live] = largest[live]
        weights[live, :first] *= c[:, None]
        weights[live, first : first + a.shape[1]] = rounded(e)
    total_or_1 = np.where(total == 0, np.float32(1), total).astype(np.float32)
    final: F32 = weights * (np.float32(1) / total_or_1)[:, None]
    return final, total, running
