"""Finds and proves the order of every matrix product that a model meets in PyTorch on this CPU.

A rule is accepted for a shape when it gives the bits of the real kernel on cancelling data, with
not one mismatch; otherwise the entry says so (``proven`` false) with the counts. Nothing is
inferred from one shape to another.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from transformers import DynamicCache

from samebits import known_rules
from samebits.block_scan import scan
from samebits.orders import Floats
from samebits.probe_data import ENOUGH, ROWS, Progress, aligned, to_numpy, to_torch
from samebits.probe_flash import find_packing
from samebits.probe_fused import fused_work, probe_fused
from samebits.profile import Entry
from samebits.replay import Check, Indices, Proof, Replay, cancelling, differing, prove, windows
from samebits.rules import ROUNDINGS, Alignment, SumRule
from samebits.shapes import LinearShape, Workload
from samebits.tree_search import search_tree

_SCOUTS = 32  # columns at either end that are replayed first, and in full precision
_MACS = 1 << 30  # multiply-adds of the replay of one data set: above it columns are sampled


def _columns(outs: int, limit: int, generator: np.random.Generator) -> Indices:
    """At most about ``limit`` of the outputs: both ends, and random ones."""
    if outs <= limit:
        return np.arange(outs)
    ends = np.concatenate([np.arange(_SCOUTS), np.arange(outs - _SCOUTS, outs)])
    return np.union1d(ends, generator.choice(outs, max(1, limit - ends.size), replace=False))


class _LinearData:
    """One data set for a linear layer, the kernel's outputs for it, and its replay."""

    def __init__(
        self, shape: LinearShape, dtype: str, rows: int, kind: str, seed: int, limit: int
    ) -> None:
        generator = np.random.default_rng(seed)
        size, outs = shape.in_features, shape.out_features
        x, w = cancelling(generator, rows, outs, size, dtype, exact=kind != "full")
        bias = None
        if shape.bias:
            scale = np.float32(2.0**-16 * size**0.5)  # about that of the rounding errors
            bias = ROUNDINGS[dtype](generator.standard_normal(outs, np.float32) * scale)
        if kind == "tiny":  # products among the denormals of fp32
            x, w = x * np.float32(2.0**-70), w * np.float32(2.0**-72)
            bias = None if bias is None else bias * np.float32(0)
        self.position = int(generator.integers(4)) if dtype == "float32" else 0
        self.x = aligned(to_torch(x, dtype))
        self.w = aligned(to_torch(w, dtype), self.position)
        self.bias = None if bias is None else to_torch(bias, dtype)
        columns = _columns(outs, limit, generator)
        self.replay = Replay(x, w[columns], columns, None if bias is None else bias[columns], dtype)
        self.replay.at = Alignment(w=self.position)
        self.outs = outs

    def check(self, rows: int) -> Check:
        firsts = windows(rows, self.outs, self.x.shape[0])
        outputs: dict[int, Floats] = {}

        def output(first: int) -> Floats:
            if first not in outputs:
                x = aligned(self.x[first : first + rows])
                y = torch.nn.functional.linear(x, self.w, self.bias)
                outputs[first] = np.ascontiguousarray(to_numpy(y)[:, self.replay.columns])
            return outputs[first]

        def check(rule: SumRule) -> tuple[int, int]:
            compared = bad = 0
            for first in firsts:
                replayed = self.replay.output(rule, rows, self.outs, first)
                compared += replayed.size
                bad += differing(replayed, output(first))
                if bad:
                    break
            return compared, bad

        return check


def _probe_linear(
    shape: LinearShape, dtype: str, all_rows: list[int], threads: int, progress: Progress
) -> Iterator[Entry]:
    size = shape.in_features
    most = max(all_rows[-1], ROWS)
    limit = max(1024, _MACS // (most * size))
    data = [_LinearData(shape, dtype, most, "exact", seed=2, limit=limit)]
    if dtype == "float32":  # whose products are rounded, unless fused
        data.insert(0, _LinearData(shape, dtype, most, "full", seed=1, limit=2 * _SCOUTS))
    tiny = _LinearData(shape, dtype, 8, "tiny", seed=3, limit=2 * _SCOUTS)
    keys = {
        "in_features": size,
        "out_features": shape.out_features,
        "bias": shape.bias,
    }
    last: list[SumRule] = []
    for rows in all_rows:
        checks = [one.check(rows) for one in data]
        if rows <= 8 and dtype != "float16":
            checks.insert(1, tiny.check(rows))
        known = known_rules.product_rules(dtype, rows, threads, shape.out_features, size)
        if dtype != "float32":
            known = [*_blocks_of_linear(shape, dtype, rows), *known]
        proof = prove([*[rule for rule in last if rule in known], *known], checks)
        if proof.mismatches:
            proof = _search_linear(shape, dtype, rows, checks) or proof
        last = [proof.rule]
        progress(rows * size * shape.out_features)
        yield Entry("linear", keys, rows, 0, proof)


def _blocks_of_linear(shape: LinearShape, dtype: str, rows: int) -> list[SumRule]:
    def product(x: Floats, w: Floats) -> Floats:
        full = np.zeros((shape.out_features, x.size), np.float32)
        full[: w.shape[0]] = w
        y = torch.nn.functional.linear(
            to_torch(np.tile(x, (rows, 1)), dtype), to_torch(full, dtype)
        )
        return to_numpy(y)[0, : w.shape[0]]

    found = scan(product, shape.in_features, shape.out_features, dtype)
    return known_rules.block_rules(found)


def _search_linear(shape: LinearShape, dtype: str, rows: int, checks: list[Check]) -> Proof | None:
    def dot(x: Floats, w: Floats) -> float:
        full_x = torch.zeros(rows, x.size)
        full_x[0] = torch.from_numpy(x)
        full_w = torch.zeros(shape.out_features, w.size)
        full_w[0] = torch.from_numpy(w)
        kind = getattr(torch, dtype)
        return float(torch.nn.functional.linear(full_x.to(kind), full_w.to(kind))[0, 0])

    rules = search_tree(dot, shape.in_features, dtype, shape.out_features * rows)
    proof = prove(rules, checks) if rules else None
    return proof if proof is not None and proof.mismatches == 0 else None


def _heads_checked(heads: int) -> list[int]:
    return sorted({0, heads // 2, heads - 1})


def _cached(states: torch.Tensor, past: int, groups: int) -> torch.Tensor:
    """[batch, heads, keys, head_dim] from [batch, tokens, kv heads, head_dim] as transformers gets
    them: through its cache, then repeated. With one kv head that is a view, not a copy, and torch
    takes another kernel for a batch of those."""
    cache = DynamicCache()
    states = states.transpose(1, 2)
    for part in (states[:, :, :past], states[:, :, past:]):
        if part.shape[2]:
            states, _ = cache.update(part, part, 0)
    batch, heads, keys, head_dim = states.shape
    if groups == 1:
        return states
    wide = states[:, :, None].expand(batch, heads, groups, keys, head_dim)
    return wide.reshape(batch, heads * groups, keys, head_dim)


class _Scores:
    """q k^T of eager attention: the largest one, of which all others are the corner."""

    def __init__(self, load: Workload, dtype: str, exact: bool) -> None:
        generator = np.random.default_rng(11)
        passes = load.passes()
        rows = max(ROWS, *(rows for rows, _ in passes))
        keys = max(rows + past for rows, past in passes)
        self.groups = load.heads // load.kv_heads
        matrices = load.batch * load.heads
        pairs = [  # heads of a group share their keys
            cancelling(generator, self.groups * rows, keys, load.head_dim, dtype, exact)
            for _ in range(load.batch * load.kv_heads)
        ]
        queries = np.concatenate([x.reshape(self.groups, rows, -1) for x, _ in pairs])
        self.q = to_torch(queries, dtype).unflatten(0, (load.batch, load.heads)).transpose(1, 2)
        kv_shape = (load.batch, load.kv_heads)
        states = np.stack([w for _, w in pairs])
        self.k = to_torch(states, dtype).unflatten(0, kv_shape).transpose(1, 2)
        self.replays = {
            m: Replay(queries[m], pairs[m // self.groups][1], np.arange(keys), None, dtype)
            for m in _heads_checked(matrices)
        }

    def check(self, rows: int, past: int) -> Check:
        keys = rows + past
        firsts = windows(rows, keys, self.q.shape[1])
        outputs: dict[int, Floats] = {}
        k = _cached(self.k[:, :keys].contiguous(), past, self.groups)

        def output(first: int) -> Floats:
            if first not in outputs:
                # As transformers has them: q is a view of [batch, tokens, heads, head_dim].
                q = self.q[:, first : first + rows].contiguous().transpose(1, 2)
                outputs[first] = to_numpy(torch.matmul(q, k.transpose(2, 3)).flatten(0, 1))
            return outputs[first]

        def check(rule: SumRule) -> tuple[int, int]:
            compared = bad = 0
            for first in firsts:
                for m, replay in self.replays.items():
                    replayed = replay.output(rule, rows, keys, first)
                    compared += replayed.size
                    bad += differing(replayed, output(first)[m])
                if bad:
                    break
            return compared, bad

        return check


def _context_check(load: Workload, dtype: str, rows: int, past: int, exact: bool) -> Check:
    """P v of eager attention. Values in both layouts that transformers gives them."""
    generator = np.random.default_rng(1000 * rows + past)
    keys, matrices = rows + past, load.batch * load.heads
    heads, columns = _heads_checked(matrices), np.arange(load.head_dim)
    cases: list[tuple[Replay, Floats]] = []
    for _ in range(1 + ENOUGH // (len(heads) * rows * load.head_dim)):
        pairs = {m: cancelling(generator, rows, load.head_dim, keys, dtype, exact) for m in heads}
        filled = [pairs[heads[m % len(heads)]] if m not in pairs else pairs[m]
                  for m in range(matrices)]  # fmt: skip
        shape = (load.batch, load.heads)
        p = to_torch(np.stack([x for x, _ in filled]), dtype).unflatten(0, shape)
        v = to_torch(np.stack([w for _, w in filled]), dtype).mT.unflatten(0, shape).contiguous()
        tokens_first = v.transpose(1, 2).contiguous().transpose(1, 2)
        for values in (v, tokens_first):
            output = to_numpy(torch.matmul(p, values).flatten(0, 1))
            cases += [(Replay(*pairs[m], columns, None, dtype), output[m]) for m in heads]

    def check(rule: SumRule) -> tuple[int, int]:
        compared = bad = 0
        for replay, output in cases:
            replayed = replay.output(rule, rows, load.head_dim)
            compared += replayed.size
            bad += differing(replayed, output)
            if bad:
                break
        return compared, bad

    return check


def _blocks_of_context(load: Workload, dtype: str, rows: int, past: int) -> list[SumRule]:
    def product(x: Floats, w: Floats) -> Floats:
        shape = (load.batch, load.heads)
        v = np.zeros((x.size, load.head_dim), np.float32)
        v[:, : w.shape[0]] = w.T
        p = to_torch(x, dtype).expand(*shape, rows, -1).contiguous()
        y = torch.matmul(p, to_torch(v, dtype).expand(*shape, -1, -1).contiguous())
        return to_numpy(y)[0, 0, 0, : w.shape[0]]

    found = scan(product, rows + past, load.head_dim, dtype)
    return known_rules.block_rules(found)


def _probe_eager(load: Workload, dtype: str, threads: int, progress: Progress) -> Iterator[Entry]:
    matrices = load.batch * load.heads
    keys = {
        "head_dim": load.head_dim,
        "matrices": [matrices, matrices],
        "batch": load.batch,
        "kv_heads": load.kv_heads,
    }
    threads = threads if matrices == 1 else 1  # otherwise threads share out the heads
    scores = [_Scores(load, dtype, exact=True)]
    if dtype == "float32":
        scores.append(_Scores(load, dtype, exact=False))
    for rows, past in load.passes():
        small = load.head_dim * rows * (rows + past) < 400
        known = known_rules.product_rules(dtype, rows, threads, rows + past, load.head_dim)
        if load.kv_heads == 1 and load.batch > 1:  # k^T is copied, so it is a product like p v
            known = [*known_rules.context_rules(dtype, rows, threads), *known]
        few = [known_rules.SMALL_RULE] if rows + past <= 11 and rows > 1 else []
        plain = [known_rules.PLAIN_RULE] if small else []
        checks = [one.check(rows, past) for one in scores]
        yield Entry("scores", keys, rows, rows + past, prove([*plain, *few, *known], checks))
        known = known_rules.context_rules(dtype, rows, threads)
        if dtype != "float32":
            known = [*known, *_blocks_of_context(load, dtype, rows, past)]
        checks = [_context_check(load, dtype, rows, past, exact=True)]
        if dtype == "float32" and rows <= 70:
            checks.append(_context_check(load, dtype, rows, past, exact=False))
        yield Entry("context", keys, rows, rows + past, prove([*plain, *known], checks))
        progress(_eager_work(load, rows, past))


def _eager_work(load: Workload, rows: int, past: int) -> float:
    return 40.0 * load.head_dim * rows * (rows + past) + 5e8


def work(load: Workload) -> float:
    """In multiply-adds of the kernels, about: the progress bar's length."""
    total = 0.0
    for shape in load.linears:
        total += sum(load.linear_rows()) * shape.in_features * shape.out_features
    if load.attention == "eager":
        return total + sum(_eager_work(load, *one) for one in load.passes())
    return total + sum(fused_work(load, one) for one in load.blocks())


def probe_products(load: Workload, dtype: str, progress: Progress) -> list[Entry]:
    """All products of the workload, with torch's current number of threads."""
    threads = torch.get_num_threads()
    entries: list[Entry] = []
    with torch.inference_mode():
        for shape in load.linears:
            entries += _probe_linear(shape, dtype, load.linear_rows(), threads, progress)
        if load.attention == "eager":
            entries += _probe_eager(load, dtype, threads, progress)
        else:
            # Inside the fused kernel each product runs in one thread.
            torch.set_num_threads(1)
            try:
                packing = find_packing(getattr(torch, dtype), load.head_dim)
                entries += probe_fused(load, dtype, threads, packing, progress)
            finally:
                torch.set_num_threads(threads)
    return entries
