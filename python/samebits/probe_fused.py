"""Finds and proves the order of the two matrix products inside torch's fused attention kernel: the
library's entry points are called by their names in torch's own library, with its arguments.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from typing import TypeAlias

import numpy as np
import torch

from samebits import known_rules
from samebits.block_scan import scan
from samebits.orders import Floats, Json
from samebits.probe_data import ENOUGH, ROWS, Progress, aligned, to_numpy, to_torch
from samebits.profile import Entry
from samebits.replay import Check, Replay, cancelling, differing, prove, windows
from samebits.rules import Alignment, SumRule
from samebits.shapes import Block, Packing, Workload

_MANY = 1 << 30  # matrices: no limit


def _torch_library() -> ctypes.CDLL:
    folder = os.path.join(os.path.dirname(torch.__file__), "lib")
    return ctypes.CDLL(os.path.join(folder, "libtorch_cpu.so"))


# (transposed, a, b, c, beta): c [rows, outs] = beta c + b [rows, size] times a (transposed: [outs,
# size], else [size, outs]); beta 0 or 1
Product: TypeAlias = Callable[[bool, torch.Tensor, torch.Tensor, torch.Tensor, float], None]


class _Blas:
    """What calls that are not packed use."""

    def __init__(self, dtype: str) -> None:
        library = _torch_library()
        self.fp32 = dtype == "float32"
        name = "cblas_gemm_bf16bf16f32" if dtype == "bfloat16" else "cblas_gemm_f16f16f32"
        self.call = library["sgemm_" if self.fp32 else name]
        number, pointer = ctypes.c_int, ctypes.c_void_p
        if not self.fp32:
            scale = ctypes.c_float
            self.call.argtypes = [number] * 6 + [scale, pointer, number, pointer, number]
            self.call.argtypes += [scale, pointer, number]
            self.call.restype = None

    def __call__(
        self, transposed: bool, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor, beta: float
    ) -> None:
        (rows, size), outs = b.shape, c.shape[1]
        if not self.fp32:
            flag = 112 if transposed else 111  # CblasTrans, CblasNoTrans; 102: CblasColMajor
            self.call(102, flag, 111, outs, rows, size, 1.0, a.data_ptr(), a.shape[1],
                      b.data_ptr(), size, beta, c.data_ptr(), outs)  # fmt: skip
            return
        flags = b"t" if transposed else b"n"
        numbers = [ctypes.byref(ctypes.c_int(n)) for n in (outs, rows, size, a.shape[1], size)]
        outs_by, one, factor = (
            ctypes.byref(ctypes.c_int(outs)),
            ctypes.byref(ctypes.c_float(1.0)),
            ctypes.byref(ctypes.c_float(beta)),
        )
        address = [ctypes.c_void_p(t.data_ptr()) for t in (a, b, c)]
        self.call(flags, b"n", *numbers[:3], one, address[0], numbers[3], address[1], numbers[4],
                  factor, address[2], outs_by)  # fmt: skip


class _Packed:
    """What packed calls use: oneDNN's brgemm through torch's own function."""

    def __init__(self, dtype: str) -> None:
        library = _torch_library()
        kind = "8BFloat16" if dtype == "bfloat16" else "4Half"
        cpublas = "_ZN2at6native7cpublas"
        self.call = library[f"{cpublas}6brgemmEllllllbPKN3c10{kind}ES5_Pfb"]
        number, pointer, flag = ctypes.c_int64, ctypes.c_void_p, ctypes.c_bool
        self.call.argtypes = [number] * 6 + [flag, pointer, pointer, pointer, flag]
        self.call.restype = None
        self.release = library[f"{cpublas}14brgemm_releaseEb"]
        self.release.argtypes = [flag]
        self.release.restype = None

    def __call__(
        self, transposed: bool, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor, beta: float
    ) -> None:
        w = a.T if transposed else a  # [size, outs]
        if w.shape[0] % 2:  # a pair of elements is packed as one
            w = torch.nn.functional.pad(w, (0, 0, 0, 1))
            b = torch.nn.functional.pad(b, (0, 1))
        (rows, size), outs = b.shape, c.shape[1]
        pairs = aligned(w.reshape(size // 2, 2, outs).transpose(1, 2).contiguous())
        x = aligned(b.contiguous())
        self.call(rows, outs, size, size, outs, outs, beta != 0, x.data_ptr(), pairs.data_ptr(),
                  c.data_ptr(), True)  # fmt: skip
        self.release(True)


class _FusedScores:
    def __init__(self, load: Workload, dtype: str, product: Product, exact: bool) -> None:
        blocks = load.blocks()
        rows = max(ROWS, *(block.rows for block in blocks))
        keys = max(block.keys for block in blocks)
        generator = np.random.default_rng(21)
        x, w = cancelling(generator, rows, keys, load.head_dim, dtype, exact)
        self.replay = Replay(x, w, np.arange(keys), None, "float32")
        self.q, self.k = aligned(to_torch(x, dtype)), aligned(to_torch(w, dtype))
        self.product = product

    def check(self, rows: int, keys: int) -> Check:
        firsts = windows(rows, keys, self.q.shape[0])
        kernel: list[Floats] = []
        for first in firsts:
            output = aligned(torch.zeros(rows, keys))
            q = aligned(self.q[first : first + rows])
            self.product(True, self.k[:keys], q, output, 0.0)
            kernel.append(to_numpy(output))

        def check(rule: SumRule) -> tuple[int, int]:
            compared = bad = 0
            for first, output in zip(firsts, kernel, strict=True):
                replayed = self.replay.output(rule, rows, keys, first)
                compared += replayed.size
                bad += differing(replayed, output)
            return compared, bad

        return check


def _fused_context_check(
    load: Workload, dtype: str, product: Product, block: tuple[int, int, bool], exact: bool
) -> Check:
    """At every alignment of the output."""
    rows, keys, accumulate = block
    generator = np.random.default_rng(1000 * rows + keys)
    columns = np.arange(load.head_dim)
    cases: list[tuple[Replay, Floats]] = []
    positions = list(range(4)) * 8 if rows <= 3 else [0] * (1 + ENOUGH // (rows * columns.size))
    for position in positions:
        x, w = cancelling(generator, rows, load.head_dim, keys, dtype, exact)
        old = generator.standard_normal((rows, load.head_dim), np.float32) * np.float32(1e-4)
        p, v = aligned(to_torch(x, dtype)), aligned(to_torch(w, dtype).T.contiguous())
        y = aligned(torch.from_numpy(old), position)
        product(False, v, p, y, float(accumulate))
        c = old if accumulate else None
        at = Alignment(y=position)
        cases.append((Replay(x, w, columns, c, "float32", at), to_numpy(y)))

    def check(rule: SumRule) -> tuple[int, int]:
        compared = bad = 0
        for replay, kernel in cases:
            replayed = replay.output(rule, rows, load.head_dim)
            compared += replayed.size
            bad += differing(replayed, kernel)
            if bad:
                break
        return compared, bad

    return check


def _packed_rules(
    product: Product, load: Workload, dtype: str, block: Block, scores: bool
) -> list[SumRule]:
    """Rules with the tiles that a packed product shows: of q k^T (``scores``), or of p v."""
    size, outs = load.head_dim, block.keys
    if not scores:
        size, outs = outs, size

    def one_row(x: Floats, w: Floats) -> Floats:
        full = np.zeros((outs, size), np.float32)
        full[: w.shape[0]] = w
        a = to_torch(full, dtype)
        b = to_torch(np.tile(x, (block.rows, 1)), dtype)
        y = aligned(torch.zeros(block.rows, outs))
        product(scores, aligned(a if scores else a.T.contiguous()), b, y, 0.0)
        return to_numpy(y)[0, : w.shape[0]]

    return known_rules.packed_rules(scan(one_row, size, outs, dtype))


def probe_fused(
    load: Workload, dtype: str, threads: int, packing: Packing | None, progress: Progress
) -> Iterator[Entry]:
    """All products inside the fused kernel; no entry where there is nothing to compare with."""
    # With several threads a product on its own would be cut by the library; two are one each.
    items = [1 if threads == 1 else 2, _MANY]
    kinds = (True, False) if dtype == "float32" else (True,)
    products: dict[bool, Product] = {}
    try:
        products[False] = _Blas(dtype)
        if packing:
            products[True] = _Packed(dtype)
    except (OSError, AttributeError):
        pass
    data = {
        packed: [_FusedScores(load, dtype, product, exact) for exact in kinds]
        for packed, product in products.items()
    }
    for block in load.blocks(packing):
        rows, keys = block.rows, block.keys
        if block.packed not in products:
            continue
        product = products[block.packed]
        keys_of: Json = {"head_dim": load.head_dim, "matrices": items}
        if block.packed:
            keys_of = {**keys_of, "matrices": [1, _MANY], "packed": True}
        checks = [one.check(rows, keys) for one in data[block.packed]]
        known = known_rules.sdpa_score_rules(dtype, rows, keys)
        if block.packed:
            known = [*_packed_rules(product, load, dtype, block, scores=True), *known]
        yield Entry("sdpa_scores", keys_of, rows, keys, prove(known, checks))
        known = known_rules.sdpa_context_rules(dtype, rows)
        likely = [known_rules.BLOCKED_RULE] if rows > 3 and dtype != "float32" else []
        if block.packed:
            likely = _packed_rules(product, load, dtype, block, scores=False)
        for accumulate in (False, True):
            checks = [
                _fused_context_check(load, dtype, product, (rows, keys, accumulate), exact)
                for exact in (kinds if rows <= 4 else (True,))
            ]
            proof = prove([*likely, *known], checks)
            shape = {**keys_of, "accumulate": accumulate}
            yield Entry("sdpa_context", shape, rows, keys, proof)
        progress(fused_work(load, block))


def fused_work(load: Workload, block: Block) -> float:
    """In the units of probe_gemm.work()."""
    return 4.0 * load.head_dim * block.rows * block.keys + 2e8
