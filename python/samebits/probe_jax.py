"""Finds and proves in which order jax adds on this CPU: ``jax.numpy.dot(x, kernel)`` with a kernel
[in, out] as Flax keeps it, ``lax.dot_general`` with a weight [out, in] as Hugging Face keeps it,
and the products of attention as a batch of matrices. All under ``jit``. Needs no torch.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from samebits import known_rules
from samebits.block_scan import Blocks, scan
from samebits.checkpoint import tensor_shapes
from samebits.orders import ChainOrder, Floats, Json, LaneOrder, LaneStage
from samebits.profile import FORMAT, Entry, cpu, digest, merge
from samebits.replay import Check, Replay, cancelling, differing, prove
from samebits.rules import OrderClass, SumRule

Progress = Callable[[int, int, str], None]
Product = Callable[[Floats, Floats], Floats]  # x [M, K], w [N, K] -> [M, N]

LAYOUTS = ("in_out", "out_in")
_ENOUGH = 2048  # outputs that are compared at least, or about so
_MACS = 1 << 28  # multiply-adds of the replay of one data set: above it outputs are sampled


@dataclass(frozen=True)
class Wanted:
    """Prompt lengths, each continued by so many single tokens."""

    prompts: Sequence[int]
    steps: int


def _one(order: ChainOrder | LaneOrder) -> SumRule:
    return SumRule((OrderClass(order),), "last")


def _lane_rules() -> Iterator[SumRule]:
    """Vectors that XLA's compiler makes of a loop over one row; neighbours are joined first."""
    for lanes, accumulators in ((2, 1), (4, 1), (8, 1), (16, 1), (8, 4), (16, 4), (8, 2), (16, 2)):
        distances = tuple(1 << n for n in range(int(math.log2(lanes))))
        for joins in (distances, ()):
            for sequence in (True, False) if accumulators > 1 else (True,):
                stage = LaneStage(lanes, accumulators, accumulators, sequence, False)
                stage = replace(stage, lane_distances=joins)
                for tail in ("sequence", "lanes"):
                    for flush in (False, True):
                        yield _one(LaneOrder((stage,), tail=tail, flush=flush))


def _chain_rules(found: Blocks) -> Iterator[SumRule]:
    for block in dict.fromkeys((found.block, 0, 512)):
        for fused in (True, False):
            for flush in (False, True):
                yield _one(ChainOrder(block=block, fused=fused, first_set=True, flush=flush))


def _kernels(dtype: str) -> dict[str, Product]:
    kind = jnp.dtype(dtype)
    dot = jax.jit(lambda x, kernel: jnp.dot(x, kernel))
    general = jax.jit(lambda x, w: lax.dot_general(x, w, (((1,), (1,)), ((), ()))))

    def in_out(x: Floats, w: Floats) -> Floats:
        return np.asarray(dot(jnp.asarray(x, kind), jnp.asarray(w.T, kind)), np.float32)

    def out_in(x: Floats, w: Floats) -> Floats:
        return np.asarray(general(jnp.asarray(x, kind), jnp.asarray(w, kind)), np.float32)

    return {"in_out": in_out, "out_in": out_in}


def _batched(dtype: str, matrices: int, out_in: bool) -> Product:
    """One of ``matrices`` matrices: q k^T (``out_in``), or p v."""
    kind = jnp.dtype(dtype)
    axes = ((2,), (2,)) if out_in else ((2,), (1,))
    general = jax.jit(lambda x, w: lax.dot_general(x, w, (axes, ((0,), (0,)))))

    def product(x: Floats, w: Floats) -> Floats:
        wide = w if out_in else w.T
        y = general(
            jnp.asarray(np.broadcast_to(x, (matrices, *x.shape)), kind),
            jnp.asarray(np.broadcast_to(wide, (matrices, *wide.shape)), kind),
        )
        return np.asarray(y[matrices // 2], np.float32)

    return product


def _checks(product: Product, dtype: str, rows: int, outs: int, size: int) -> list[Check]:
    """On cancelling data: exact products, then full ones, then ones among fp32's denormals."""
    limit = max(64, _MACS // (max(rows, 1) * size))

    def check_of(kind: str) -> Check:
        generator = np.random.default_rng(sum(map(ord, kind)))
        columns = np.arange(outs)
        if outs > limit:
            ends = np.concatenate([np.arange(32), np.arange(outs - 32, outs)])
            columns = np.union1d(ends, generator.choice(outs, limit - 64, replace=False))
        times = 1 if kind == "tiny" else max(1, min(8, _ENOUGH // (rows * columns.size)))
        cases: list[tuple[Replay, Floats]] = []
        for _ in range(times):
            x, w = cancelling(generator, rows, outs, size, dtype, kind != "full")
            if kind == "tiny":
                x, w = x * np.float32(2.0**-70), w * np.float32(2.0**-72)
            y = np.ascontiguousarray(product(x, w)[:, columns])
            cases.append((Replay(x, w[columns], columns, None, dtype), y))

        def check(rule: SumRule) -> tuple[int, int]:
            compared = bad = 0
            for replay, y in cases:
                compared += y.size
                bad += differing(replay.output(rule, rows, outs), y)
                if bad:
                    break
            return compared, bad

        return check

    kinds = ["exact", "full"] if dtype == "float32" else ["exact"]
    return [check_of(kind) for kind in kinds + ["tiny"] * (dtype != "float16" and rows <= 8)]


def _entry(
    section: str, keys: Json, product: Product, dtype: str, shape: tuple[int, int, int],
    last: list[SumRule], of_keys: int,
) -> Entry:  # fmt: skip
    rows, outs, size = shape

    def one_row(x: Floats, w: Floats) -> Floats:
        full = np.zeros((outs, size), np.float32)
        full[: w.shape[0]] = w
        return product(np.tile(x, (rows, 1)), full)[0, : w.shape[0]]

    found = scan(one_row, size, outs, dtype)
    rules = [*last, *_chain_rules(found)]
    if dtype != "float32":
        rules += known_rules.block_rules(found)
        rules += [known_rules.LANES_RULE, known_rules.TILES_RULE, known_rules.PAIR_LANES_RULE]
    rules += _lane_rules()
    proof = prove(rules, _checks(product, dtype, rows, outs, size))
    last[:] = [proof.rule]
    return Entry(section, keys, rows, of_keys, proof)


def linear_shapes(folder: Path) -> list[tuple[int, int]]:
    """(in_features, out_features) of all linear layers of a checkpoint."""
    shapes = tensor_shapes(folder)
    found = {
        (shape[1], shape[0])
        for name, shape in shapes.items()
        if len(shape) == 2 and name.endswith(("_proj.weight", "lm_head.weight"))
    }
    if "lm_head.weight" not in shapes:  # tied
        found |= {
            (shape[1], shape[0])
            for name, shape in shapes.items()
            if name.endswith("embed_tokens.weight") and len(shape) == 2
        }
    if not found:
        raise ValueError(f"{folder}: no linear layer (no tensor named ..._proj.weight)")
    return sorted(found)


def probe_jax(
    folder: Path, dtype: str, wanted: Wanted, progress: Progress = lambda *_: None
) -> Json:
    """The profile of the products that a port of this checkpoint meets."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    heads = int(config["num_attention_heads"])
    head_dim = int(config.get("head_dim") or config["hidden_size"] // heads)
    prompts = sorted(set(wanted.prompts))
    rows_of_linear = sorted({*prompts, *([1] if wanted.steps else [])})
    linears = linear_shapes(folder)
    passes = sorted(
        {(n, n) for n in prompts}
        | {(1, n + step + 1) for n in prompts for step in range(wanted.steps)}
    )
    total = len(linears) * len(LAYOUTS) * len(rows_of_linear) + len(passes)
    entries: list[Entry] = []
    for size, outs in linears:
        for layout, product in _kernels(dtype).items():
            keys: Json = {
                "in_features": size, "out_features": outs, "bias": False, "layout": layout,
            }  # fmt: skip
            last: list[SumRule] = []
            for rows in rows_of_linear:
                progress(len(entries), total, "linear layers")
                entries.append(_entry("linear", keys, product, dtype, (rows, outs, size), last, 0))
    scores, context = (_batched(dtype, heads, out_in) for out_in in (True, False))
    of_attention: Json = {
        "head_dim": head_dim, "matrices": [heads, heads], "batch": 1, "kv_heads": heads,
    }  # fmt: skip
    last_scores: list[SumRule] = []
    last_context: list[SumRule] = []
    for done, (rows, n) in enumerate(passes):
        progress(total - len(passes) + done, total, "attention")
        shape = (rows, n, head_dim)
        entries.append(_entry("scores", of_attention, scores, dtype, shape, last_scores, n))
        shape = (rows, head_dim, n)
        entries.append(_entry("context", of_attention, context, dtype, shape, last_context, n))
    name, flags = cpu()
    profile: Json = {
        "format": FORMAT,
        "framework": "jax",
        "framework_version": jax.__version__,
        "transformers_version": "",
        "cpu": name,
        "cpu_flags": flags,
        "capability": jax.default_backend(),
        "threads": len(os.sched_getaffinity(0)),
        "dtype": dtype,
        "rng": "none",
        "model_type": str(config.get("model_type", "")),
        "prompts": prompts,
        "steps": wanted.steps,
        "batch": 1,
        "weight_alignment": {},
        **merge(entries),
        "functions": {},
    }
    profile["digest"] = digest(profile)
    return profile
