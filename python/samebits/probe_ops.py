"""Finds and proves the parameters of PyTorch's CPU operations that are not matrix products: the
section "functions" of a profile (docs/profile-functions.md).

Each operation's running kernel is compared with the interpreter of function_replay.py under every
candidate: number of lanes, function of e^x, rule for what is left over, sizes of blocks. The first
candidate without a differing bit is then proven on the sizes that the model meets, and the counts
go into the profile; where none fits, the best one goes in with its counts, which say that it is
unproven. sdpa's flash kernel is probed in probe_flash.py.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from samebits import function_replay as replay
from samebits.elementary import EXP, F32
from samebits.probe_flash import probe_sdpa

Json = dict[str, Any]
LANES = (8, 16, 4, 32, 1)


@dataclass
class Count:
    """Values compared, and how many of them had other bits. NaN is the same as NaN."""

    compared: int = 0
    differing: int = 0

    def add(self, actual: torch.Tensor, expected: torch.Tensor) -> None:
        same = (actual == expected) & (torch.signbit(actual) == torch.signbit(expected))
        same |= actual.isnan() & expected.isnan()
        self.compared += actual.numel()
        self.differing += int((~same).sum())

    def json(self) -> dict[str, int]:
        return {"compared": self.compared, "differing": self.differing}


@dataclass
class RotaryTable:
    """What a rotary embedding module holds, and how many positions are wanted."""

    inv_freq: torch.Tensor  # fp32 [head_dim / 2]
    scaling: float
    positions: int


@dataclass
class Sizes:
    """What a model meets."""

    dtype: torch.dtype
    norm_sizes: Sequence[int]  # hidden_size, head_dim where q and k are normalised
    intermediate_size: int
    head_dim: int
    prompts: Sequence[int]  # tokens of a forward pass
    max_keys: int
    rotary: Sequence[RotaryTable] = field(default_factory=list)


def rounding(dtype: torch.dtype) -> Callable[[F32], F32]:
    """float32 to `dtype` and back, as PyTorch's cast does it."""

    def rounded(x: F32) -> F32:
        if dtype == torch.float32:
            return x
        return np.asarray(torch.from_numpy(np.ascontiguousarray(x)).to(dtype).float().numpy())

    return rounded


def _best(candidates: Iterable[Json], attempt: Callable[[Json], Count]) -> Json:
    """The first candidate without a difference, else the one with the fewest."""
    best: Json = {}
    fewest = -1
    for candidate in candidates:
        differing = attempt(candidate).differing
        if fewest < 0 or differing < fewest:
            best, fewest = candidate, differing
        if differing == 0:
            break
    return best


def _wide(generator: np.random.Generator, shape: tuple[int, ...]) -> F32:
    """Normal numbers of very different sizes: sums of them show their order."""
    x = generator.standard_normal(shape) * np.exp(3 * generator.standard_normal(shape))
    return np.asarray(x, np.float32)


def probe_sum(sizes: Sequence[int], generator: np.random.Generator) -> Json:
    """The mean of squares of RMSNorm, as transformers computes it."""

    def compare(function: Json, shapes: Iterable[tuple[int, int]]) -> Count:
        count = Count()
        for rows, n in shapes:
            x = _wide(generator, (rows, n))
            square = x * x
            mean = replay.cascade_sum(square, function["lanes"]) / np.float32(n)
            wide = torch.from_numpy(x)
            count.add(wide.pow(2).mean(-1), torch.from_numpy(mean))
        return count

    some = [(3, n) for n in (64, 67, 100, 256, 1000)]
    found = _best(
        ({"family": "cascade", "lanes": lanes} for lanes in LANES),
        lambda candidate: compare(candidate, some),
    )
    shapes = [(rows, n) for rows in (1, 5, 70) for n in sizes] + [(3, n) for n in range(1, 130)]
    return {**found, "proof": compare(found, shapes).json()}


def probe_softmax(max_keys: int, generator: np.random.Generator) -> Json:
    def compare(function: Json, shapes: Iterable[tuple[int, int]]) -> Count:
        count = Count()
        for rows, n in shapes:
            x = np.asarray(6 * generator.standard_normal((rows, n)), np.float32)
            if n > 3:
                x[rows // 2 :, 1 : n // 2] = -np.inf
            expected = replay.softmax(x, function["lanes"], function["exp"])
            actual = torch.softmax(torch.from_numpy(x), dim=-1, dtype=torch.float32)
            count.add(actual, torch.from_numpy(expected))
        return count

    some = [(4, n) for n in (5, 17, 40, 100)]
    found = _best(
        ({"lanes": lanes, "exp": exp} for exp, lanes in itertools.product(EXP, LANES)),
        lambda candidate: compare(candidate, some),
    )
    every = sorted({*range(1, min(max_keys, 300) + 1), max_keys})
    return {**found, "proof": compare(found, [(6, n) for n in every]).json()}


def _every_value(dtype: torch.dtype) -> torch.Tensor:
    """All values of a 16-bit dtype but NaN."""
    values = torch.arange(-32768, 32768, dtype=torch.int32).to(torch.int16).view(dtype)
    return values[~values.isnan()].contiguous()


def _silu_tensors(sizes: Sizes, generator: np.random.Generator) -> list[torch.Tensor]:
    """Small tensors of every size, one on each side of what threads share, and the model's."""
    grain = 32768
    numels = [*range(1, 260), grain - 1, grain + 7, 2 * grain + 77, 3 * grain + 1]
    numels += [tokens * sizes.intermediate_size for tokens in (1, *sizes.prompts)]
    return [
        torch.from_numpy(np.asarray(6 * generator.standard_normal(min(n, 1 << 21)), np.float32)).to(
            sizes.dtype
        )
        for n in numels
    ]


def probe_silu(sizes: Sizes, generator: np.random.Generator) -> Json:
    threads = torch.get_num_threads()
    rounded = rounding(sizes.dtype)

    def compare(function: Json, tensors: Iterable[torch.Tensor]) -> Count:
        count = Count()
        for x in tensors:
            tail = replay.silu_tail(x.numel(), function["block"], function["grain"], threads)
            wide = np.asarray(x.float().numpy())
            y = rounded(replay.silu(wide, tail, function["exp"], function["tail_exp"]))
            count.add(F.silu(x).float(), torch.from_numpy(y))
        return count

    with np.errstate(over="ignore"):
        if sizes.dtype != torch.float32:
            # Rounding may hide the function. If one gives all values, tails included, it is that.
            every = _every_value(sizes.dtype)
            shifted = [every, *(every[i : i + 127] for i in range(0, every.numel(), 127))]
            found = _best(
                ({"exp": e, "tail_exp": e, "block": 1, "grain": 32768} for e in EXP),
                lambda candidate: compare(candidate, shifted),
            )
            count = compare(found, [*shifted, *_silu_tensors(sizes, generator)])
            return {**found, "proof": count.json()}
        tensors = _silu_tensors(sizes, generator)
        whole = [torch.from_numpy(np.asarray(6 * generator.standard_normal(4096), np.float32))]
        exp = _best(
            ({"exp": e, "tail_exp": e, "block": 1, "grain": 32768} for e in EXP),
            lambda candidate: compare(candidate, whole),
        )["exp"]
        found = _best(
            (
                {"exp": exp, "tail_exp": tail, "block": block, "grain": 32768}
                for tail, block in itertools.product(EXP, (16, 32, 8, 64, 128))
            ),
            lambda candidate: compare(candidate, tensors[:200]),
        )
        return {**found, "proof": compare(found, tensors).json()}


def _ordered(values: F32) -> npt.NDArray[np.int64]:
    """Integers in the order of the values, neighbours one apart, both zeros 0."""
    bits = values.view(np.int32).astype(np.int64)
    return np.where(bits < 0, -(bits & 0x7FFFFFFF), bits)


def probe_rotary(table: RotaryTable) -> Json:
    """The bits of inv_freq, and where cos and sin are not the correctly rounded values. The proof
    counts the values that come out again with another shape, order and number of threads."""
    inv_freq = table.inv_freq.detach().float().cpu().contiguous()
    positions = torch.arange(table.positions).float()
    angle = positions[:, None] * inv_freq[None, :]
    both = torch.cat((angle, angle), dim=-1)
    shuffled = torch.randperm(angle.numel(), generator=torch.Generator().manual_seed(1))
    count = Count()
    result: Json = {
        "inv_freq": inv_freq.numpy().view(np.uint32).tolist(),
        "scaling_bits": int(np.array(table.scaling, np.float32).view(np.uint32)),
        "positions": table.positions,
    }
    half = inv_freq.numel()
    wide = angle.numpy().astype(np.longdouble)
    for name, function, exact in (("cos", torch.cos, np.cos), ("sin", torch.sin, np.sin)):
        values = function(both)[:, :half].contiguous()
        distance = _ordered(values.numpy()) - _ordered(exact(wide).astype(np.float32))
        result[name] = [
            [int(p), int(i), int(distance[p, i])] for p, i in np.argwhere(distance != 0)
        ]
        count.add(function(both)[:, half:], values)
        count.add(function(angle.reshape(-1)[shuffled]), values.reshape(-1)[shuffled])
        for p in range(0, table.positions, max(1, table.positions // 64)):
            count.add(function(both[p : p + 1])[:, :half], values[p : p + 1])
    result["proof"] = count.json()
    return result


def probe_functions(
    sizes: Sizes, seed: int = 0, progress: Callable[[str], None] = lambda _: None
) -> Json:
    """The section for one dtype and the present number of threads."""
    generator = np.random.default_rng(seed)
    steps: list[tuple[str, Callable[[], Any]]] = [
        ("sum", lambda: probe_sum(sizes.norm_sizes, generator)),
        ("softmax", lambda: probe_softmax(sizes.max_keys, generator)),
        ("silu", lambda: probe_silu(sizes, generator)),
        ("sdpa", lambda: probe_sdpa(sizes.dtype, sizes.head_dim, sizes.max_keys, generator)),
        ("rotary", lambda: [probe_rotary(table) for table in sizes.rotary]),
    ]
    functions: Json = {}
    for name, probe in steps:
        progress(name)
        found = probe()
        if found:
            functions[name] = found
    return functions
