"""Finds and proves the parameters of PyTorch's flash kernel for the CPU
(scaled_dot_product_attention): all of it but the order of its two matrix products.

The products are made exact: q has three powers of two in it, k integers of eight bits, so that a
score is any 24-bit number whatever the order; and v has one 1 in a column, which hands out the
weight of that key. Beside the output the kernel returns log(sum) + max in fp32, which shows the
sum where the output is rounded to 16 bits. The blocks of query rows show only through the products:
see odd_rows.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import itertools
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from samebits import function_replay as replay
from samebits.elementary import EXP, F32
from samebits.shapes import Packing

Json = dict[str, Any]
HEADS = 4
_NOT_PACKED, _LONG = 8, 160  # query rows, surely not packed; packed, where anything is
_LONG_KV = (162, 170, 182)
_LIBM = ctypes.CDLL(ctypes.util.find_library("m"))
_LIBM.logf.restype = ctypes.c_float
_LIBM.logf.argtypes = [ctypes.c_float]


@dataclass(frozen=True)
class Shape:
    q_len: int
    kv_len: int
    causal: bool = False
    hidden: int = 0  # the first keys of a masked batch; 0: no mask
    late: bool = False  # the largest score is the last: everything before is rescaled


class _Case:
    """One call of the kernel, with what it must give under given parameters."""

    def __init__(
        self, shape: Shape, dtype: torch.dtype, head_dim: int, generator: np.random.Generator
    ) -> None:
        self.shape, self.dtype = shape, dtype
        self.scale = float(head_dim**-0.5)
        groups = head_dim // 3  # of three columns; query row r uses group r mod groups
        rows, keys = shape.q_len, shape.kv_len
        parts = generator.integers(0, 256, (HEADS, keys, groups, 3)).astype(np.float32)
        spread = generator.choice([1, 8, 40, 127], (HEADS, 1, groups))
        parts[..., 0] = -np.floor(generator.random((HEADS, keys, groups)) * spread)
        if shape.late:
            parts[:, -1, :, 0] = 2
        weights = np.array([1, 2.0**-8, 2.0**-16], np.float32)
        q = np.zeros((HEADS, rows, groups, 3), np.float32)
        q[:, np.arange(rows), np.arange(rows) % groups] = weights
        scores = (parts * weights).sum(-1)  # exact
        self.scores = np.ascontiguousarray(
            scores[:, :, np.arange(rows) % groups].transpose(0, 2, 1)
        )
        self.visible = np.ones((rows, keys), bool)
        if shape.causal:
            self.visible = np.tri(rows, keys, dtype=bool)
        if shape.hidden:
            self.visible[:, : shape.hidden] = False
        self.columns = generator.integers(0, keys, (HEADS, head_dim))
        v = np.zeros((HEADS, keys, head_dim), np.float32)
        for head in range(HEADS):
            v[head, self.columns[head], np.arange(head_dim)] = 1

        def tensor(array: F32) -> torch.Tensor:
            return torch.from_numpy(array[None]).to(dtype)

        def filled(array: F32) -> torch.Tensor:  # to head_dim columns
            flat = array.reshape(*array.shape[:2], groups * 3)
            return tensor(np.pad(flat, ((0, 0), (0, 0), (0, head_dim - groups * 3))))

        self.q, self.k, self.v = filled(q), filled(parts), tensor(v)

    def actual(self) -> tuple[F32, F32]:
        """The output and log(sum) + max of the running kernel."""
        mask = None
        if self.shape.hidden:
            keep = torch.from_numpy(self.visible)[None, None]
            mask = torch.zeros(keep.shape, dtype=self.dtype).masked_fill(~keep, -torch.inf)
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            self.q, self.k, self.v, 0.0, self.shape.causal, attn_mask=mask, scale=self.scale
        )
        public = F.scaled_dot_product_attention(
            self.q,
            self.k,
            self.v,
            attn_mask=None if mask is None else keep,
            is_causal=self.shape.causal,
            scale=self.scale,
        )
        if not torch.equal(out, public):
            raise RuntimeError("scaled_dot_product_attention does not take the flash kernel")
        return out[0].float().numpy(), lse[0].numpy().reshape(HEADS, self.shape.q_len)

    def expected(self, sdpa: Json) -> tuple[F32, F32]:
        rows, keys = self.shape.q_len, self.shape.kv_len

        def rounded(x: F32) -> F32:
            if self.dtype == torch.float32:
                return x
            return np.asarray(torch.from_numpy(x).to(self.dtype).float().numpy())

        scores = np.where(self.visible, self.scores, np.float32(-np.inf)).reshape(-1, keys)
        weights, total, largest = replay.flash_weights(scores, self.scale, sdpa, rounded)
        weights = weights.reshape(HEADS, rows, keys)
        out = np.stack([weights[h][:, self.columns[h]] for h in range(HEADS)])
        sums = np.where(total == 0, np.float32(1), total)
        maxima = np.where(largest == -np.inf, np.float32(0), largest)
        logs = np.array([_LIBM.logf(float(s)) for s in sums], np.float32)
        return rounded(out), (maxima + logs).reshape(HEADS, rows)


class _Probe:
    def __init__(self, dtype: torch.dtype, head_dim: int, generator: np.random.Generator) -> None:
        self.dtype, self.head_dim, self.generator = dtype, head_dim, generator

    def cases(self, shapes: Iterable[Shape]) -> list[tuple[_Case, tuple[F32, F32]]]:
        made = [_Case(shape, self.dtype, self.head_dim, self.generator) for shape in shapes]
        return [(case, case.actual()) for case in made]

    @staticmethod
    def compare(sdpa: Json, cases: list[tuple[_Case, tuple[F32, F32]]]) -> tuple[int, int]:
        compared = differing = 0
        for case, actual in cases:
            for a, e in zip(actual, case.expected(sdpa), strict=True):
                compared += a.size
                differing += int((a.view(np.uint32) != e.view(np.uint32)).sum())
        return compared, differing

    def best(self, candidates: Iterable[Json], shapes: Iterable[Shape]) -> Json:
        cases = self.cases(shapes)
        found: Json = {}
        fewest = -1
        for candidate in candidates:
            differing = self.compare(candidate, cases)[1]
            if fewest < 0 or differing < fewest:
                found, fewest = candidate, differing
            if differing == 0:
                break
        return found

    def _same_rows(self, key_seed: int, q_len: int, kv_len: int = 48) -> torch.Tensor:
        """The output for q_len rows that are all the same query. Each key stands there twice, with
        opposite values: what comes out is rounding and nothing else."""
        generator = np.random.default_rng(key_seed)
        keys, values = generator.standard_normal((2, 2, -(-kv_len // 2), self.head_dim))
        order = generator.permutation(keys.shape[1] * 2)[:kv_len]
        k = np.concatenate((keys, keys), axis=1)[:, order]
        v = np.concatenate((values, -values), axis=1)[:, order]
        q = np.repeat(keys[:, :1], q_len, axis=1)
        # order="C": PyTorch takes another kernel for other layouts.
        tensors = [torch.from_numpy(np.array(t, order="C")[None]).to(self.dtype) for t in (q, k, v)]
        return F.scaled_dot_product_attention(*tensors)[0].float()

    def _odd_rows(self, key_seed: int, q_len: int) -> int:
        """How many of the same rows come out different from the first one."""
        out = self._same_rows(key_seed, q_len)
        return int((out != out[:, :1]).any(-1).any(0).sum())

    def packing(self) -> tuple[Packing | None, tuple[int, int]]:
        """From which lengths on the products are others, and how many calls were looked at and do
        not fit. The first row of a call shows it; lengths whose products have the same bits either
        way count as not packed."""

        def other(q_len: int, kv_len: int) -> bool:
            rows = [self._same_rows(kv_len, q, kv_len)[:, 0] for q in (_NOT_PACKED, q_len)]
            return not torch.equal(rows[0], rows[1])

        looked = range(_NOT_PACKED, _LONG + 1)
        packed = [q for q in looked if any(other(q, kv) for kv in _LONG_KV)]
        if not packed:
            return None, (len(looked), 0)
        first_kv = next((kv for kv in looked if other(_LONG, kv)), _LONG)
        misfits = _LONG + 1 - packed[0] - len(packed)
        return Packing(packed[0], first_kv), (2 * len(looked), misfits)

    def query_splits(self) -> tuple[list[Json], tuple[int, int]]:
        """The rule for blocks of query rows, and how many lengths were compared with it. It shows
        only where products of 1 to 3 rows have another order than those of more: then the rest of
        a division does. Rules that agree in these give the same products."""
        lengths = {s * n + r for s in (32, 64, 128, 256, 512) for n in (1, 2, 3, 5) for r in (1, 3)}
        known = [(0, 32), (192, 64), (768, 256)]
        rules = [known, *([(0, size)] for size in (16, 32, 64, 128, 256, 512, 1 << 16))]
        odd_rows, shown = {}, {}
        for n in sorted(n for n in lengths if n < 1300):
            # A rest of r rows behind blocks of any of the sizes, with the same keys.
            shown[n] = [r for r in (1, 2, 3) if self._odd_rows(n, 512 + r) == r]
            if shown[n]:
                odd_rows[n] = self._odd_rows(n, n)

        def differing(rule: list[tuple[int, int]]) -> int:
            count = 0
            for n, rows in odd_rows.items():
                size = [size for least, size in rule if n >= least][-1]
                rest = n % size if n > size else 0
                count += rows != (rest if rest in shown[n] else 0)
            return count

        best = min(rules, key=differing)
        splits = [{"min_q_len": least, "size": size} for least, size in best]
        return splits, (len(odd_rows), differing(best))


def _proof_shapes(max_keys: int) -> list[Shape]:
    """What a model meets up to max_keys, and a few that need a second and third block of keys."""
    some = (97, 128, 200, 255, 256, 500, *range(509, 530), 600, 1024, 1031)
    lengths = sorted({*range(1, min(max_keys, 70) + 1), *(n for n in some if n <= max_keys)})
    decode = sorted({*range(1, min(max_keys, 130) + 1), *some, max_keys})
    shapes = [Shape(n, n, causal=n > 1) for n in lengths if n <= 600]
    shapes += [Shape(1, n, late=n % 3 == 0) for n in decode]
    shapes += [Shape(r, n) for r, n in ((2, 40), (7, 40), (3, 200), (2, 600), (5, 1031))]
    shapes += [Shape(n, n, hidden=h) for n, h in ((9, 2), (40, 17), (70, 1))]
    shapes += [Shape(r, n, hidden=h) for r, n, h in ((1, 41, 3), (2, 33, 9), (7, 600, 550))]
    return shapes


def probe_sdpa(
    dtype: torch.dtype, head_dim: int, max_keys: int, generator: np.random.Generator
) -> Json:
    """The entry "sdpa"; empty where PyTorch takes another kernel."""
    probe = _Probe(dtype, head_dim, generator)
    start: Json = {"tail_exp": "glibc_exp_rounded", "rescale_exp": "glibc_expf", "kv_split": 512}
    # Without a tail, in one block of keys: the vectors.
    lanes = (16, 8, 4, 32) if "512" in torch.backends.cpu.get_cpu_capability() else (8, 16, 4, 32)
    sums = (1, 2) if dtype == torch.float32 else (2, 1)
    try:
        found = probe.best(
            (
                {**start, "lanes": width, "sums": n, "exp": exp}
                for exp, n, width in itertools.product(
                    ("exp_u20", "fexp_u20", "sleef_expf_u10", "glibc_expf"), sums, lanes
                )
            ),
            [Shape(5, n) for n in (64, 96, 160, 192, 224)],
        )
    except RuntimeError:
        return {}
    found = probe.best(
        ({**found, "tail_exp": exp} for exp in ("glibc_exp_rounded", *EXP)),
        [Shape(16, n) for n in (*range(2, 32), 70, 75, 79)],
    )
    found = probe.best(
        (
            {**found, "rescale_exp": exp, "kv_split": split}
            for split, exp in itertools.product(
                (512, 256, 128, 1024, 64, 1 << 16), ("glibc_expf", *EXP)
            )
        ),
        [Shape(16, n, late=late) for n in (600, 1100) for late in (True, False)],
    )
    found["q_splits"], splits = probe.query_splits()
    packing, looked = probe.packing()
    if packing:
        found["packing"] = asdict(packing)
    proof = probe.compare(found, probe.cases(_proof_shapes(max_keys)))
    compared, differing = (sum(counts) for counts in zip(proof, splits, looked, strict=True))
    return {**found, "proof": {"compared": compared, "differing": differing}}


def find_packing(dtype: torch.dtype, head_dim: int) -> Packing | None:
    """Which calls of the fused kernel take packed products here."""
    return _Probe(dtype, head_dim, np.random.default_rng(0)).packing()[0]
