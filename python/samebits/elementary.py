"""The functions of e^x that PyTorch's CPU kernels call, on float32 arrays, bit for bit.

The same as samebits/numerics/torch_math.cc, which says where each comes from; numpy has no fused
multiply-add, so it is built here from exact operations. The probe tries them on the running kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]


def _two_sum(a: F64, b: F64) -> tuple[F64, F64]:
    total = a + b
    v = total - a
    return total, (a - (total - v)) + (b - v)


def _to_odd(total: F64, error: F64) -> F64:
    """`total` + `error` rounded to odd: an inexact sum gets an odd last bit."""
    bits = total.view(np.int64)
    inexact = (error != 0) & (bits & 1 == 0)
    towards_zero = (error > 0) != (total > 0)
    return np.where(inexact, bits + np.where(towards_zero, -1, 1), bits).view(np.float64)


def fma32(a: Any, b: Any, c: Any) -> F32:
    """a b + c in one rounding. The product is exact in float64, the sum is rounded to odd there."""
    product = np.asarray(a, np.float64) * np.asarray(b, np.float64)
    total, error = _two_sum(product, np.broadcast_to(np.asarray(c, np.float64), product.shape))
    return _to_odd(np.asarray(total), np.asarray(error)).astype(np.float32)


def _two_product(a: F64, b: F64) -> tuple[F64, F64]:
    """Dekker: a b as a sum of two, exactly (no overflow for the operands here)."""

    def split(x: F64) -> tuple[F64, F64]:
        high = x * 134217729.0
        high = high - (high - x)
        return high, x - high

    product = a * b
    ah, al = split(a)
    bh, bl = split(b)
    return product, ((ah * bh - product) + ah * bl + al * bh) + al * bl


def fma64(a: Any, b: Any, c: Any) -> F64:
    """a b + c in one rounding to float64 (Boldo and Melquiond, 2008)."""
    shape = np.broadcast_shapes(np.shape(a), np.shape(b), np.shape(c))
    x, y, z = (np.broadcast_to(np.asarray(v, np.float64), shape) for v in (a, b, c))
    uh, ul = _two_product(x, y)
    th, tl = _two_sum(z, ul)
    vh, vl = _two_sum(uh, th)
    return np.asarray(vh + _to_odd(*_two_sum(tl, vl)))


def _horner(x: F32, first: float, *rest: float) -> F32:
    value: F32 = np.full_like(x, np.float32(first))
    for coefficient in rest:
        value = fma32(x, value, np.float32(coefficient))
    return value


def _from_bits(bits: int) -> np.float32:
    return np.float32(np.array(bits, np.uint32).view(np.float32))


def _power_of_two(n: npt.NDArray[np.int32]) -> F32:
    return ((n.astype(np.int32) + 127) << 23).view(np.float32)


_LOG2E = np.float32(1.442695040888963407)
_LOW, _HIGH = _from_bits(0xC2AEAC50), _from_bits(0x42B17218)


def exp_sleef_u10(x: F32) -> F32:
    inside = np.clip(x, np.float32(-104), np.float32(100))
    q = np.rint(inside * _LOG2E)
    s = fma32(q, np.float32(-0.693145751953125), inside)
    s = fma32(q, np.float32(-1.428606765330187045e-06), s)
    u = _horner(
        s,
        0.000198527617612853646278381,
        0.00139304355252534151077271,
        0.00833336077630519866943359,
        0.0416664853692054748535156,
        0.166666671633720397949219,
        0.5,
    )
    u = np.float32(1) + fma32(s * s, u, s)
    k = q.astype(np.int32)
    with np.errstate(over="ignore"):
        value = u * _power_of_two(k >> 1) * _power_of_two(k - (k >> 1))
    return np.where(x < -104, np.float32(0), np.where(x > 100, np.float32(np.inf), value))


def exp_u20(x: F32) -> F32:
    v = np.clip(x, _LOW, _HIGH)
    fx = np.floor(fma32(v, _from_bits(0x3FB8AA3B), np.float32(0.5)))
    r = fma32(-fx, _from_bits(0x3F317218), v)
    p = _horner(
        r, 0.00828929059, 0.0418978221, 0.166676521, 0.499991506, 0.999999701, 1.0
    )  # fmt: skip
    scale = np.where(x < _LOW, np.float32(0), _power_of_two(fx.astype(np.int32) - 1))
    with np.errstate(over="ignore"):
        return p * scale * np.float32(2)


def fexp_u20(x: F32) -> F32:
    s = np.clip(x, _LOW, _HIGH) * _from_bits(0x3FB8AA3B)
    f = s - np.floor(s)
    c = _horner(
        f, -0.079204240219773236, -0.22433836478672356, 0.30354260500649682, 0.00010703434948458272
    )
    bits = fma32(np.float32(8388608), s - c, np.float32(1065353216))
    value = bits.astype(np.int32).view(np.float32)
    return np.where(x < _LOW, np.float32(0), np.where(x > _HIGH, np.float32(np.inf), value))


# 2^(i / 32), correctly rounded (as in torch_math.cc).
_ROOT_TEXT = (
    "0x1p+0", "0x1.059b0d3158574p+0", "0x1.0b5586cf9890fp+0", "0x1.11301d0125b51p+0",
    "0x1.172b83c7d517bp+0", "0x1.1d4873168b9aap+0", "0x1.2387a6e756238p+0", "0x1.29e9df51fdee1p+0",
    "0x1.306fe0a31b715p+0", "0x1.371a7373aa9cbp+0", "0x1.3dea64c123422p+0", "0x1.44e086061892dp+0",
    "0x1.4bfdad5362a27p+0", "0x1.5342b569d4f82p+0", "0x1.5ab07dd485429p+0", "0x1.6247eb03a5585p+0",
    "0x1.6a09e667f3bcdp+0", "0x1.71f75e8ec5f74p+0", "0x1.7a11473eb0187p+0", "0x1.82589994cce13p+0",
    "0x1.8ace5422aa0dbp+0", "0x1.93737b0cdc5e5p+0", "0x1.9c49182a3f09p+0", "0x1.a5503b23e255dp+0",
    "0x1.ae89f995ad3adp+0", "0x1.b7f76f2fb5e47p+0", "0x1.c199bdd85529cp+0", "0x1.cb720dcef9069p+0",
    "0x1.d5818dcfba487p+0", "0x1.dfc97337b9b5fp+0", "0x1.ea4afa2a490dap+0", "0x1.f50765b6e454p+0",
)  # fmt: skip
_ROOTS = np.array([float.fromhex(text) for text in _ROOT_TEXT])
_SHIFT = float.fromhex("0x1.8p52")


def _scaled_roots(k: npt.NDArray[np.int64]) -> tuple[F64, F64]:
    return _ROOTS[k & 31], (((k >> 5) + 1023) << 52).view(np.float64)


def exp_glibc(x: F32) -> F32:
    v = np.clip(x, np.float32(-104), np.float32(89)).astype(np.float64)
    scale = float.fromhex("0x1.71547652b82fep+5")
    shifted = fma64(scale, v, _SHIFT)
    root, power = _scaled_roots(shifted.view(np.int64) - np.float64(_SHIFT).view(np.int64))
    r = fma64(scale, v, -(shifted - _SHIFT))
    a = fma64(float.fromhex("0x1.c6af84b912394p-20"), r, float.fromhex("0x1.ebfce50fac4f3p-13"))
    b = fma64(float.fromhex("0x1.62e42ff0c52d6p-6"), r, 1.0)
    with np.errstate(over="ignore"):
        value = (fma64(a, r * r, b) * (root * power)).astype(np.float32)
    return _clipped(x, value)


def exp_glibc_rounded(x: F32) -> F32:
    v = np.clip(x, np.float32(-104), np.float32(89)).astype(np.float64)
    shifted = fma64(v, float.fromhex("0x1.71547652b82fep+5"), _SHIFT)
    root, power = _scaled_roots(shifted.view(np.int64) - np.float64(_SHIFT).view(np.int64))
    n = shifted - _SHIFT
    r = fma64(n, float.fromhex("-0x1.62e42fefa39efp-6"), v)
    r = fma64(n, float.fromhex("-0x1.abc9e3b39803fp-61"), r)
    p: F64 = np.full_like(r, 1.0 / 5040)
    for coefficient in (1.0 / 720, 1.0 / 120, 1.0 / 24, 1.0 / 6, 0.5):
        p = fma64(p, r, coefficient)
    value = fma64(root, fma64(r * r, p, r), root)
    with np.errstate(over="ignore"):
        return _clipped(x, (value * power).astype(np.float32))


def _clipped(x: F32, value: F32) -> F32:
    low, high = np.float32(-103.97208), np.float32(88.72283)  # glibc's own bounds
    return np.where(x < low, np.float32(0), np.where(x > high, np.float32(np.inf), value))


# By the names of a profile (torch_math.h).
EXP: dict[str, Callable[[F32], F32]] = {
    "sleef_expf_u10": exp_sleef_u10,
    "exp_u20": exp_u20,
    "fexp_u20": fexp_u20,
    "glibc_expf": exp_glibc,
    "glibc_exp_rounded": exp_glibc_rounded,
}
