"""PyTorch's operations that are not matrix products, beside PyTorch: 0 differing bits.

The interpreters and the fast versions run in this process (torch_ops_live.cc). The products inside
the flash kernel are made by the library that PyTorch calls for them, in buffers that lie as
PyTorch's do. The parameters are those of this machine's kernels: 8 lanes with AVX2, 16 with
AVX-512; on others the tests are skipped.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
import torch.nn.functional as F  # noqa: E402

from samebits.probe_flash import find_packing  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("SAMEBITS", ROOT / "build" / "release" / "samebits")).parent
LIBRARY = BUILD / "tests" / "live" / "libtorch_ops_live.so"
DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
EXPS = ("sleef_expf_u10", "exp_u20", "fexp_u20", "glibc_expf", "glibc_exp_rounded")
LANES = {"AVX2": 8, "AVX512": 16}.get(torch.backends.cpu.get_cpu_capability(), 0)
PROOF = {"compared": 1, "differing": 0}


def address(tensor: Any) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())


def differing(a: Any, b: Any) -> int:
    """Values whose bits differ; NaN is NaN."""
    assert a.shape == b.shape
    assert a.dtype == b.dtype
    integers = torch.int32 if a.dtype == torch.float32 else torch.int16
    other = a.contiguous().view(integers) != b.contiguous().view(integers)
    return int((other & ~(a.isnan() & b.isnan())).sum())


class Live:
    """The C interface, and the library's products."""

    def __init__(self) -> None:
        self.c = ctypes.CDLL(str(LIBRARY))
        self.c.live_error.restype = ctypes.c_char_p
        folder = Path(torch.__file__).parent / "lib"
        loaded = ctypes.CDLL(str(folder / "libtorch_cpu.so"), mode=os.RTLD_NOLOAD | os.RTLD_NOW)
        self.products = {
            dtype: ctypes.cast(getattr(loaded, name, None), ctypes.c_void_p)
            for dtype, name in (
                (torch.float32, "sgemm_"),
                (torch.bfloat16, "cblas_gemm_bf16bf16f32"),
                (torch.float16, "cblas_gemm_f16f16f32"),
            )
        }
        cpublas = "_ZN2at6native7cpublas"
        self.packed = [  # by the dtype's name in C++
            ctypes.cast(getattr(loaded, cpublas + name, None), ctypes.c_void_p)
            for name in (
                "6brgemmEllllllbPKN3c108BFloat16ES5_Pfb",
                "6brgemmEllllllbPKN3c104HalfES5_Pfb",
                "14brgemm_releaseEb",
            )
        ]
        self.packing = {dtype: find_packing(dtype, 64) for dtype in DTYPES}

    def set(self, dtype: Any, **sdpa: Any) -> None:
        """The parameters of this machine for dtype; `sdpa` changes some of the flash kernel's."""
        half = dtype != torch.float32
        packing = self.packing[dtype]
        functions = {
            "sum": {"family": "cascade", "lanes": 8, "proof": PROOF},
            "softmax": {"lanes": LANES, "exp": "sleef_expf_u10", "proof": PROOF},
            "silu": {
                "exp": "sleef_expf_u10",
                "tail_exp": "glibc_expf",
                "block": 2 * LANES * (2 if half else 1),
                "grain": 32768,
                "proof": PROOF,
            },
            "sdpa": {
                "lanes": LANES,
                "sums": 2 if half else 1,
                "exp": "fexp_u20" if half else "exp_u20",
                "tail_exp": "glibc_exp_rounded",
                "rescale_exp": "glibc_expf",
                "q_splits": [
                    {"min_q_len": 0, "size": 32},
                    {"min_q_len": 192, "size": 64},
                    {"min_q_len": 768, "size": 256},
                ],
                "kv_split": 512,
                **({"packing": asdict(packing)} if packing else {}),
                "proof": PROOF,
                **sdpa,
            },
        }
        assert self.c.live_functions(json.dumps(functions).encode()) == 0, self.c.live_error()

    def flash(self, q: Any, k: Any, v: Any, causal: bool, mask: Any = None) -> Any:
        """One call of scaled_dot_product_attention; mask [batch, 1, q_len or 1, kv_len] bool."""
        batch, heads, q_len, dim = q.shape
        threads = torch.get_num_threads()
        out = torch.empty(batch, q_len, heads, dim, dtype=q.dtype).transpose(1, 2)
        keep = None if mask is None else mask.to(torch.uint8).contiguous()
        strides = [0, 0] if keep is None else [keep.stride(0), keep.stride(2)]
        if keep is not None and keep.shape[2] == 1:
            strides[1] = 0
        sizes = [batch, heads, k.shape[1], q_len, k.shape[2], dim, threads, *strides, int(causal)]
        steps = [tensor.stride(i) for tensor in (q, k, v, out) for i in range(3)]
        split = 32 if q_len < 192 else 64 if q_len < 768 else 256
        # Inside PyTorch's own threads the library has one; with a single work item it has all.
        if batch * heads * -(-q_len // split) > 1:
            torch.set_num_threads(1)
        self.c.live_flash(
            DTYPES[q.dtype],
            *map(address, (q, k, v, out)),
            None if keep is None else address(keep),
            (ctypes.c_int64 * 10)(*sizes),
            (ctypes.c_int64 * 12)(*steps),
            ctypes.c_float(dim**-0.5),
            self.products[torch.float32],
            self.products[q.dtype],
            self.packed[q.dtype == torch.float16],
            self.packed[2],
        )
        torch.set_num_threads(threads)
        return out


@pytest.fixture(scope="module", params=["interpreter", "fast"])
def live(request: pytest.FixtureRequest) -> Live:
    if not LANES:
        pytest.skip(f"kernels of {torch.backends.cpu.get_cpu_capability()} were not measured")
    if not LIBRARY.is_file():
        pytest.skip(f"{LIBRARY} is not built: make build")
    result = Live()
    result.c.live_select(int(request.param == "fast"))
    return result


@pytest.fixture(autouse=True, params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    torch.manual_seed(request.param)
    yield request.param
    torch.set_num_threads(before)


def wide(*shape: int) -> Any:
    """Numbers of very different sizes: their sums show the order."""
    return torch.randn(shape) * torch.exp(3 * torch.randn(shape))


def test_sum(live: Live) -> None:
    live.set(torch.float32)
    for n in [*range(1, 140), 512, 576, 896, 1000, 3584, 10000]:
        x = wide(3, n)
        y = torch.empty(3)
        live.c.live_sum(address(x), address(y), ctypes.c_int64(3), ctypes.c_int64(n))
        assert differing(y, x.sum(-1)) == 0, n


@pytest.mark.parametrize("dtype", DTYPES)
def test_rms_norm(live: Live, dtype: Any) -> None:
    live.set(dtype)
    for n in (64, 100, 128, 256, 576, 896, 3584):
        x, w = (3 * torch.randn(20, n)).to(dtype), torch.randn(n).to(dtype)
        y = torch.empty_like(x)
        sizes = (ctypes.c_int64(20), ctypes.c_int64(n), ctypes.c_float(1e-6))
        live.c.live_rms_norm(DTYPES[dtype], address(x), address(w), address(y), *sizes)
        h = x.float()
        h = h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + 1e-6)
        assert differing(y, w * h.to(dtype)) == 0, n


def test_softmax(live: Live) -> None:
    live.set(torch.float32)
    for n in [*range(1, 140), 512, 1000, 49152]:
        x = 6 * torch.randn(3, n)
        x[1, : n // 2] = -torch.inf
        y = torch.empty_like(x)
        live.c.live_softmax(address(x), address(y), ctypes.c_int64(3), ctypes.c_int64(n))
        assert differing(y, torch.softmax(x, -1, dtype=torch.float32)) == 0, n


@pytest.mark.parametrize("dtype", DTYPES)
def test_eager_rows(live: Live, dtype: Any) -> None:
    """Scaling, mask, softmax as transformers' eager attention does them."""
    live.set(dtype)
    for n in [*range(1, 80), 200, 513]:
        scores = (20 * torch.randn(4, n)).to(dtype)
        keep = (torch.rand(n) < 0.8).to(torch.uint8)  # sometimes nothing
        y = torch.empty_like(scores)
        count = ctypes.c_int64(4 * n)
        live.c.live_multiply_by_number(
            DTYPES[dtype], address(scores), ctypes.c_double(96**-0.5), address(y), count
        )
        assert differing(y, scores * 96**-0.5) == 0
        live.c.live_masked_softmax(
            DTYPES[dtype],
            address(y),
            address(keep),
            address(y),
            ctypes.c_int64(4),
            ctypes.c_int64(n),
        )
        mask = torch.zeros(n, dtype=dtype).masked_fill(keep == 0, torch.finfo(dtype).min)
        masked = scores * 96**-0.5 + mask
        assert differing(y, torch.softmax(masked, -1, dtype=torch.float32).to(dtype)) == 0, n


@pytest.mark.parametrize("dtype", DTYPES)
def test_silu(live: Live, dtype: Any, threads: int) -> None:
    live.set(dtype)
    inputs = [8 * torch.randn(n) for n in (*range(1, 140), 32768, 32769, 40000, 65553, 100003)]
    inputs = [x.to(dtype) for x in inputs]
    if dtype != torch.float32:
        every = torch.arange(-32768, 32768, dtype=torch.int32).to(torch.int16).view(dtype)
        inputs += [every.clone(), *(chunk.clone() for chunk in every.split(15))]
    for x in inputs:
        y = torch.empty_like(x)
        count = (ctypes.c_int64(x.numel()), ctypes.c_int64(threads))
        live.c.live_silu(DTYPES[dtype], address(x), address(y), *count)
        assert differing(y, F.silu(x)) == 0, x.numel()


@pytest.mark.parametrize("dtype", DTYPES)
def test_add_multiply_rope_are_the_canonical_ones(live: Live, dtype: Any) -> None:
    a, b = ((3 * torch.randn(100001)).to(dtype) for _ in range(2))
    y = torch.empty_like(a)
    count = ctypes.c_int64(a.numel())
    live.c.live_add(DTYPES[dtype], address(a), address(b), address(y), count)
    assert differing(y, a + b) == 0
    live.c.live_multiply(DTYPES[dtype], address(a), address(b), address(y), count)
    assert differing(y, a * b) == 0
    for dim in (64, 80, 128):
        x = torch.randn(7, 3, dim).to(dtype)
        cos, sin = (torch.randn(7, dim).to(dtype) for _ in range(2))
        turned = torch.cat((-x[..., dim // 2 :], x[..., : dim // 2]), dim=-1)
        y = torch.empty_like(x)
        sizes = [ctypes.c_int64(n) for n in x.shape]
        live.c.live_rope(DTYPES[dtype], *map(address, (x, cos, sin, y)), *sizes)
        assert differing(y, x * cos[:, None] + turned * sin[:, None]) == 0


def test_pow_makes_the_frequencies(live: Live) -> None:
    """Behind whole blocks of two vectors torch takes glibc's powf."""
    libm = ctypes.CDLL("libm.so.6")
    libm.powf.restype, libm.powf.argtypes = ctypes.c_float, [ctypes.c_float, ctypes.c_float]
    for theta in (1e4, 5e5, 1e6, 5e6, 1e7):
        for dim in (16, 48, 64, 80, 96, 128, 256):
            exponent = torch.arange(0, dim, 2).float() / dim
            y = torch.empty_like(exponent)
            count = ctypes.c_int64(exponent.numel())
            live.c.live_pow(ctypes.c_float(theta), address(exponent), address(y), count)
            for i in range(exponent.numel() // (2 * LANES) * 2 * LANES, exponent.numel()):
                y[i] = libm.powf(theta, exponent[i].item())
            assert differing(1.0 / y, 1.0 / (theta**exponent)) == 0, (theta, dim)
        x = 1.2 * torch.rand(20000)
        y = torch.empty_like(x)
        live.c.live_pow(ctypes.c_float(theta), address(x), address(y), ctypes.c_int64(20000))
        assert differing(y, theta**x) == 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_rotary_from_a_probed_table(live: Live, dtype: Any) -> None:
    from samebits.probe_ops import RotaryTable, probe_rotary

    inv_freq = 1.0 / (1e6 ** (torch.arange(0, 64, 2).float() / 64))
    table = probe_rotary(RotaryTable(inv_freq, 1.25, 600))
    assert live.c.live_functions(json.dumps({"rotary": [table]}).encode()) == 0
    positions = torch.arange(600)
    cos, sin = (torch.empty(600, 64, dtype=dtype) for _ in range(2))
    arguments = [address(positions), address(cos), address(sin)]
    sizes = (ctypes.c_int64(600), ctypes.c_int64(64))
    assert live.c.live_rotary(DTYPES[dtype], ctypes.c_int64(0), *arguments, *sizes) == 0
    angle = positions.float()[:, None] * inv_freq
    both = torch.cat((angle, angle), dim=-1)
    assert differing(cos, (both.cos() * 1.25).to(dtype)) == 0
    assert differing(sin, (both.sin() * 1.25).to(dtype)) == 0
    assert live.c.live_rotary(
        DTYPES[dtype], ctypes.c_int64(0), address(positions + 1), *arguments[1:], *sizes
    )
    assert b"position 600" in live.c.live_error()


def tensors(dtype: Any, batch: int, heads: tuple[int, int], q_len: int, keys: int, dim: int) -> Any:
    """q as transformers lays it out, k and v as its cache does."""
    q = (3 * torch.randn(batch, q_len, heads[0], dim)).to(dtype).transpose(1, 2)
    k, v = (torch.randn(batch, heads[1], keys, dim).to(dtype) for _ in range(2))
    return q, k, v


def sdpa(q: Any, k: Any, v: Any, causal: bool, mask: Any = None) -> Any:
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=causal, enable_gqa=q.shape[1] != k.shape[1]
    )


@pytest.mark.parametrize("heads", [(4, 2), (3, 1), (2, 2), (1, 1)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_flash(live: Live, dtype: Any, heads: tuple[int, int]) -> None:
    live.set(dtype)
    if not live.products[dtype]:
        pytest.skip(f"this PyTorch has no library product for {dtype}")
    shapes = [(n, n) for n in (2, 3, 4, 5, 9, 16, 17, 33, 40, 64, 70, 191, 200)]
    shapes += [(1, n) for n in (*range(1, 40), 100, 255, 511, 512, 513, 530, 1024, 1031)]
    shapes += [(7, 40), (3, 200), (2, 600)]
    for dim in (64, 128):
        for q_len, keys in shapes:
            q, k, v = tensors(dtype, 1, heads, q_len, keys, dim)
            causal = q_len == keys and q_len > 1
            out = live.flash(q, k, v, causal)
            assert differing(out, sdpa(q, k, v, causal)) == 0, (dim, q_len, keys)


@pytest.mark.parametrize("dtype", DTYPES)
def test_flash_with_padding(live: Live, dtype: Any) -> None:
    live.set(dtype)
    if not live.products[dtype]:
        pytest.skip(f"this PyTorch has no library product for {dtype}")
    for lengths in ((5, 9, 9), (1, 17, 40)):
        keys = max(lengths)
        seen = torch.stack([torch.arange(keys) >= keys - n for n in lengths])
        prefill = torch.ones(keys, keys).tril().bool()[None, None] & seen[:, None, None]
        decode = torch.cat((seen, torch.ones(3, 1).bool()), dim=1)[:, None, None]
        q, k, v = tensors(dtype, 3, (2, 2), keys, keys, 64)
        assert differing(live.flash(q, k, v, False, prefill), sdpa(q, k, v, False, prefill)) == 0
        for group in (1, 2, 3, 7):  # transformers packs the heads of a group as rows
            q, k, v = tensors(dtype, 3, (2, 2), group, keys + 1, 64)
            assert differing(live.flash(q, k, v, False, decode), sdpa(q, k, v, False, decode)) == 0


@pytest.mark.parametrize(
    ("dtype", "change"),
    [
        (torch.float32, {"lanes": 4}),
        (torch.float32, {"sums": 2}),
        (torch.float32, {"exp": "sleef_expf_u10"}),
        (torch.float32, {"tail_exp": "exp_u20"}),
        (torch.float32, {"rescale_exp": "exp_u20"}),
        (torch.float32, {"kv_split": 256}),
        (torch.bfloat16, {"exp": "exp_u20"}),
        (torch.bfloat16, {"kv_split": 256}),
    ],
)
def test_another_parameter_gives_other_bits(live: Live, dtype: Any, change: Any) -> None:
    live.set(dtype, **change)
    count = 0
    for q_len, keys in ((5, 45), (40, 40), (3, 1031), (16, 1100)):
        q, k, v = tensors(dtype, 1, (4, 2), q_len, keys, 64)
        count += differing(live.flash(q, k, v, False), sdpa(q, k, v, False))
    assert count > 0


def test_exp_is_glibcs(live: Live) -> None:
    libm = ctypes.CDLL("libm.so.6")
    libm.expf.restype, libm.expf.argtypes = ctypes.c_float, [ctypes.c_float]
    x = torch.cat((-104 * torch.rand(200000), -torch.exp(-20 * torch.rand(8192))))
    y = torch.empty_like(x)
    count = ctypes.c_int64(x.numel())
    live.c.live_exp(EXPS.index("glibc_expf"), address(x), address(y), count)
    expected = np.array([libm.expf(v) for v in x.tolist()], np.float32)
    assert differing(y, torch.from_numpy(expected)) == 0
    # Python's math.exp calls glibc's exp.
    live.c.live_exp(EXPS.index("glibc_exp_rounded"), address(x), address(y), count)
    expected = np.array([np.float32(math.exp(v)) for v in x.tolist()], np.float32)
    assert differing(y, torch.from_numpy(expected)) == 0
